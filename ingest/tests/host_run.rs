//! The task of the host collector against intakes that take, refuse, hang and are closed. Time is paused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use forewarn_ingest::edge::{Accepted, Intake, SubmitError, Urgency};
use forewarn_ingest::host::{self, HostConfig};
use forewarn_ingest::status::{Board, Health};
use forewarn_schemas::{Batch, Clock, ManualClock, Timestamp};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

/// What the intake answers to one batch.
enum Answer {
    Take,
    Overloaded,
    Closed,
    /// Never.
    Hang,
}

/// Remembers batches, and answers as it is told, in order; then it takes all.
struct Scripted {
    answers: Mutex<Vec<Answer>>,
    batches: Sender<(String, Batch, Urgency)>,
}

#[async_trait::async_trait]
impl Intake for Scripted {
    async fn submit(&self, source: &str, batch: Batch, urgency: Urgency) -> Result<Accepted, SubmitError> {
        self.batches.send((source.to_owned(), batch, urgency)).await.unwrap();
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            if answers.is_empty() { Answer::Take } else { answers.remove(0) }
        };
        match answer {
            Answer::Take => Ok(Accepted::default()),
            Answer::Overloaded => {
                Err(SubmitError::Overloaded { reason: "the disk is full".into(), retry_after: Duration::from_secs(1) })
            }
            Answer::Closed => Err(SubmitError::Closed("shutdown".into())),
            Answer::Hang => std::future::pending().await,
        }
    }
}

struct Running {
    batches: Receiver<(String, Batch, Urgency)>,
    board: Arc<Board>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(config: HostConfig, answers: Vec<Answer>) -> Running {
    let (sender, batches) = channel(100);
    let intake = Arc::new(Scripted { answers: Mutex::new(answers), batches: sender });
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let (board, cancel) = (Arc::new(Board::default()), CancellationToken::new());
    let task = tokio::spawn(host::run(config, intake, clock, Arc::clone(&board), cancel.clone()));
    Running { batches, board, cancel, task }
}

fn skipped(batch: &Batch) -> f64 {
    let series = batch.series.iter().find(|s| s.labels.metric() == "host_collect_skipped_total");
    series.unwrap().samples[0].value
}

#[tokio::test(start_paused = true)]
async fn the_first_batch_is_there_before_the_first_interval() {
    let config = HostConfig { interval: Duration::from_secs(3600), node: Some("n1".into()), ..HostConfig::default() };
    let mut running = start(config, Vec::new());
    let before = tokio::time::Instant::now();
    let (source, batch, urgency) = running.batches.recv().await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(3600));
    assert_eq!((source.as_str(), urgency), ("host", Urgency::Lingering));
    assert!(batch.series.iter().all(|s| s.labels.get("node") == Some("n1")));
    assert!(batch.series.iter().all(|s| s.samples[0].ts == Timestamp::from_secs(1_000)));
    let target = &running.board.targets()[0];
    assert_eq!((target.node.as_str(), target.health, target.configured), ("n1", Health::Up, true));
    assert_eq!(target.last_poll, Some(Timestamp::from_secs(1_000)));
    running.cancel.cancel();
    running.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_intake_costs_cycles_which_are_counted() {
    let mut running = start(HostConfig::default(), vec![Answer::Take, Answer::Overloaded, Answer::Overloaded]);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (_, batch, _) = running.batches.recv().await.unwrap();
        seen.push((skipped(&batch), batch.samples()));
    }
    assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [0.0, 0.0, 1.0, 2.0, 2.0]);
    // Nothing of a refused cycle is added to a later one.
    assert!(seen.iter().all(|s| s.1 < 2 * seen[0].1), "{seen:?}");
    running.cancel.cancel();
    running.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_intake_is_shown_on_the_board() {
    let mut running = start(HostConfig::default(), vec![Answer::Overloaded]);
    running.batches.recv().await.unwrap();
    // The next batch follows the answer to the first one.
    while running.board.targets()[0].error.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(running.board.targets()[0].error.contains("the disk is full"));
    running.cancel.cancel();
    running.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_batch_is_in_flight_however_long_the_intake_takes() {
    let mut running = start(HostConfig::default(), vec![Answer::Hang]);
    running.batches.recv().await.unwrap();
    tokio::time::advance(Duration::from_secs(3600)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(running.batches.try_recv().is_err());
    running.cancel.cancel();
    running.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_log_and_a_switch_that_is_off_end_the_task() {
    let running = start(HostConfig::default(), vec![Answer::Closed]);
    running.task.await.unwrap();
    let mut running = start(HostConfig { enabled: false, ..HostConfig::default() }, Vec::new());
    running.task.await.unwrap();
    assert!(running.batches.recv().await.is_none());
    assert!(running.board.targets().is_empty());
}
