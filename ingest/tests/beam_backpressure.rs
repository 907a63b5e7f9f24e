//! A log that is behind, and one that is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forewarn_ingest::beam::{self, BeamConfig, NodeConfig};
use forewarn_ingest::edge::{Accepted, Intake, SubmitError, Urgency};
use forewarn_schemas::{Batch, ManualClock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Refuses the first batches, then takes all, or is closed at once.
struct Log {
    calls: AtomicUsize,
    overloaded: usize,
    closed: bool,
    taken: Notify,
}

#[async_trait::async_trait]
impl Intake for Log {
    async fn submit(&self, _: &str, batch: Batch, _: Urgency) -> Result<Accepted, SubmitError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if self.closed {
            return Err(SubmitError::Closed("test".into()));
        }
        if call < self.overloaded {
            let retry_after = Duration::from_millis(10);
            return Err(SubmitError::Overloaded { reason: "test".into(), retry_after });
        }
        self.taken.notify_one();
        Ok(Accepted { samples: batch.samples(), ..Accepted::default() })
    }
}

/// A node that is down, and so written as down at every interval.
fn config() -> BeamConfig {
    let node = NodeConfig { name: "a@127.0.0.1".into(), cookie_file: None, cookie_env: None, epmd_port: Some(1) };
    BeamConfig { discover_local: false, nodes: vec![node], ..BeamConfig::default() }
}

fn log(overloaded: usize, closed: bool) -> Arc<Log> {
    Arc::new(Log { calls: AtomicUsize::new(0), overloaded, closed, taken: Notify::new() })
}

#[tokio::test]
async fn a_batch_is_offered_again_while_the_log_is_behind() {
    let (log, cancel) = (log(3, false), CancellationToken::new());
    let intake = Arc::clone(&log) as Arc<dyn Intake>;
    let run = beam::run(config(), intake, Arc::<ManualClock>::default(), Arc::default(), cancel.clone());
    let task = tokio::spawn(run);
    log.taken.notified().await;
    assert_eq!(log.calls.load(Ordering::SeqCst), 4);
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn the_collector_ends_with_the_log() {
    let log = log(0, true);
    let intake = Arc::clone(&log) as Arc<dyn Intake>;
    beam::run(config(), intake, Arc::<ManualClock>::default(), Arc::default(), CancellationToken::new()).await;
    assert_eq!(log.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_collector_that_is_off_ends_at_once() {
    let off = BeamConfig { enabled: false, ..config() };
    beam::run(off, log(0, true), Arc::<ManualClock>::default(), Arc::default(), CancellationToken::new()).await;
}
