//! The embedded log: segments in a directory of ours.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use forewarn_schemas::record::RECORD_BYTES_MAX;
use forewarn_schemas::{ByteSize, Offset, PartitionId};
use forewarn_vfs::Vfs;
use prometheus::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::partition::Partition;
use super::queue::{Job, Refused};
use super::recovery::{self, Recovery};
use super::writer::{Ending, Shared, Writer};
use super::{Appending, Chunk, Log, LogError};
use crate::metrics::LogMetrics;

/// Limits of the embedded log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddedLogConfig {
    /// A segment is not grown beyond this; default 64 MiB. Truncation removes whole segments.
    pub segment_bytes_max: ByteSize,
    /// Records that wait for one partition's writer; default 16 MiB. When full, appends wait.
    pub queue_bytes_max: ByteSize,
    /// Free space that the log leaves to the manifest and the router's state; default 8 MiB. Below it appends are
    /// refused with [`LogError::NoSpace`].
    pub free_bytes_min: ByteSize,
}

impl Default for EmbeddedLogConfig {
    fn default() -> Self {
        Self {
            segment_bytes_max: ByteSize::mib(64),
            queue_bytes_max: ByteSize::mib(16),
            free_bytes_min: ByteSize::mib(8),
        }
    }
}

/// A log in a directory of this machine. One thread per partition does its writing.
///
/// One process at a time may have a directory open: the caller holds a lock on it. Dropping the log closes it, and
/// blocks until what is queued is written.
#[derive(Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    partitions: Vec<Arc<Partition>>,
    threads: Vec<JoinHandle<()>>,
    done: Vec<watch::Receiver<()>>,
}

impl EmbeddedLog {
    /// Opens or creates the log in `dir` and recovers it. Blocks on file work; needs no runtime.
    ///
    /// # Errors
    /// [`LogError::Version`], [`LogError::Partitions`] or [`LogError::Misplaced`] with nothing changed;
    /// [`LogError::Io`]; [`LogError::NoSpace`] when there is not even room for a new segment's header;
    /// [`LogError::Metrics`] when `registry` has the metrics of a log already.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: impl Into<PathBuf>,
        partitions: u32,
        config: EmbeddedLogConfig,
        registry: &Registry,
    ) -> Result<(Self, Recovery), LogError> {
        let dir = dir.into();
        let partitions = partitions.max(1);
        let inspection = recovery::inspect(&*vfs, &dir, partitions)?;
        let metrics = LogMetrics::new(registry, partitions).map_err(|e| LogError::Metrics(e.to_string()))?;
        let shared = Arc::new(Shared::new(vfs, config, partitions, metrics));
        let (mended, recovery) = inspection.mend(&shared, &dir)?;
        report(&shared.metrics, &recovery);
        let mut log = Self { shared, partitions: Vec::new(), threads: Vec::new(), done: Vec::new() };
        for m in mended {
            let p = m.partition.id;
            let bounds = m.partition.bounds();
            log.shared.metrics.opened(p, bounds, m.partition.bytes());
            let (done, watched) = watch::channel(());
            let writer = Writer::new(Arc::clone(&log.shared), Arc::clone(&m.partition), m.active);
            let ending = Ending { partition: Arc::clone(&m.partition), shared: Arc::clone(&log.shared), _done: done };
            log.partitions.push(m.partition);
            log.done.push(watched);
            let work = move || {
                let _ending = ending;
                writer.run();
            };
            let spawned = std::thread::Builder::new().name(format!("log-{p}")).spawn(work);
            log.threads.push(spawned.map_err(|e| LogError::io("start the writer's thread", e))?);
        }
        Ok((log, recovery))
    }

    /// Gives no offset below `to` in a partition from now on, durably; returns the next one to be given.
    ///
    /// For a consumer that is ahead of the log, because the log's directory was lost or the disk lied about a sync:
    /// records at offsets that it has seen before would be passed over.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn advance(&self, partition: PartitionId, to: Offset) -> Result<Offset, LogError> {
        self.push(partition, |reply| Job::Advance(to, reply))?.await
    }

    fn partition(&self, p: PartitionId) -> Result<&Arc<Partition>, LogError> {
        self.partitions.get(p.0 as usize).ok_or(LogError::NoPartition(p))
    }

    fn push(
        &self,
        p: PartitionId,
        job: impl FnOnce(oneshot::Sender<Result<Offset, LogError>>) -> Job,
    ) -> Result<Appending, LogError> {
        let partition = self.partition(p)?;
        if let Some(e) = self.shared.failure() {
            return Err(e);
        }
        let (reply, answer) = oneshot::channel();
        match partition.queue.push(job(reply)) {
            Ok(waiting) => {
                self.shared.metrics.queue_bytes(p).set(waiting as i64);
                Ok(Appending::awaited(answer))
            }
            Err(Refused::Full) => Err(LogError::Full(p)),
            Err(Refused::Closing) => Err(self.shared.failure().unwrap_or_else(shut_down)),
        }
    }
}

