//! The edge: the one way into the log.
//!
//! A batch is sifted (`sift`): samples that are too old, too new or contradict each other are refused and counted, and
//! so are series above the limits (`cardinality`); each series gets its `node` and `family`. What is left is split by
//! partition, waits up to 250 ms for company if nobody waits for it (`linger`), and is stamped, encoded and enqueued
//! under one lock per partition (`lane`), so that `received_at` never decreases along a partition. The answer comes
//! when the log says that it is durable. From then on nothing is refused any more.
//!
//! In one process the pump takes the decoded records from here ([`Edge::take`]) and says how far it got
//! ([`Edge::consumed`]); when it falls behind, who waits is told to come back later and who lingers is held up.
//!
//! Deliberately absent: parsing of any protocol, and anything that must remember samples.

mod cardinality;
mod lane;
mod linger;
mod sift;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forewarn_schemas::record::{RECORD_BYTES_MAX, RecordError};
use forewarn_schemas::{Batch, ByteSize, Clock, Offset, PartitionId, Record, Timestamp, units};
use prometheus::Registry;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::log::{Log, LogError};
use crate::metrics::EdgeMetrics;
use cardinality::Cardinality;
use lane::Lane;
use linger::Groups;

pub use sift::REASONS;

/// Whether somebody waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A client waits: join the next group commit at once.
    Waiting,
    /// A pull collector: linger at most 250 ms.
    Lingering,
}

/// Where collectors and request handlers hand over batches. [`Edge`] is the real one; tests use one that remembers.
#[async_trait::async_trait]
pub trait Intake: Send + Sync {
    /// Returns once the batch is durable in the log.
    async fn submit(&self, source: &str, batch: Batch, urgency: Urgency) -> Result<Accepted, SubmitError>;
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accepted {
    /// Samples that are durable; one that was there twice counts once.
    pub samples: usize,
    /// Samples refused, with the reason (one of [`REASONS`]) and how many.
    pub refused: BTreeMap<&'static str, usize>,
}

/// Why a batch was not taken. Some of it may be durable all the same; sending all of it again is right, because samples
/// that are there already change nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The pump is behind or the disk is full: try again later.
    #[error("overloaded: {reason}; try again in {retry_after:?}")]
    Overloaded {
        /// What is behind.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The log is closed, by shutdown or after a failed sync.
    #[error("the log is closed: {0}")]
    Closed(String),
}

/// Limits of the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Samples older than this are refused; default 24 h. Imports set it higher.
    #[serde(with = "units::duration")]
    pub age_max: Duration,
    /// Samples further in the future than this are refused; default 10 min.
    #[serde(with = "units::duration")]
    pub ahead_max: Duration,
    /// How long a pull collector's batch waits for others of its source; default 250 ms.
    #[serde(with = "units::duration")]
    pub linger_max: Duration,
    /// Series that one source may have; new ones beyond are refused. Default 100,000.
    pub series_per_source_max: usize,
    /// Series of all sources together; default 2,000,000.
    pub series_max: usize,
    /// A series that is not seen for this long, at most twice this long, no longer counts; default 12 h.
    #[serde(with = "units::duration")]
    pub series_idle_max: Duration,
    /// Decoded records kept for the pump, in bytes as encoded; beyond it the pump reads the log. Default 16 MiB.
    pub hand_over_bytes_max: ByteSize,
    /// Records in the log that the pump has not consumed, in bytes, before submitting is held up. Default 256 MiB.
    pub backlog_bytes_max: ByteSize,
    /// Whether a pump in this process takes and consumes; without one nothing is kept for it and it holds up nothing.
    #[serde(skip)]
    pub has_pump: bool,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            age_max: Duration::from_secs(24 * 3600),
            ahead_max: Duration::from_secs(600),
            linger_max: Duration::from_millis(250),
            series_per_source_max: 100_000,
            series_max: 2_000_000,
            series_idle_max: Duration::from_secs(12 * 3600),
            hand_over_bytes_max: ByteSize::mib(16),
            backlog_bytes_max: ByteSize::mib(256),
            has_pump: true,
        }
    }
}

/// The control record that says that time passes.
pub const TICK: &str = r#"{"tick":{}}"#;
/// The source that a [`TICK`] names.
pub const TICK_SOURCE: &str = "edge";

