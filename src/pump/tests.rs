//! A leak, with and without a crash in its middle: the forecasts after it must be the same to the bit.

use std::collections::BTreeMap;
use std::path::Path;

use forewarn_ingest::edge::{EdgeConfig, Intake, Urgency};
use forewarn_ingest::log::{EmbeddedLog, EmbeddedLogConfig};
use forewarn_schemas::{Alert, Batch, Forecast, ForecastState, Labels, ManualClock};
use forewarn_store::{LocalBlocks, StoreConfig};
use forewarn_vfs::StdVfs;
use prometheus::Registry;
use tokio::sync::mpsc;

use super::*;
use crate::metrics::PumpFamilies;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const STEPS: u64 = 240;
const P0: PartitionId = PartitionId(0);

/// One life of the process: all of it is dropped by a crash, and only the directory stays.
struct Life {
    pump: Pump,
    edge: Arc<Edge>,
    log: Arc<dyn Log>,
    clock: Arc<ManualClock>,
    views: Arc<Views>,
    inputs: mpsc::Receiver<Input>,
}

impl Life {
    async fn begin(dir: &Path, now: Timestamp) -> Self {
        let vfs = Arc::new(StdVfs);
        let registry = Registry::new();
        let (log, recovery) =
            EmbeddedLog::open(vfs.clone(), dir.join("log"), 1, EmbeddedLogConfig::default(), &registry).unwrap();
        assert_eq!(recovery.gaps.len(), 0);
        let log: Arc<dyn Log> = Arc::new(log);
        let blocks = Arc::new(LocalBlocks::new(vfs, dir.join("blocks")));
        let store = Arc::new(Store::open(blocks, 1, StoreConfig::default(), &registry).unwrap());
        let clock = Arc::new(ManualClock::new(now));
        let edge = Arc::new(Edge::new(log.clone(), clock.clone(), EdgeConfig::default(), &registry).unwrap());
        let views = Arc::new(Views::default());
        let (alerts, inputs) = forewarn_alert::Handle::new();
        let pump = Pump::open(Parts {
            partition: P0,
            log: log.clone(),
            edge: edge.clone(),
            store,
            catalogue: Catalogue::builtin(),
            config: forewarn_analyze::AnalyzeConfig::default(),
            flush_bytes: 64 << 20,
            board: Arc::default(),
            views: views.clone(),
            alerts,
            alert_metrics: forewarn_alert::Metrics::new(&registry).unwrap(),
            external_url: "http://localhost".into(),
            metrics: PumpFamilies::register(&registry).unwrap().of(P0),
        });
        let mut life = Self { pump, edge, log, clock, views, inputs };
        life.catch_up().await;
        life
    }

    async fn catch_up(&mut self) {
        while self.pump.next < self.log.bounds(P0).end {
            self.pump.take_next().await.unwrap();
        }
    }

    /// One poll of a node whose processes leak from 2,000 towards 20,000, with some noise.
    async fn poll(&mut self, i: u64) {
        self.clock.advance(Duration::from_secs(10));
        let now = START + Duration::from_secs(10 * (i + 1));
        let noise = (i * 7919 % 23) as f64;
        let mut batch = Batch::default();
        for (metric, value) in [
            ("beam_processes", 2_000.0 + 70.0 * i as f64 + noise),
            ("beam_processes_limit", 20_000.0),
            ("beam_start_time_seconds", 1_799_000_000.0),
            ("beam_up", 1.0),
        ] {
            batch.push(Labels::series(metric, &[("node", "a@host"), ("job", "beam")]).unwrap(), now, value);
        }
        let accepted = self.edge.submit("beam", batch, Urgency::Waiting).await.unwrap();
        assert_eq!(accepted.samples, 4);
        self.catch_up().await;
    }

    /// Returns the sets of alerts that were handed to the router since the last call.
    fn emitted(&mut self) -> Vec<Vec<Alert>> {
        let mut out = Vec::new();
        while let Ok(Input::Reconcile { alerts, .. }) = self.inputs.try_recv() {
            out.push(alerts);
        }
        out
    }

    fn processes(&self) -> Option<Forecast> {
        self.views.forecasts().iter().find(|f| f.key.resource == "processes").map(|f| Forecast::clone(f))
    }
}

/// Lives through the leak with crashes before the given polls; returns the forecasts by time, and what was emitted.
async fn leak(crashes: &[u64]) -> (BTreeMap<Timestamp, Forecast>, Vec<Vec<Alert>>) {
    let temp = tempfile::tempdir().unwrap();
    let mut life = Life::begin(temp.path(), START).await;
    let (mut seen, mut emitted) = (BTreeMap::new(), Vec::new());
    for i in 0..STEPS {
        if crashes.contains(&i) {
            drop(life);
            life = Life::begin(temp.path(), START + Duration::from_secs(10 * i)).await;
        }
        life.poll(i).await;
        emitted.append(&mut life.emitted());
        if let Some(f) = life.processes() {
            seen.insert(f.at, f);
        }
    }
    (seen, emitted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_a_leak_changes_neither_the_state_nor_the_time_of_the_page() {
    let (calm, emitted) = leak(&[]).await;
    let called = calm.values().find(|f| f.state == ForecastState::Critical).expect("the leak is called");
    assert!(calm.len() > 200);
    // Before, at and after the flushes (every 30 polls) and the call.
    let (crashed, emitted_too) = leak(&[1, 2, 29, 30, 31, 45, 60, 61, 100, 180, 239]).await;
    assert!(crashed.len() > 200, "{} of {} evaluations seen", crashed.len(), calm.len());
    for (at, f) in &crashed {
        assert_eq!(calm.get(at), Some(f), "at {at}");
    }
    let page = |all: &[Vec<Alert>]| {
        let critical = |a: &&Alert| a.labels.get("severity") == Some("critical");
        all.iter().find_map(|firing| firing.iter().find(critical)).map(|a| (a.labels.clone(), a.starts_at))
    };
    assert_eq!(page(&emitted), page(&emitted_too));
    assert!(page(&emitted).is_some(), "called at {}", called.at);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_emitted_while_it_catches_up_and_one_whole_set_after() {
    let temp = tempfile::tempdir().unwrap();
    let mut life = Life::begin(temp.path(), START).await;
    for i in 0..120 {
        life.poll(i).await;
    }
    let last = life.emitted().pop().expect("it emitted");
    drop(life);
    let mut life = Life::begin(temp.path(), START + Duration::from_secs(1_200)).await;
    assert_eq!(life.emitted(), Vec::<Vec<Alert>>::new());
    life.pump.emit(life.pump.received).await;
    let labels = |firing: &[Alert]| firing.iter().map(|a| a.labels.clone()).collect::<Vec<_>>();
    assert!(!last.is_empty());
    assert_eq!(labels(&life.emitted()[0]), labels(&last));
}
