//! Blocks: immutable samples of a span of time, as two Parquet files (`docs/formats/block-v1.md`).
//!
//! `samples.parquet` is sorted by (series, time); `series.parquet` says which series these are, how many rows each has
//! (so where they begin) and how the values of each are stored. Both are checked against size and CRC32C before they
//! are first used; a block that fails is left out of every answer and reported, never guessed at.

pub(crate) mod labels;
mod reader;
mod value;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use forewarn_schemas::{Offset, PartitionId, TimeRange};
use serde::{Deserialize, Serialize};

pub(crate) use reader::OpenBlock;
pub(crate) use writer::BlockWriter;

use crate::block_store::BlockStore;
use crate::error::StoreError;
use crate::lock::lock;
use crate::merge::overlaps;

/// Size and checksum of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileSum {
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// CRC32C of the whole file.
    pub(crate) crc32c: u32,
}

impl FileSum {
    pub(crate) fn of(content: &[u8]) -> Self {
        Self { bytes: content.len() as u64, crc32c: crc32c::crc32c(content) }
    }

    /// Reads a whole object and checks it.
    pub(crate) fn read(self, blocks: &dyn BlockStore, path: &str) -> Result<bytes::Bytes, StoreError> {
        let have = blocks.bytes(path)?;
        if have != self.bytes {
            return Err(StoreError::damaged(path, format!("{have} bytes, not {}", self.bytes)));
        }
        let content = blocks.get(path, 0..self.bytes)?;
        if crc32c::crc32c(&content) != self.crc32c {
            return Err(StoreError::damaged(path, "checksum mismatch"));
        }
        Ok(content)
    }
}

/// What the manifest says about a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockMeta {
    /// Its name within the partition.
    pub(crate) id: String,
    /// First offset whose samples it may hold.
    pub(crate) from: Offset,
    /// First offset after them. Of blocks that hold the same (series, time) the one with the lower offsets is right.
    pub(crate) to: Offset,
    /// Time of its first sample, ms.
    pub(crate) min_ts: i64,
    /// Time of its last sample, ms.
    pub(crate) max_ts: i64,
    /// Number of samples.
    pub(crate) samples: u64,
    /// Number of series.
    pub(crate) series: u64,
    /// The file `{id}.samples.parquet`.
    pub(crate) samples_file: FileSum,
    /// The file `{id}.series.parquet`.
    pub(crate) series_file: FileSum,
}

impl BlockMeta {
    /// Returns the size of both files.
    pub(crate) fn bytes(&self) -> u64 {
        self.samples_file.bytes + self.series_file.bytes
    }

    pub(crate) fn samples_path(&self, partition: PartitionId) -> String {
        format!("p{partition}/blocks/{}.samples.parquet", self.id)
    }

    pub(crate) fn series_path(&self, partition: PartitionId) -> String {
        format!("p{partition}/blocks/{}.series.parquet", self.id)
    }
}

/// A block of the present state. Kept by whoever reads it, so its files stay until the last reader is done.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) partition: PartitionId,
    pub(crate) meta: BlockMeta,
    verified: AtomicBool,
    damage: Mutex<Option<String>>,
}

impl Block {
    pub(crate) fn new(partition: PartitionId, meta: BlockMeta) -> Arc<Self> {
        Arc::new(Self { partition, meta, verified: AtomicBool::new(false), damage: Mutex::new(None) })
    }

    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        overlaps(range, self.meta.min_ts, self.meta.max_ts)
    }

    pub(crate) fn damage(&self) -> Option<String> {
        lock(&self.damage).clone()
    }

    /// Remembers that it must not be used; says whether that is news.
    pub(crate) fn condemn(&self, why: &str) -> bool {
        lock(&self.damage).replace(why.to_owned()).is_none()
    }

    /// Opens it for reading; the first time everything is checked.
    pub(crate) fn open(&self, blocks: &Arc<dyn BlockStore>) -> Result<OpenBlock, StoreError> {
        let open = OpenBlock::load(blocks, self.partition, &self.meta, !self.verified.load(Ordering::Acquire))?;
        self.verified.store(true, Ordering::Release);
        Ok(open)
    }
}
