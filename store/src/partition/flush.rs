//! Flush: the whole head up to an offset into one block per span of time touched, published as one delta.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use forewarn_schemas::{Labels, Offset, SeriesId, Timestamp};

use super::{Frozen, Partition};
use crate::block::labels::encode_series;
use crate::block::{Block, BlockWriter};
use crate::error::StoreError;
use crate::head::Head;
use crate::lock::{lock, read, write};
use crate::manifest::{Chain, SeriesRef};
use crate::merge::{Column, Duplicates};

/// Most blocks of one flush: when samples are scattered over more spans, wider spans are used.
const BLOCKS_MAX: usize = 64;
/// How much wider at a time.
const WIDEN: i64 = 12;

/// A flush whose head is frozen: what was appended before belongs to it, what comes later does not.
///
/// Dropping it loses nothing: the next flush takes its head along.
#[derive(Debug)]
#[must_use = "nothing is durable before it ran"]
pub struct FlushJob {
    partition: Arc<Partition>,
    to: Offset,
    series_next: u32,
    received_at: Option<Timestamp>,
    snapshot: Option<Bytes>,
}

impl FlushJob {
    /// Returns the offset up to which it goes.
    pub fn to(&self) -> Offset {
        self.to
    }

    /// Writes the blocks and publishes the delta; returns the offset below which the log is no longer needed.
    ///
    /// Appends and queries go on meanwhile. Blocks for the time of encoding and writing.
    ///
    /// # Errors
    /// As the storage has them; the head stays, and the next flush tries again. [`StoreError::Fenced`] when another
    /// writer took the partition over.
    pub fn run(self) -> Result<Offset, StoreError> {
        let partition = Arc::clone(&self.partition);
        let metrics = &partition.shared.metrics;
        let result = self.publish();
        let mut state = write(&partition.state);
        match &result {
            Ok(_) => state.flush_failed_at = None,
            Err(_) => {
                metrics.flush_failures.inc();
                state.flush_failed_at = state.received_at.or(Some(Timestamp::default()));
            }
        }
        partition.show(&state);
        result
    }

    fn publish(self) -> Result<Offset, StoreError> {
        let partition = &self.partition;
        let shared = &partition.shared;
        let mut chain = lock(&partition.chain);
        chain.check_open()?;
        if self.to < chain.to || (self.to == chain.to && self.snapshot.is_none()) {
            return Ok(chain.to);
        }
        let heads: Vec<Arc<Head>> = {
            let state = read(&partition.state);
            state.frozen.iter().filter(|f| f.to <= self.to).map(|f| Arc::clone(&f.head)).collect()
        };
        let mut dropped = Duplicates::default();
        let added = self.write_blocks(&mut chain, &heads, &mut dropped)?;
        let mut delta = chain.draft();
        delta.to = self.to;
        delta.received_at = chain.received_at.max(self.received_at);
        delta.add = added.iter().map(|b| b.meta.clone()).collect();
        if self.series_next > chain.series_next {
            let series = self.new_series(chain.series_next);
            let object = chain.put_object("series", "parquet", &encode_series(&series)?)?;
            delta.series = vec![SeriesRef { first: chain.series_next, next: self.series_next, object }];
            delta.series_next = self.series_next;
        }
        delta.snapshot = match &self.snapshot {
            Some(bytes) => Some(chain.put_object("snapshot", "bin", bytes)?),
            None => None,
        };
        let old_snapshot = chain.snapshot.clone();
        chain.publish(delta)?;

        let mut state = write(&partition.state);
        state.frozen.retain(|f| f.to > self.to);
        let mut blocks = state.blocks.as_ref().clone();
        blocks.extend(added);
        blocks.sort_by_key(|b| (b.meta.from, b.meta.to, b.meta.min_ts));
        state.blocks = Arc::new(blocks);
        state.checkpoint = chain.to;
        state.snapshot.clone_from(&chain.snapshot);
        drop(state);

        let metrics = &shared.metrics;
        metrics.flushes.inc();
        metrics.duplicates_same.inc_by(dropped.same);
        metrics.duplicates_other.inc_by(dropped.other);
        let unused = old_snapshot.filter(|old| Some(old) != chain.snapshot.as_ref());
        self.tidy(&mut chain, unused.map(|old| old.path));
        Ok(chain.to)
    }

