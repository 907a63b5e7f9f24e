//! One partition: label index, head, blocks and manifest chain, and the locks between them.
//!
//! `state` is what queries look at; it is held for the time of a lookup, or of one record's append, never during I/O.
//! `chain` is the right to publish; a flush or a retention step holds it from its first write to its last. Whoever needs
//! both takes `chain` first.

mod flush;
mod open;
mod retention;
mod view;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, RwLock};

use forewarn_schemas::{Labels, Offset, PartitionId, Record, RecordBody, Sample, SeriesId, TimeRange, Timestamp};

pub use flush::FlushJob;
pub use retention::Retained;
pub(crate) use view::View;

use crate::block::Block;
use crate::error::StoreError;
use crate::head::Head;
use crate::index::LabelIndex;
use crate::lock::{read, write};
use crate::manifest::{Chain, ObjectRef};
use crate::metrics::PartitionGauges;
use crate::shared::Shared;

/// How long, by `received_at`, a failed flush is left alone.
const FLUSH_RETRY: std::time::Duration = std::time::Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) shared: Arc<Shared>,
    gauges: PartitionGauges,
    state: RwLock<State>,
    chain: Mutex<Chain>,
    /// Blocks out of the manifest whose files wait for the last reader.
    retired: Mutex<Vec<Arc<Block>>>,
    /// When, by the caller's clock, retention last deleted something.
    retained_at: Mutex<Option<Timestamp>>,
}

#[derive(Debug)]
struct State {
    index: LabelIndex,
    head: Arc<Head>,
    /// Heads on their way into blocks, oldest first.
    frozen: VecDeque<Frozen>,
    /// By offset, lowest first: of equal samples the first block's is right.
    blocks: Arc<Vec<Arc<Block>>>,
    /// First offset that was not appended yet.
    next: Offset,
    /// The manifest's end.
    checkpoint: Offset,
    snapshot: Option<ObjectRef>,
    /// Newest `received_at` appended.
    received_at: Option<Timestamp>,
    /// `received_at` of the first record that is not frozen.
    head_since: Option<Timestamp>,
    head_bytes: u64,
    flush_failed_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Frozen {
    head: Arc<Head>,
    to: Offset,
}

/// Figures of one partition, for status pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStats {
    /// The partition.
    pub partition: PartitionId,
    /// Series whose labels are known.
    pub series: usize,
    /// Samples not flushed yet.
    pub head_samples: usize,
    /// Bytes of the log not flushed yet, estimated.
    pub head_bytes: u64,
    /// Blocks of the history.
    pub blocks: usize,
    /// Bytes of their files.
    pub block_bytes: u64,
    /// Samples in them.
    pub block_samples: u64,
    /// First offset that is not in a block.
    pub checkpoint: Offset,
    /// First offset that was not appended yet.
    pub next: Offset,
    /// Time of the first sample of the blocks.
    pub min_ts: Option<Timestamp>,
    /// Time of their last sample.
    pub max_ts: Option<Timestamp>,
}

impl Partition {
    pub(crate) fn checkpoint(&self) -> Offset {
        read(&self.state).checkpoint
    }

