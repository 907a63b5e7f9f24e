//! The chain: read at start, extended by publishing.

use std::collections::BTreeMap;
use std::sync::Arc;

use forewarn_schemas::{Offset, PartitionId, Timestamp};

use super::{Delta, MANIFEST_FORMAT, ObjectRef, SeriesRef};
use crate::block::BlockMeta;
use crate::block_store::BlockStore;
use crate::error::StoreError;

/// The state that the deltas add up to, and the right to add one more.
#[derive(Debug)]
pub(crate) struct Chain {
    blocks: Arc<dyn BlockStore>,
    pub(crate) partition: PartitionId,
    next_seq: u64,
    full_seq: u64,
    pub(crate) to: Offset,
    pub(crate) received_at: Option<Timestamp>,
    pub(crate) series_next: u32,
    pub(crate) series: Vec<SeriesRef>,
    pub(crate) snapshot: Option<ObjectRef>,
    pub(crate) live: BTreeMap<String, BlockMeta>,
    /// Why nothing more may be published.
    closed: Option<String>,
}

impl Chain {
    /// Reads the chain: from the newest delta back to one with the full state, then forward. Changes nothing.
    pub(crate) fn open(blocks: Arc<dyn BlockStore>, partition: PartitionId) -> Result<Self, StoreError> {
        let mut chain = Self {
            partition,
            next_seq: 0,
            full_seq: 0,
            to: Offset(0),
            received_at: None,
            series_next: 0,
            series: Vec::new(),
            snapshot: None,
            live: BTreeMap::new(),
            closed: None,
            blocks,
        };
        let Some(newest) = chain.newest_seq()? else { return Ok(chain) };
        let mut deltas = Vec::new();
        for seq in (0..=newest).rev() {
            let delta = Delta::read(chain.blocks.as_ref(), partition, seq)?;
            let full = delta.full;
            deltas.push(delta);
            if full {
                break;
            }
        }
        for delta in deltas.into_iter().rev() {
            let path = Delta::path(partition, delta.seq);
            chain.apply(delta).map_err(|why| StoreError::damaged(path, why))?;
        }
        Ok(chain)
    }

    fn newest_seq(&self) -> Result<Option<u64>, StoreError> {
        let objects = self.blocks.list(&Delta::dir(self.partition))?;
        Ok(objects.iter().filter_map(|o| Delta::seq_of(&o.path)).max())
    }

    fn apply(&mut self, delta: Delta) -> Result<(), String> {
        if delta.full {
            self.next_seq = delta.seq;
            self.to = delta.from;
            self.live.clear();
            self.series.clear();
            self.series_next = 0;
            self.full_seq = delta.seq;
        }
        self.check(&delta)?;
        for id in &delta.remove {
            self.live.remove(id);
        }
        self.live.extend(delta.add.into_iter().map(|b| (b.id.clone(), b)));
        self.series.extend(delta.series);
        self.series_next = delta.series_next;
        self.snapshot = delta.snapshot;
        self.received_at = delta.received_at;
        self.to = delta.to;
        self.next_seq = delta.seq + 1;
        Ok(())
    }

    fn check(&self, delta: &Delta) -> Result<(), String> {
        if delta.seq != self.next_seq {
            return Err(format!("is delta {}, not {}", delta.seq, self.next_seq));
        }
        if delta.from != self.to {
            return Err(format!("starts at offset {}, the chain ended at {}", delta.from, self.to));
        }
        if delta.to < delta.from {
            return Err(format!("ends at offset {}, before its start", delta.to));
        }
        if let Some(id) = delta.remove.iter().find(|id| !self.live.contains_key(*id)) {
            return Err(format!("removes block {id}, which is not there"));
        }
        if let Some(b) = delta.add.iter().find(|b| self.live.contains_key(&b.id) && !delta.remove.contains(&b.id)) {
            return Err(format!("adds block {}, which is there", b.id));
        }
        let mut next = self.series_next;
        for s in &delta.series {
            if s.first != next || s.next < s.first {
                return Err(format!("has series {}..{}, {next} is next", s.first, s.next));
            }
            next = s.next;
        }
        if next != delta.series_next {
            return Err(format!("gives series ids up to {}, its objects up to {next}", delta.series_next));
        }
        Ok(())
    }

    /// Makes a delta that changes nothing, to be filled in.
    pub(crate) fn draft(&self) -> Delta {
        Delta {
            format: MANIFEST_FORMAT,
            partition: self.partition,
            seq: self.next_seq,
            full: false,
            from: self.to,
            to: self.to,
            received_at: self.received_at,
            add: Vec::new(),
            remove: Vec::new(),
            series_next: self.series_next,
            series: Vec::new(),
            snapshot: self.snapshot.clone(),
        }
    }