fn shut_down() -> LogError {
    LogError::Closed("shut down".into())
}

fn report(metrics: &LogMetrics, recovery: &Recovery) {
    metrics.cut_bytes.inc_by(recovery.cut_bytes);
    for (partition, gap) in &recovery.gaps {
        metrics.gap_records.inc_by(gap.end.0 - gap.start.0);
        tracing::error!(%partition, from = %gap.start, to = %gap.end, "records of the log are lost to damage");
    }
    if recovery.cut_bytes > 0 {
        tracing::warn!(bytes = recovery.cut_bytes, "a damaged end of the log was cut");
    }
}

#[async_trait::async_trait]
impl Log for EmbeddedLog {
    fn partitions(&self) -> u32 {
        self.shared.partitions
    }

    fn enqueue(&self, partition: PartitionId, record: Bytes) -> Result<Appending, LogError> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: record.len(), bytes_max: RECORD_BYTES_MAX });
        }
        let queued = self.push(partition, |reply| Job::Append(record, reply));
        if let Err(e) = &queued {
            self.shared.metrics.refused(e);
        }
        queued
    }

    async fn room(&self, partition: PartitionId) {
        if let Ok(p) = self.partition(partition) {
            p.queue.room().await;
        }
    }

    async fn read(&self, partition: PartitionId, from: Offset, bytes_max: usize) -> Result<Chunk, LogError> {
        let p = Arc::clone(self.partition(partition)?);
        on_file_threads(move || p.read(from, bytes_max)).await
    }

    fn bounds(&self, partition: PartitionId) -> Range<Offset> {
        self.partition(partition).map_or(Offset(0)..Offset(0), |p| p.bounds())
    }

    fn watch_end(&self, partition: PartitionId) -> watch::Receiver<Offset> {
        self.partition(partition).expect("a partition of this log").end.subscribe()
    }

    async fn truncate(&self, partition: PartitionId, before: Offset) -> Result<(), LogError> {
        let p = Arc::clone(self.partition(partition)?);
        let shared = Arc::clone(&self.shared);
        on_file_threads(move || {
            p.truncate(&*shared.vfs, before)?;
            shared.metrics.truncated(p.id, p.bounds().start, p.bytes());
            Ok(())
        })
        .await
    }

    async fn close(&self) -> Result<(), LogError> {
        self.partitions.iter().for_each(|p| p.queue.close());
        for done in &self.done {
            // Nothing is ever sent: the channel closes when the thread ends.
            let _ = done.clone().changed().await;
        }
        self.shared.failure().map_or(Ok(()), Err)
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.partitions.iter().for_each(|p| p.queue.close());
        for thread in self.threads.drain(..) {
            // A writer that panicked has closed the log, and said so.
            let _ = thread.join();
        }
    }
}

async fn on_file_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(LogError::Closed("the runtime is shutting down".into())),
        },
    }
}
