//! The collector under test: what it writes is kept, and waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forewarn_ingest::beam::{self, BeamConfig};
use forewarn_ingest::edge::{Accepted, Intake, SubmitError, Urgency};
use forewarn_ingest::status::{Board, Health, Target};
use forewarn_schemas::{Batch, Clock, Labels, Timestamp, is_stale};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what should come.
const PATIENCE: Duration = Duration::from_secs(60);

/// One recorded sample.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) labels: Labels,
    pub(crate) ts: Timestamp,
    pub(crate) value: f64,
}

impl Seen {
    pub(crate) fn is(&self, metric: &str) -> bool {
        self.labels.metric() == metric
    }

    pub(crate) fn is_end(&self) -> bool {
        is_stale(self.value)
    }
}

/// Remembers all samples.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    seen: Mutex<Vec<Seen>>,
    more: Notify,
}

impl Recorder {
    pub(crate) fn values(&self, metric: &str) -> Vec<f64> {
        self.seen.lock().unwrap().iter().filter(|s| s.is(metric)).map(|s| s.value).collect()
    }
}

#[async_trait::async_trait]
impl Intake for Recorder {
    async fn submit(&self, source: &str, batch: Batch, urgency: Urgency) -> Result<Accepted, SubmitError> {
        assert_eq!((source, urgency), ("beam", Urgency::Lingering));
        let mut unique = std::collections::HashSet::new();
        let samples = batch.samples();
        for series in batch.series {
            for sample in series.samples {
                assert!(unique.insert((series.labels.clone(), sample.ts)), "{} twice at one time", series.labels);
                let seen = Seen { labels: series.labels.clone(), ts: sample.ts, value: sample.value };
                self.seen.lock().unwrap().push(seen);
            }
        }
        self.more.notify_waiters();
        Ok(Accepted { samples, ..Accepted::default() })
    }
}

#[derive(Debug)]
struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(since.as_millis() as i64)
    }
}

/// A running collector.
pub(crate) struct Watching {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) board: Arc<Board>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// A configuration for tests: quick, and only the epmd at `epmd_port`.
pub(crate) fn config(epmd_port: u16, cookie_file: std::path::PathBuf) -> BeamConfig {
    BeamConfig {
        interval: Duration::from_millis(200),
        mailbox_interval: Duration::from_millis(500),
        epmd_port: Some(epmd_port),
        cookie_file: Some(cookie_file),
        // Nodes of tests are young; what would be forgotten at once is to be seen going down.
        passing_max: Duration::ZERO,
        ..BeamConfig::default()
    }
}

impl Watching {
    pub(crate) fn start(config: BeamConfig) -> Self {
        assert_eq!(config.validate(), Vec::<String>::new());
        let (recorder, board, cancel) =
            (Arc::new(Recorder::default()), Arc::new(Board::default()), CancellationToken::new());
        let task = beam::run(
            config,
            Arc::clone(&recorder) as Arc<dyn Intake>,
            Arc::new(WallClock),
            Arc::clone(&board),
            cancel.clone(),
        );
        Self { recorder, board, cancel, task: tokio::spawn(task) }
    }

    /// Ends the collector and waits until it has ended.
    pub(crate) async fn stop(self) -> Arc<Recorder> {
        self.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the collector ends").unwrap();
        self.recorder
    }

    /// Waits until `wanted` finds something in all that was written so far.
    pub(crate) async fn until<T>(&self, what: &str, wanted: impl Fn(&[Seen]) -> Option<T>) -> T {
        let search = async {
            loop {
                let mut more = std::pin::pin!(self.recorder.more.notified());
                more.as_mut().enable();
                if let Some(found) = wanted(&self.recorder.seen.lock().unwrap()) {
                    return found;
                }
                more.await;
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("{what}: never written; board: {:#?} {:#?}", self.board.targets(), self.board.notices()),
        }
    }

    /// Waits for the next sample of `metric` after `after` for which `ok` is true.
    pub(crate) async fn sample(&self, metric: &str, after: Timestamp, ok: impl Fn(&Seen) -> bool) -> Seen {
        self.until(metric, |seen| seen.iter().find(|s| s.is(metric) && s.ts > after && ok(s)).cloned()).await
    }

    /// Waits until the board has a target with this health.
    pub(crate) async fn health(&self, health: Health) -> Target {
        let search = async {
            loop {
                if let Some(target) = self.board.targets().into_iter().find(|t| t.health == health) {
                    return target;
                }
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("no target is {health:?}: {:#?}", self.board.targets()),
        }
    }

    /// The latest value of each metric without an object.
    pub(crate) fn latest(&self) -> BTreeMap<String, f64> {
        let seen = self.recorder.seen.lock().unwrap();
        seen.iter().map(|s| (s.labels.metric().to_owned(), s.value)).collect()
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        self.recorder.seen.lock().unwrap().clone()
    }
}

/// The time now, for `after`.
pub(crate) fn now() -> Timestamp {
    WallClock.now()
}
