//! A log in memory: durable as long as the process.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use forewarn_schemas::record::RECORD_BYTES_MAX;
use forewarn_schemas::{Offset, PartitionId};
use tokio::sync::watch;

use super::{Appending, Chunk, Log, LogError};

/// A log that keeps its records in memory. Its queue is never full: an append is done at once.
#[derive(Debug)]
pub struct MemoryLog {
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    state: Mutex<State>,
    end: watch::Sender<Offset>,
}

#[derive(Debug, Default)]
struct State {
    first: u64,
    records: VecDeque<Bytes>,
    closed: bool,
}

impl MemoryLog {
    /// Makes an empty log of at least one partition.
    pub fn new(partitions: u32) -> Self {
        let partition = || Partition { state: Mutex::default(), end: watch::Sender::new(Offset(0)) };
        Self { partitions: (0..partitions.max(1)).map(|_| partition()).collect() }
    }

    fn partition(&self, p: PartitionId) -> Result<&Partition, LogError> {
        self.partitions.get(p.0 as usize).ok_or(LogError::NoPartition(p))
    }
}

impl Partition {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each method leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

#[async_trait::async_trait]
impl Log for MemoryLog {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn enqueue(&self, partition: PartitionId, record: Bytes) -> Result<Appending, LogError> {
        let p = self.partition(partition)?;
        if record.len() > RECORD_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: record.len(), bytes_max: RECORD_BYTES_MAX });
        }
        let mut state = p.lock();
        if state.closed {
            return Err(LogError::Closed("shut down".into()));
        }
        let offset = Offset(state.end());
        state.records.push_back(record);
        // Under the lock, so that the end never goes back.
        p.end.send_replace(offset.next());
        Ok(Appending::known(Ok(offset)))
    }

    async fn room(&self, _: PartitionId) {}

    async fn read(&self, partition: PartitionId, from: Offset, bytes_max: usize) -> Result<Chunk, LogError> {
        let state = self.partition(partition)?.lock();
        let (first, end) = (Offset(state.first), Offset(state.end()));
        if from < first || from > end {
            return Err(LogError::OutOfRange { partition, from, first, end });
        }
        let (mut chunk, mut used) = (Chunk::starting(from), 0);
        for record in state.records.range((from.0 - first.0) as usize..) {
            used += record.len();
            if used > bytes_max && !chunk.records.is_empty() {
                break;
            }
            chunk.records.push((chunk.next, record.clone()));
            chunk.next = chunk.next.next();
        }
        Ok(chunk)
    }

    fn bounds(&self, partition: PartitionId) -> Range<Offset> {
        self.partition(partition).map_or(Offset(0)..Offset(0), |p| {
            let state = p.lock();
            Offset(state.first)..Offset(state.end())
        })
    }

    fn watch_end(&self, partition: PartitionId) -> watch::Receiver<Offset> {
        self.partition(partition).expect("a partition of this log").end.subscribe()
    }

    async fn truncate(&self, partition: PartitionId, before: Offset) -> Result<(), LogError> {
        let mut state = self.partition(partition)?.lock();
        let forgotten = before.0.min(state.end()).saturating_sub(state.first);
        state.records.drain(..forgotten as usize);
        state.first += forgotten;
        Ok(())
    }

    async fn close(&self) -> Result<(), LogError> {
        self.partitions.iter().for_each(|p| p.lock().closed = true);
        Ok(())
    }
}
