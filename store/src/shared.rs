//! What all partitions use: storage, settings, metrics, the block cache and the list of problems.

use std::sync::{Arc, Mutex};

use forewarn_schemas::{PartitionId, TimeRange};

use crate::block::{Block, OpenBlock};
use crate::block_store::BlockStore;
use crate::cache::BlockCache;
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::lock::lock;
use crate::merge::Column;
use crate::metrics::Metrics;

/// Something in the history that is damaged or missing and left out of every answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The partition it is in.
    pub partition: PartitionId,
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

/// Most problems remembered one by one.
const PROBLEMS_MAX: usize = 1000;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) blocks: Arc<dyn BlockStore>,
    pub(crate) cache: BlockCache,
    pub(crate) config: StoreConfig,
    pub(crate) metrics: Metrics,
    pub(crate) read_only: bool,
    problems: Mutex<Vec<Problem>>,
}

impl Shared {
    pub(crate) fn new(blocks: Arc<dyn BlockStore>, config: StoreConfig, metrics: Metrics, read_only: bool) -> Self {
        let bytes_max = usize::try_from(config.cache_bytes.bytes()).unwrap_or(usize::MAX);
        let cache = BlockCache::new(Arc::clone(&blocks), bytes_max);
        Self { blocks, cache, config, metrics, read_only, problems: Mutex::default() }
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        lock(&self.problems).clone()
    }

    pub(crate) fn report(&self, partition: PartitionId, object: &str, what: &str) {
        tracing::warn!(%partition, object, what, "part of the history is left out");
        let mut problems = lock(&self.problems);
        self.metrics.problems.inc();
        if problems.len() < PROBLEMS_MAX {
            problems.push(Problem { partition, object: object.to_owned(), what: what.to_owned() });
        }
    }

    /// Forgets the problems of blocks that are gone.
    pub(crate) fn forget_block(&self, block: &Block) {
        self.cache.forget(block.partition.0, &block.meta.id);
        let mut problems = lock(&self.problems);
        let names = [block.meta.samples_path(block.partition), block.meta.series_path(block.partition)];
        let before = problems.len();
        problems.retain(|p| !names.contains(&p.object));
        self.metrics.problems.sub((before - problems.len()) as i64);
    }

    pub(crate) fn condemn(&self, block: &Block, object: &str, why: &str) {
        if block.condemn(why) {
            self.report(block.partition, object, why);
        }
    }

    /// Opens a block; `None` when it is damaged, which is reported once.
    pub(crate) fn open_block(&self, block: &Block) -> Result<Option<Arc<OpenBlock>>, StoreError> {
        if block.damage().is_some() {
            return Ok(None);
        }
        let open = self.cache.open(block);
        self.unless_damaged(block, open)
    }

    /// Reads series of a block; nothing when it is damaged.
    pub(crate) fn read_block(
        &self,
        block: &Block,
        ids: &[u32],
        range: TimeRange,
        values: bool,
    ) -> Result<Vec<(u32, Column)>, StoreError> {
        let Some(open) = self.open_block(block)? else { return Ok(Vec::new()) };
        let read = open.read(ids, range, values);
        Ok(self.unless_damaged(block, read)?.unwrap_or_default())
    }

    /// Turns damage into a report; other failures are the caller's.
    pub(crate) fn unless_damaged<T>(&self, block: &Block, r: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match r {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Damaged { what, why }) => {
                self.condemn(block, &what, &why);
                Ok(None)
            }
            Err(StoreError::NotFound(path)) => {
                self.condemn(block, &path, "missing");
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}