    pub(crate) fn append(&self, offset: Offset, record: &Record) -> Result<Vec<SeriesId>, StoreError> {
        if self.shared.read_only {
            return Err(StoreError::ReadOnly);
        }
        if offset.0 == u64::MAX {
            return Err(StoreError::Offset(offset));
        }
        let metrics = &self.shared.metrics;
        let mut state = write(&self.state);
        let state = &mut *state;
        let batch = match &record.body {
            RecordBody::Samples(batch) => Some(batch),
            RecordBody::Control(_) => None,
        };
        let mut ids = Vec::new();
        if let Some(batch) = batch {
            ids.reserve(batch.series.len());
            for series in &batch.series {
                ids.push(state.index.resolve(&series.labels).ok_or(StoreError::OutOfIds(self.id))?);
            }
        }
        if offset < state.next {
            metrics.records_skipped.inc();
            return Ok(ids);
        }
        if let Some(batch) = batch {
            let pairs = ids.iter().zip(&batch.series).map(|(id, s)| (*id, s.samples.as_slice()));
            let dropped = state.head.append(pairs);
            metrics.samples.inc_by(batch.samples() as u64);
            metrics.duplicates_same.inc_by(dropped.same);
            metrics.duplicates_other.inc_by(dropped.other);
            // As the encoding of a record estimates its rows.
            let rows =
                batch.series.iter().map(|s| 32 + s.labels.text_bytes() + 24 * s.labels.len() + 16 * s.samples.len());
            state.head_bytes += rows.sum::<usize>() as u64;
        } else {
            metrics.control_records.inc();
        }
        state.head_bytes += 64;
        state.next = offset.next();
        state.received_at = state.received_at.max(Some(record.received_at));
        state.head_since.get_or_insert(record.received_at);
        self.show_head(state);
        Ok(ids)
    }

    fn show(&self, state: &State) {
        let g = &self.gauges;
        self.show_head(state);
        g.blocks.set(state.blocks.len() as i64);
        g.block_bytes.set(state.blocks.iter().map(|b| b.meta.bytes()).sum::<u64>() as i64);
        g.checkpoint.set(state.checkpoint.0 as i64);
    }

    fn show_head(&self, state: &State) {
        self.gauges.series.set(state.index.known() as i64);
        self.gauges.head_samples.set(state.head.samples() as i64);
        self.gauges.head_bytes.set(state.head_bytes as i64);
    }

    pub(crate) fn flush_due(&self, received_at: Timestamp) -> bool {
        let state = read(&self.state);
        let config = &self.shared.config;
        if let Some(failed) = state.flush_failed_at {
            return received_at.since(failed) >= FLUSH_RETRY;
        }
        let old = state.head_since.is_some_and(|since| received_at.since(since) >= config.flush_interval);
        old || state.head_bytes >= config.flush_bytes.bytes()
    }

    pub(crate) fn labels(&self, id: SeriesId) -> Option<Labels> {
        read(&self.state).index.get(id).cloned()
    }

    pub(crate) fn series(&self) -> Vec<(SeriesId, Labels)> {
        read(&self.state).index.all().map(|(id, l)| (SeriesId(id), l.clone())).collect()
    }

    pub(crate) fn snapshot(&self) -> Option<bytes::Bytes> {
        let object = read(&self.state).snapshot.clone()?;
        match object.sum.read(self.shared.blocks.as_ref(), &object.path) {
            Ok(bytes) => Some(bytes),
            Err(e) => {
                self.shared.report(self.id, &object.path, &e.to_string());
                None
            }
        }
    }

    pub(crate) fn history(&self, id: SeriesId, range: TimeRange) -> Result<Vec<Sample>, StoreError> {
        let view = self.view(|_| Vec::new(), range);
        Ok(view.column(id, range)?.into_samples())
    }

    pub(crate) fn stats(&self) -> PartitionStats {
        let state = read(&self.state);
        let blocks = || state.blocks.iter().map(|b| &b.meta);
        PartitionStats {
            partition: self.id,
            series: state.index.known(),
            head_samples: state.head.samples() + state.frozen.iter().map(|f| f.head.samples()).sum::<usize>(),
            head_bytes: state.head_bytes,
            blocks: state.blocks.len(),
            block_bytes: blocks().map(|m| m.bytes()).sum(),
            block_samples: blocks().map(|m| m.samples).sum(),
            checkpoint: state.checkpoint,
            next: state.next,
            min_ts: blocks().map(|m| m.min_ts).min().map(Timestamp::from_millis),
            max_ts: blocks().map(|m| m.max_ts).max().map(Timestamp::from_millis),
        }
    }
}