    /// Fails when nothing more may be published.
    pub(crate) fn check_open(&self) -> Result<(), StoreError> {
        match &self.closed {
            Some(why) => Err(StoreError::Closed { partition: self.partition, why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Closes the partition to writes when an error leaves its state unknown, and passes the error on.
    pub(crate) fn note(&mut self, error: StoreError) -> StoreError {
        if matches!(error, StoreError::Uncertain { .. } | StoreError::Fenced { .. }) {
            self.closed = Some(error.to_string());
        }
        error
    }

    /// Publishes a delta: the commit. On an error the chain is as it was, and closed when the outcome is unknown.
    pub(crate) fn publish(&mut self, delta: Delta) -> Result<(), StoreError> {
        self.check_open()?;
        if let Err(why) = self.check(&delta) {
            return Err(StoreError::damaged(Delta::path(self.partition, delta.seq), why));
        }
        self.commit(delta).map_err(|e| self.note(e))
    }

    fn commit(&mut self, delta: Delta) -> Result<(), StoreError> {
        let seq = delta.seq;
        let fenced = || StoreError::Fenced { partition: self.partition, seq };
        match self.blocks.put_if_absent(&Delta::path(self.partition, seq), &delta.encode()?) {
            Err(StoreError::AlreadyExists(_)) => return Err(fenced()),
            other => other?,
        }
        // The name may have been free only because a later writer tidied old deltas away. Its newest is always there.
        // When that cannot be looked up, the delta is there but must not be built upon.
        let newest = self.newest_seq().map_err(|e| StoreError::Uncertain {
            path: Delta::path(self.partition, seq),
            source: std::io::Error::other(e),
        })?;
        if newest != Some(seq) {
            return Err(fenced());
        }
        if delta.full {
            // What it carries is what the state is already.
            self.series.clone_from(&delta.series);
            self.full_seq = seq;
            self.next_seq = seq + 1;
            return Ok(());
        }
        self.apply(delta).map_err(|why| StoreError::damaged(Delta::path(self.partition, seq), why))
    }

    /// Publishes the full state when enough deltas have gathered, and drops what only older deltas need.
    /// `series` encodes the labels of all series, when there is more than one object of them.
    pub(crate) fn compact(
        &mut self,
        every: u64,
        series: impl FnOnce() -> Result<Vec<u8>, StoreError>,
    ) -> Result<(), StoreError> {
        if self.next_seq - self.full_seq < every.max(2) {
            return Ok(());
        }
        self.check_open()?;
        let mut delta = self.draft();
        delta.full = true;
        delta.add = self.live.values().cloned().collect();
        delta.series.clone_from(&self.series);
        if self.series.len() > 1 {
            let object = self.put_object("series", "parquet", &series()?)?;
            delta.series = vec![SeriesRef { first: 0, next: self.series_next, object }];
        }
        let old = std::mem::take(&mut self.series);
        let result = self.commit(delta);
        if let Err(e) = result {
            self.series = old;
            return Err(self.note(e));
        }
        self.tidy()
    }

    /// Writes an object whose name says when it was written and what is in it.
    pub(crate) fn put_object(&mut self, kind: &str, suffix: &str, content: &[u8]) -> Result<ObjectRef, StoreError> {
        let sum = crate::block::FileSum::of(content);
        let path = format!("p{}/{kind}/{:020}-{:08x}.{suffix}", self.partition, self.next_seq, sum.crc32c);
        self.put(&path, content)?;
        Ok(ObjectRef { path, sum })
    }

    pub(crate) fn put(&mut self, path: &str, content: &[u8]) -> Result<(), StoreError> {
        let put = self.blocks.put(path, content);
        put.map_err(|e| self.note(e))
    }

    /// Removes objects of this partition that the chain does not need: deltas before the newest full one, blocks,
    /// series objects and snapshots that nothing names. `in_use` keeps objects of blocks that are still being read.
    /// Only whoever holds the directory's lock may call it.
    pub(crate) fn sweep(&self, in_use: &[String]) -> Result<usize, StoreError> {
        let dir = format!("p{}", self.partition);
        let mut removed = self.blocks.discard_partial(&dir)?;
        let mut needed: std::collections::HashSet<String> = in_use.iter().cloned().collect();
        for meta in self.live.values() {
            needed.insert(meta.samples_path(self.partition));
            needed.insert(meta.series_path(self.partition));
        }
        needed.extend(self.series.iter().map(|s| s.object.path.clone()));
        needed.extend(self.snapshot.iter().map(|s| s.path.clone()));
        for object in self.blocks.list(&dir)? {
            let path = &object.path;
            let kept = needed.contains(path) || Delta::seq_of(path).is_some_and(|seq| seq >= self.full_seq);
            let ours =
                ["manifest", "blocks", "series", "snapshot"].iter().any(|k| path.starts_with(&format!("{dir}/{k}/")));
            if ours && !kept {
                self.blocks.delete(path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Drops deltas before the newest full one and series objects that nothing names any more.
    fn tidy(&self) -> Result<(), StoreError> {
        for object in self.blocks.list(&Delta::dir(self.partition))? {
            if Delta::seq_of(&object.path).is_some_and(|seq| seq < self.full_seq) {
                self.blocks.delete(&object.path)?;
            }
        }
        for object in self.blocks.list(&format!("p{}/series", self.partition))? {
            if !self.series.iter().any(|s| s.object.path == object.path) {
                self.blocks.delete(&object.path)?;
            }
        }
        Ok(())
    }
}
