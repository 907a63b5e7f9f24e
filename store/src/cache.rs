//! Directories and Parquet metadata of blocks in memory, up to a size; the longest unused go first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::block::{Block, OpenBlock};
use crate::block_store::BlockStore;
use crate::error::StoreError;
use crate::lock::lock;

#[derive(Debug)]
pub(crate) struct BlockCache {
    blocks: Arc<dyn BlockStore>,
    bytes_max: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    open: HashMap<(u32, String), Entry>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    block: Arc<OpenBlock>,
    bytes: usize,
    used: u64,
}

impl BlockCache {
    pub(crate) fn new(blocks: Arc<dyn BlockStore>, bytes_max: usize) -> Self {
        Self { blocks, bytes_max, entries: Mutex::default() }
    }

    /// Returns a block's directory, from memory or by opening the block.
    pub(crate) fn open(&self, block: &Block) -> Result<Arc<OpenBlock>, StoreError> {
        let key = (block.partition.0, block.meta.id.clone());
        {
            let mut entries = lock(&self.entries);
            entries.clock += 1;
            let now = entries.clock;
            if let Some(entry) = entries.open.get_mut(&key) {
                entry.used = now;
                return Ok(Arc::clone(&entry.block));
            }
        }
        // Opened outside the lock: two readers may both do it, which costs time and nothing else.
        let open = Arc::new(block.open(&self.blocks)?);
        let mut entries = lock(&self.entries);
        entries.clock += 1;
        let entry = Entry { block: Arc::clone(&open), bytes: open.weight(), used: entries.clock };
        entries.bytes += entry.bytes;
        if let Some(old) = entries.open.insert(key, entry) {
            entries.bytes -= old.bytes;
        }
        while entries.bytes > self.bytes_max && entries.open.len() > 1 {
            let Some(oldest) = entries.open.iter().min_by_key(|(_, e)| e.used).map(|(k, _)| k.clone()) else { break };
            if let Some(gone) = entries.open.remove(&oldest) {
                entries.bytes -= gone.bytes;
            }
        }
        Ok(open)
    }

    pub(crate) fn forget(&self, partition: u32, id: &str) {
        let mut entries = lock(&self.entries);
        if let Some(gone) = entries.open.remove(&(partition, id.to_owned())) {
            entries.bytes -= gone.bytes;
        }
    }
}
