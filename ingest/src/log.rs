//! The log: where a batch becomes durable, and the only write-ahead log that forewarn has.
//!
//! Records go in by [`Log::enqueue`] or [`Log::append`] and come out by [`Log::read`]; the store and the analysis are
//! its consumers and recover from it. What a record holds is none of its business (`forewarn_schemas::record`).
//!
//! [`EmbeddedLog`] keeps segments in a directory (`docs/formats/segment-v1.md`); [`MemoryLog`] keeps records in memory,
//! for tests and for processes that may forget. Both run the same conformance suite.
//!
//! Inside, in reading order: `frame` (the bytes), `scan` (frames out of a file, over damage), `segment` and
//! `partition` (reading), `queue` and `writer` (group commit, rolling), `recovery` (opening).
//!
//! Deliberately absent: lingering to make larger groups (the edge does), and any notion of consumers (the store keeps
//! its offsets in its manifest).

mod embedded;
mod frame;
mod memory;
mod partition;
mod queue;
mod recovery;
mod scan;
mod segment;
mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forewarn_schemas::{Offset, PartitionId};
use tokio::sync::{oneshot, watch};

pub use embedded::{EmbeddedLog, EmbeddedLogConfig};
pub use memory::MemoryLog;
pub use recovery::Recovery;

/// A partitioned, append-only sequence of records.
///
/// - **Order.** Within a partition, offsets rise in the order of the calls of [`enqueue`](Self::enqueue), which never
///   waits. Who needs an order that agrees with a time stamp stamps and enqueues under one lock.
/// - **Durability.** An append is answered, and its record can be read, only after it is durable. After an error its
///   fate is unknown except for [`LogError::Full`], [`LogError::TooLarge`] and [`LogError::NoSpace`]: those records
///   were not written and never appear.
/// - **Offsets** are given once: never again after truncation, damage or restart. They need not be dense.
/// - **Idempotence.** None: a record that is appended twice is there twice.
#[async_trait::async_trait]
pub trait Log: Send + Sync + Debug {
    /// Returns the number of partitions, fixed when the log was created.
    fn partitions(&self) -> u32;

    /// Puts a record in the queue of its partition, at once; the answer resolves when the record is durable. The
    /// record is written even if the answer is dropped.
    ///
    /// # Errors
    /// [`LogError::Full`] when the queue has no room: wait with [`room`](Self::room), then try again;
    /// [`LogError::TooLarge`]; [`LogError::Closed`].
    fn enqueue(&self, partition: PartitionId, record: Bytes) -> Result<Appending, LogError>;

    /// Resolves when the queue of a partition may have room, or the log is closed. Cancel safe.
    async fn room(&self, partition: PartitionId);

    /// Appends a record, waiting for room; returns its offset once it is durable. When cancelled while waiting for
    /// room nothing is appended, later it is all the same.
    ///
    /// # Errors
    /// [`LogError`], but not `Full`.
    async fn append(&self, partition: PartitionId, record: Bytes) -> Result<Offset, LogError> {
        loop {
            match self.enqueue(partition, record.clone()) {
                Err(LogError::Full(_)) => self.room(partition).await,
                queued => return queued?.await,
            }
        }
    }

    /// Reads records from `from` on: as many as fit into `bytes_max` bytes, at least one if there is any. At the end
    /// of the log the chunk is empty. Does not hold up appends.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] when `from` is below the first readable offset or above the end.
    async fn read(&self, partition: PartitionId, from: Offset, bytes_max: usize) -> Result<Chunk, LogError>;

    /// Returns the offsets from the first that can be read to the durable end, which is the next to be given. Empty
    /// for a partition that the log does not have.
    fn bounds(&self, partition: PartitionId) -> Range<Offset>;

    /// Returns a channel that always holds the durable end.
    ///
    /// # Panics
    /// When the log has no such partition: the caller mixed up two logs.
    fn watch_end(&self, partition: PartitionId) -> watch::Receiver<Offset>;

    /// Forgets records below `before`, durably; some of them may stay readable, none from `before` on is touched.
    ///
    /// # Errors
    /// [`LogError::Unsupported`] where retention is not ours (Kafka); [`LogError::Io`].
    async fn truncate(&self, partition: PartitionId, before: Offset) -> Result<(), LogError>;

    /// Writes what is queued, then closes: later appends are refused with [`LogError::Closed`], reads still work.
    ///
    /// # Errors
    /// [`LogError::Closed`] with the reason when a failure closed it before.
    async fn close(&self) -> Result<(), LogError>;
}

