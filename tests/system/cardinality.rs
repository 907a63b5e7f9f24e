//! Many series in, few out: what `/metrics` shows follows the trouble, not the fleet.

use std::sync::Arc;
use std::time::Duration;

use forewarn::config::Config;
use forewarn::data_dir::DataDir;
use forewarn::pipeline::Pipeline;
use forewarn_ingest::clock::SystemClock;
use forewarn_ingest::edge::{Intake as _, Urgency};
use forewarn_schemas::{Batch, Clock, Labels};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::support::eventually;

#[test]
fn ten_thousand_series_leave_the_metrics_small() {
    const NODES: usize = 5_000;
    let temp = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (registry, clock) = (Registry::new(), Arc::new(SystemClock::new()));
    let mut config = Config::default();
    config.forecast.step = Duration::from_secs(1);
    let data = DataDir::open(temp.path()).unwrap();
    let board = Arc::default();
    let opening =
        Pipeline::open(&config, data, clock.clone(), &registry, "http://localhost", &board, CancellationToken::new());
    let pipeline = runtime.block_on(opening).unwrap();
    let labels: Vec<(Labels, Labels)> = (0..NODES)
        .map(|i| {
            let node = format!("n{i}@host");
            let series = |metric| Labels::series(metric, &[("node", &node), ("job", "beam")]).unwrap();
            (series("beam_processes"), series("beam_processes_limit"))
        })
        .collect();
    let mut polls = 0;
    let counted = eventually("every resource is counted", Duration::from_secs(60), || {
        let now = clock.now();
        let mut batch = Batch::default();
        for (i, (used, limit)) in labels.iter().enumerate() {
            // Node 0 is full; the others rest.
            batch.push(used.clone(), now, if i == 0 { 32_768.0 } else { 500.0 });
            batch.push(limit.clone(), now, 32_768.0);
        }
        let accepted = runtime.block_on(pipeline.edge.submit("test", batch, Urgency::Waiting)).unwrap();
        assert_eq!(accepted.samples, 2 * NODES);
        polls += 1;
        let counts = pipeline.views.counts();
        let all: usize = counts.iter().filter(|((r, _), _)| r == "processes").map(|(_, n)| n).sum();
        let exhausted = counts.iter().any(|((_, s), _)| s.as_str() == "exhausted");
        (all == NODES && exhausted).then_some(all)
    });
    assert_eq!(counted, NODES);
    let text = forewarn::exporter::render(&registry, &pipeline.views, config.exporter.max_resources).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with('#')).count();
    assert!(lines < 500, "{lines} series exported after {polls} polls of 10,000");
    assert!(text.contains(
        "forewarn_forecast_state{node=\"n0@host\",object=\"\",resource=\"processes\",state=\"exhausted\"} 1"
    ));
    assert!(!text.contains("n1@host"));
    runtime.block_on(pipeline.close());
}
