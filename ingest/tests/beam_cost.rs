//! What watching costs the node and the collector: measurements, run by hand with `--ignored --nocapture`.

#[path = "beam_support/erlang.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod erlang;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use erlang::Epmd;
use forewarn_ingest::beam::{self, BeamConfig, NodeConfig};
use forewarn_ingest::edge::{Accepted, Intake, SubmitError, Urgency};
use forewarn_schemas::{Batch, ManualClock};
use tokio_util::sync::CancellationToken;

/// Counts polls and scans, and keeps how long the polls took.
#[derive(Default)]
struct Counter {
    polls: AtomicUsize,
    scans: AtomicUsize,
    seconds: std::sync::Mutex<Vec<f64>>,
}

#[async_trait::async_trait]
impl Intake for Counter {
    async fn submit(&self, _: &str, batch: Batch, _: Urgency) -> Result<Accepted, SubmitError> {
        for series in &batch.series {
            match series.labels.metric() {
                "beam_poll_duration_seconds" => {
                    self.polls.fetch_add(1, Ordering::SeqCst);
                    self.seconds.lock().unwrap().push(series.samples[0].value);
                }
                "beam_fds" => {
                    self.scans.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
        Ok(Accepted::default())
    }
}

/// User and system time of a process in milliseconds; fields 14 and 15, in clock ticks of 10 ms.
fn cpu_ms(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1.split_whitespace();
    after_name.skip(11).take(2).map(|f| f.parse::<f64>().unwrap()).sum::<f64>() * 10.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn needs_erlang_measures_polls_and_scans() {
    let epmd = Epmd::start();
    let mut node = epmd.node(&["-name", "cost@127.0.0.1"]);
    let pid = node.pid().to_string();
    let (often, never) = (Duration::from_millis(100), Duration::from_secs(3600));
    let measured_for = Duration::from_secs(30);
    let idle = cpu_ms(&pid);
    tokio::time::sleep(measured_for).await;
    let idle = (cpu_ms(&pid) - idle) / measured_for.as_secs_f64();
    eprintln!("an idle node uses {idle:.2} ms of CPU in a second");
    for processes in [0, 20_000] {
        let spawn = "[spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, ";
        node.eval(&format!("begin {spawn}{processes})], ok end"));
        for what in ["polls", "scans"] {
            let (interval, mailbox_interval) = if what == "polls" { (often, never) } else { (never, often) };
            let config = BeamConfig {
                interval,
                mailbox_interval,
                discover_local: false,
                nodes: vec![NodeConfig {
                    name: "cost@127.0.0.1".into(),
                    cookie_file: Some(epmd.cookie_file("c", "COOKIE")),
                    cookie_env: None,
                    epmd_port: Some(epmd.port),
                }],
                ..BeamConfig::default()
            };
            let (counter, cancel) = (Arc::new(Counter::default()), CancellationToken::new());
            let intake = Arc::clone(&counter) as Arc<dyn Intake>;
            let run = beam::run(config, intake, Arc::<ManualClock>::default(), Arc::default(), cancel.clone());
            let task = tokio::spawn(run);
            let rounds = || if what == "polls" { &counter.polls } else { &counter.scans }.load(Ordering::SeqCst);
            while rounds() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let (node_ms, own_ms, before) = (cpu_ms(&pid), cpu_ms("self"), rounds());
            tokio::time::sleep(measured_for).await;
            let count = (rounds() - before) as f64;
            let node_ms = (cpu_ms(&pid) - node_ms - idle * measured_for.as_secs_f64()) / count;
            let own_ms = (cpu_ms("self") - own_ms) / count;
            cancel.cancel();
            task.await.unwrap();
            let mut seconds = counter.seconds.lock().unwrap().clone();
            seconds.sort_by(f64::total_cmp);
            let p = |q: f64| seconds[(seconds.len() as f64 * q) as usize] * 1000.0;
            eprintln!(
                "{processes} more processes, {count} {what}: a poll takes p50 {:.2} ms, p99 {:.2} ms; \
                 one of {what} costs the node {node_ms:.2} ms of CPU, the collector {own_ms:.2} ms",
                p(0.5),
                p(0.99)
            );
        }
    }
}