    /// What can be left for later without harm: the flush stands.
    fn tidy(&self, chain: &mut Chain, old_snapshot: Option<String>) {
        let partition = &self.partition;
        let full = chain.compact(partition.shared.config.manifest_full_every, || {
            let series: Vec<_> = partition.series().into_iter().filter(|(id, _)| id.0 < self.series_next).collect();
            encode_series(&series)
        });
        let removed = old_snapshot.map_or(Ok(()), |path| partition.shared.blocks.delete(&path));
        for e in [full, removed, partition.collect()].into_iter().filter_map(Result::err) {
            tracing::warn!(partition = %partition.id, error = %e, "could not tidy up after a flush");
        }
    }

    fn new_series(&self, first: u32) -> Vec<(SeriesId, Labels)> {
        let state = read(&self.partition.state);
        let ids = (first..self.series_next).map(SeriesId);
        ids.filter_map(|id| Some((id, state.index.get(id)?.clone()))).collect()
    }

    fn write_blocks(
        &self,
        chain: &mut Chain,
        heads: &[Arc<Head>],
        dropped: &mut Duplicates,
    ) -> Result<Vec<Arc<Block>>, StoreError> {
        let span = span_of(heads, self.partition.shared.config.block_span.as_millis() as i64);
        let mut writers: BTreeMap<i64, BlockWriter> = BTreeMap::new();
        for (id, labels) in self.partition.series() {
            let mut column = Column::default();
            for head in heads {
                column.merge(head.sorted(id, dropped), dropped);
            }
            let mut rest = column.ts.as_slice();
            let mut at = 0;
            while let Some(first) = rest.first() {
                let key = first.div_euclid(span);
                let n = rest.partition_point(|ts| ts.div_euclid(span) == key);
                let part = Column { ts: rest[..n].to_vec(), values: column.values[at..at + n].to_vec() };
                let writer = match writers.entry(key) {
                    std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
                    std::collections::btree_map::Entry::Vacant(e) => e.insert(BlockWriter::new()?),
                };
                writer.push(id, &labels, &part)?;
                rest = &rest[n..];
                at += n;
            }
        }
        let (from, to) = (chain.to, self.to);
        let mut added = Vec::new();
        for (key, writer) in writers {
            let start = key.saturating_mul(span) / 1000;
            let name = format!("t{start}-{}s-o{from}-{to}", span / 1000);
            let Some(block) = writer.finish(&name, from, to)? else { continue };
            chain.put(&block.meta.samples_path(self.partition.id), &block.samples)?;
            chain.put(&block.meta.series_path(self.partition.id), &block.series)?;
            added.push(Block::new(self.partition.id, block.meta));
        }
        Ok(added)
    }
}

/// Finds the span of a flush's blocks: the configured one, or a multiple of it when that would make too many blocks.
fn span_of(heads: &[Arc<Head>], configured: i64) -> i64 {
    let mut span = configured.max(1);
    loop {
        let mut keys = HashSet::new();
        let mut last = None;
        for head in heads {
            head.each_ts(|ts| {
                let key = ts.div_euclid(span);
                if last != Some(key) && keys.len() <= BLOCKS_MAX {
                    keys.insert(key);
                    last = Some(key);
                }
            });
        }
        if keys.len() <= BLOCKS_MAX || span == i64::MAX {
            return span;
        }
        span = span.saturating_mul(WIDEN);
    }
}

impl Partition {
    /// Freezes the head and returns the flush to run.
    pub(crate) fn begin_flush(self: &Arc<Self>, snapshot: Option<Bytes>) -> Result<FlushJob, StoreError> {
        if self.shared.read_only {
            return Err(StoreError::ReadOnly);
        }
        let mut state = write(&self.state);
        if state.head.samples() > 0 {
            let next = Arc::new(state.head.successor());
            let head = std::mem::replace(&mut state.head, next);
            let to = state.next;
            state.frozen.push_back(Frozen { head, to });
        }
        state.head_since = None;
        state.head_bytes = 0;
        Ok(FlushJob {
            partition: Arc::clone(self),
            to: state.next,
            series_next: state.index.len(),
            received_at: state.received_at,
            snapshot,
        })
    }

    /// Deletes the files of retired blocks that nobody reads any more.
    pub(super) fn collect(&self) -> Result<(), StoreError> {
        let mut retired = lock(&self.retired);
        let mut result = Ok(());
        retired.retain(|block| {
            if Arc::strong_count(block) > 1 {
                return true;
            }
            let blocks = &self.shared.blocks;
            let gone = blocks
                .delete(&block.meta.samples_path(self.id))
                .and_then(|()| blocks.delete(&block.meta.series_path(self.id)));
            match gone {
                Ok(()) => false,
                Err(e) => {
                    result = Err(e);
                    true
                }
            }
        });
        result
    }
}