/// What a read found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Records with their offsets, rising.
    pub records: Vec<(Offset, Bytes)>,
    /// Where to read on.
    pub next: Offset,
    /// Offsets before `next` that once held records which are lost to damage; none is in `records`.
    pub gaps: Vec<Range<Offset>>,
}

impl Chunk {
    fn starting(next: Offset) -> Self {
        Self { next, ..Self::default() }
    }

    /// Moves on to `to`; what lies between is lost, but for what was `torn`.
    fn lose_until(&mut self, to: Offset, torn: &Range<Offset>) {
        if self.next < to {
            self.gaps.extend(without(self.next..to, torn));
            self.next = to;
        }
    }
}

/// Returns what is left of `range` without `hole`.
fn without(range: Range<Offset>, hole: &Range<Offset>) -> impl Iterator<Item = Range<Offset>> + use<> {
    let before = range.start..range.end.min(hole.start);
    let after = range.start.max(hole.end)..range.end;
    let parts = if hole.is_empty() { [range, hole.clone()] } else { [before, after] };
    parts.into_iter().filter(|r| !r.is_empty())
}

/// Why the log did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Shut down, or closed to writes by a failed write or sync. Open it anew.
    #[error("log is closed: {0}")]
    Closed(Arc<str>),
    /// Nothing was queued; wait for room.
    #[error("partition {0}: queue is full")]
    Full(PartitionId),
    /// The disk is full or nearly so; nothing was written. Appends work again when there is space.
    #[error("partition {0}: no space on the disk of the log")]
    NoSpace(PartitionId),
    /// The record is larger than `forewarn_schemas::record::RECORD_BYTES_MAX`.
    #[error("record of {bytes} bytes is larger than {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest that is taken.
        bytes_max: usize,
    },
    /// The log has fewer partitions.
    #[error("partition {0} does not exist")]
    NoPartition(PartitionId),
    /// The offset was truncated, or is not given yet.
    #[error("partition {partition}: offset {from} is outside {first} to {end}")]
    OutOfRange {
        /// Which partition.
        partition: PartitionId,
        /// The offset asked for.
        from: Offset,
        /// The first that can be read.
        first: Offset,
        /// The durable end.
        end: Offset,
    },
    /// The back end cannot do this.
    #[error("this log cannot {0}")]
    Unsupported(&'static str),
    /// A segment was written by a newer forewarn; nothing was changed.
    #[error("segment {segment}: version {version} is newer than {newest}: upgrade forewarn to read it")]
    Version {
        /// Its path.
        segment: String,
        /// Its version.
        version: u32,
        /// The newest version that this program reads.
        newest: u32,
    },
    /// The log was created with another number of partitions; nothing was changed.
    #[error("log {dir} has {found} partitions, not {asked}")]
    Partitions {
        /// The log's directory.
        dir: String,
        /// What it has.
        found: u32,
        /// What was asked for.
        asked: u32,
    },
    /// A segment lies where it does not belong; nothing was changed.
    #[error("segment {segment}: its header names partition {partition} and offset {base}")]
    Misplaced {
        /// Its path.
        segment: String,
        /// The partition that it was written for.
        partition: PartitionId,
        /// Its first offset.
        base: Offset,
    },
    /// The file system refused.
    #[error("{what}: {error}")]
    Io {
        /// What was done to which file.
        what: String,
        /// What it said.
        error: Arc<io::Error>,
    },
    /// The metrics are registered already: two logs on one registry.
    #[error("metrics of the log: {0}")]
    Metrics(String),
}

impl LogError {
    fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io { what: what.into(), error: Arc::new(error) }
    }
}

/// The answer to an [`Log::enqueue`]: the record's offset, once it is durable.
#[derive(Debug)]
#[must_use = "a record is durable only when the answer says so"]
pub struct Appending(Inner);

#[derive(Debug)]
enum Inner {
    Known(Option<Result<Offset, LogError>>),
    Awaited(oneshot::Receiver<Result<Offset, LogError>>),
}

impl Appending {
    /// Makes an answer that is known already.
    pub fn known(answer: Result<Offset, LogError>) -> Self {
        Self(Inner::Known(Some(answer)))
    }

    /// Makes an answer that somebody will send; if they never do, the log counts as closed.
    pub fn awaited(answer: oneshot::Receiver<Result<Offset, LogError>>) -> Self {
        Self(Inner::Awaited(answer))
    }
}

impl Future for Appending {
    type Output = Result<Offset, LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Known(answer) => Poll::Ready(answer.take().expect("not polled again after it was ready")),
            Inner::Awaited(answer) => Pin::new(answer)
                .poll(cx)
                .map(|sent| sent.unwrap_or_else(|_| Err(LogError::Closed("its writer has stopped".into())))),
        }
    }
}