/// Longest name of a source that is kept; the rest is cut.
const SOURCE_BYTES_MAX: usize = 256;
/// Batches with more samples than this are encoded off the runtime's threads.
const SAMPLES_INLINE_MAX: usize = 2_000;
/// When to come back after the pump was behind or the queue was full, and after the disk was.
const RETRY_SOON: Duration = Duration::from_secs(1);
const RETRY_LATER: Duration = Duration::from_secs(10);

/// The edge of one log. It is the only one that appends to it.
#[derive(Debug)]
pub struct Edge {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    config: EdgeConfig,
    metrics: EdgeMetrics,
    cardinality: Mutex<Cardinality>,
    lanes: Vec<Lane>,
    groups: Groups,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// The parts of a batch by partition.
type Parts = BTreeMap<PartitionId, Batch>;

impl Edge {
    /// Makes the edge of `log`. Call [`Edge::resume`] before the first batch when the log has records.
    ///
    /// # Errors
    /// When `registry` has the metrics of an edge already.
    pub fn new(
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        config: EdgeConfig,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let partitions = log.partitions();
        let lane = |p| Lane::new(PartitionId(p), &config);
        let inner = Inner {
            metrics: EdgeMetrics::new(registry, partitions)?,
            cardinality: Mutex::new(Cardinality::new(&config, clock.now())),
            lanes: (0..partitions).map(lane).collect(),
            groups: Groups::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            log,
            clock,
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads what the log was last stamped with and goes on from there. Returns the latest stamp of all partitions, if
    /// there are records: what the clock should not be behind.
    ///
    /// # Errors
    /// [`LogError`] of reading; a record that cannot be decoded is passed over.
    pub async fn resume(&self) -> Result<Option<Timestamp>, LogError> {
        let mut latest = None;
        for lane in &self.inner.lanes {
            if let Some(stamp) = lane::last_stamp(&*self.inner.log, lane.id).await? {
                lane.resume(stamp);
                latest = latest.max(Some(stamp));
            }
        }
        Ok(latest)
    }

    /// Takes the decoded record at `offset`, which must be durable, if it was kept. `None` means: read the log.
    pub fn take(&self, partition: PartitionId, offset: Offset) -> Option<Arc<Record>> {
        let lane = self.inner.lanes.get(partition.0 as usize)?;
        let taken = lane.take(offset);
        self.inner.metrics.taken(taken.is_some());
        taken
    }

    /// Takes in that the pump has consumed all records of a partition below `next`.
    pub fn consumed(&self, partition: PartitionId, next: Offset) {
        if let Some(lane) = self.inner.lanes.get(partition.0 as usize) {
            lane.consumed(next);
            self.inner.metrics.backlog_bytes(partition).set(lane.backlog_bytes() as i64);
        }
    }

    /// Lets time pass behind the log when nothing is collected: appends a [`TICK`] to each partition that got no record
    /// since the last call. A partition whose pump is behind gets none: it has time enough.
    ///
    /// # Errors
    /// As [`Intake::submit`], of the first partition that fails.
    pub async fn tick(&self) -> Result<(), SubmitError> {
        let mut answers = Vec::new();
        for lane in self.inner.lanes.iter().filter(|l| l.is_idle() && l.has_room()) {
            // A full queue holds records that will move time on.
            let queued = lane.tick(&*self.inner.log, &*self.inner.clock);
            answers.extend(queued.map_err(|e| self.inner.refuse(&e))?);
        }
        for answer in answers {
            answer.await.map_err(|e| self.inner.refuse(&e))?;
            self.inner.metrics.ticks.inc();
        }
        Ok(())
    }

    /// Takes no more batches and appends those that linger; the log itself is closed by its owner, afterwards.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

#[async_trait::async_trait]
impl Intake for Edge {
    async fn submit(&self, source: &str, batch: Batch, urgency: Urgency) -> Result<Accepted, SubmitError> {
        let inner = &self.inner;
        if inner.closing.is_cancelled() {
            return Err(SubmitError::Closed("shut down".into()));
        }
        let source = &source[..source.floor_char_boundary(SOURCE_BYTES_MAX)];
        let (parts, mut accepted) = inner.sift(source, batch);
        inner.metrics.refused(&accepted.refused);
        if parts.is_empty() {
            return Ok(accepted);
        }
        match urgency {
            Urgency::Waiting => {
                if let Some(behind) = parts.keys().map(|p| inner.lane(*p)).find(|lane| !lane.has_room()) {
                    return Err(inner.overloaded_by_backlog(behind));
                }
                inner.append(source, parts, Urgency::Waiting).await?;
            }
            Urgency::Lingering => {
                for p in parts.keys() {
                    tokio::select! {
                        () = inner.lane(*p).room() => {}
                        () = inner.closing.cancelled() => return Err(SubmitError::Closed("shut down".into())),
                    }
                }
                let conflicts = linger::join(inner, source, parts).await?;
                if conflicts > 0 {
                    inner.metrics.refused(&BTreeMap::from([(sift::CONFLICT, conflicts)]));
                    accepted.refuse(sift::CONFLICT, conflicts);
                    accepted.samples -= conflicts;
                }
            }
        }
        inner.metrics.samples.inc_by(accepted.samples as u64);
        Ok(accepted)
    }
}

impl Inner {
    fn lane(&self, p: PartitionId) -> &Lane {
        &self.lanes[p.0 as usize]
    }

    fn sift(&self, source: &str, batch: Batch) -> (Parts, Accepted) {
        let now = self.clock.now();
        let range = now - self.config.age_max..=now + self.config.ahead_max;
        let (series, mut accepted) = sift::check(batch, &range);
        let admitted = {
            // Each holder leaves the counts whole.
            let mut known = self.cardinality.lock().unwrap_or_else(PoisonError::into_inner);
            known.rotate(now);
            let admitted = known.admit(source, series, &mut accepted);
            self.metrics.series.set(known.len() as i64);
            admitted
        };
        (sift::split(admitted, self.lanes.len() as u32, &mut accepted), accepted)
    }

    /// Appends all parts and waits until they are durable.
    async fn append(self: &Arc<Self>, source: &str, parts: Parts, urgency: Urgency) -> Result<(), SubmitError> {
        let mut answers = Vec::new();
        for (p, mut batch) in parts {
            loop {
                let (queued, rest) = self.put(p, source, batch).await.map_err(|e| self.refuse(&e))?;
                answers.extend(queued);
                let Some(rest) = rest else { break };
                if urgency == Urgency::Waiting {
                    return Err(self.refuse(&LogError::Full(p)));
                }
                self.log.room(p).await;
                batch = rest;
            }
        }
        for answer in answers {
            answer.await.map_err(|e| self.refuse(&e))?;
        }
        for lane in &self.lanes {
            self.metrics.backlog_bytes(lane.id).set(lane.backlog_bytes() as i64);
        }
        Ok(())
    }

    /// Stamps, encodes and enqueues; large batches off the runtime's threads.
    async fn put(self: &Arc<Self>, p: PartitionId, source: &str, batch: Batch) -> Result<lane::Queued, LogError> {
        if batch.samples() <= SAMPLES_INLINE_MAX {
            return self.lane(p).put(&*self.log, &*self.clock, source, batch);
        }
        let (inner, source) = (Arc::clone(self), source.to_owned());
        let put = move || inner.lane(p).put(&*inner.log, &*inner.clock, &source, batch);
        match tokio::task::spawn_blocking(put).await {
            Ok(queued) => queued,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(LogError::Closed("the runtime is shutting down".into())),
            },
        }
    }

    fn overloaded_by_backlog(&self, lane: &Lane) -> SubmitError {
        self.metrics.overloaded.with_label_values(&["backlog"]).inc();
        let behind = units::humane_bytes(lane.backlog_bytes() as f64);
        SubmitError::Overloaded {
            reason: format!("partition {} has {behind} that are not analysed yet", lane.id),
            retry_after: RETRY_SOON,
        }
    }

    fn refuse(&self, error: &LogError) -> SubmitError {
        let (name, retry_after) = match error {
            LogError::Closed(reason) => return SubmitError::Closed(reason.to_string()),
            LogError::NoSpace(_) => ("disk", RETRY_LATER),
            LogError::Full(_) => ("queue", RETRY_SOON),
            _ => ("log", RETRY_LATER),
        };
        self.metrics.overloaded.with_label_values(&[name]).inc();
        SubmitError::Overloaded { reason: error.to_string(), retry_after }
    }
}

/// A record that cannot be encoded although every series was checked is a broken invariant of the edge, told as what
/// it is to the log: something that it cannot take.
fn not_encodable(error: &RecordError) -> LogError {
    tracing::error!(%error, "a checked batch could not be encoded");
    LogError::TooLarge { bytes: RECORD_BYTES_MAX + 1, bytes_max: RECORD_BYTES_MAX }
}
