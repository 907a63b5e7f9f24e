//! The manifest of a partition: a chain of numbered deltas (`docs/formats/manifest-v1.md`).
//!
//! A delta says which offsets of the log it covers, which blocks come and go, and which analyzer snapshot belongs to
//! its end. Creating its name is the commit: before it nothing is visible, after it everything is. The name is created
//! only if it is absent, so of two writers the second is fenced. Every so often a delta carries the full state, which
//! bounds what opening reads; older deltas may then go.
//!
//! Deliberately absent: what the blocks hold, and when to flush (`partition`).

mod chain;

use forewarn_schemas::{Offset, PartitionId, Timestamp};
use serde::{Deserialize, Serialize};

pub(crate) use chain::Chain;

use crate::block::{BlockMeta, FileSum};
use crate::block_store::BlockStore;
use crate::error::StoreError;

/// The format that this code writes, and the newest that it reads.
pub(crate) const MANIFEST_FORMAT: u32 = 1;

/// An object with its size and checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectRef {
    pub(crate) path: String,
    #[serde(flatten)]
    pub(crate) sum: FileSum,
}

/// A series object: labels of the ids `[first, next)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeriesRef {
    pub(crate) first: u32,
    pub(crate) next: u32,
    #[serde(flatten)]
    pub(crate) object: ObjectRef,
}

/// One step of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    pub(crate) format: u32,
    pub(crate) partition: PartitionId,
    pub(crate) seq: u64,
    /// Whether `add` and `series` are the whole state rather than what changed.
    #[serde(default)]
    pub(crate) full: bool,
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    /// Newest `received_at` of the records before `to`.
    pub(crate) received_at: Option<Timestamp>,
    pub(crate) add: Vec<BlockMeta>,
    pub(crate) remove: Vec<String>,
    /// First series id that is not given yet.
    pub(crate) series_next: u32,
    pub(crate) series: Vec<SeriesRef>,
    pub(crate) snapshot: Option<ObjectRef>,
}

/// The second line of a delta's object.
#[derive(Serialize, Deserialize)]
struct Seal {
    crc32c: u32,
}

/// What every format of a delta has.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Delta {
    pub(crate) fn path(partition: PartitionId, seq: u64) -> String {
        format!("{}/{seq:020}.json", Self::dir(partition))
    }

    pub(crate) fn dir(partition: PartitionId) -> String {
        format!("p{partition}/manifest")
    }

    /// Returns the number in an object's name; `None` for what is no delta.
    fn seq_of(path: &str) -> Option<u64> {
        let name = path.rsplit('/').next()?.strip_suffix(".json")?;
        if name.len() == 20 { name.parse().ok() } else { None }
    }

    fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let bad = |e: serde_json::Error| StoreError::Engine(format!("manifest: {e}"));
        let mut out = serde_json::to_vec(self).map_err(bad)?;
        out.push(b'\n');
        let seal = Seal { crc32c: crc32c::crc32c(&out) };
        out.extend_from_slice(&serde_json::to_vec(&seal).map_err(bad)?);
        out.push(b'\n');
        Ok(out)
    }

    fn decode(path: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        let bad = |why: &dyn std::fmt::Display| StoreError::damaged(path, why);
        let line = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| bad(&"cut short"))? + 1;
        let (first, second) = bytes.split_at(line);
        // The format first, so that a newer one is named as such whatever its seal looks like.
        let head: Head = serde_json::from_slice(first).map_err(|e| bad(&e))?;
        if head.format > MANIFEST_FORMAT {
            return Err(StoreError::Newer { what: path.into(), format: head.format, known: MANIFEST_FORMAT });
        }
        let seal: Seal = serde_json::from_slice(second).map_err(|e| bad(&e))?;
        if seal.crc32c != crc32c::crc32c(first) {
            return Err(bad(&"checksum mismatch"));
        }
        serde_json::from_slice(first).map_err(|e| bad(&e))
    }

    fn read(blocks: &dyn BlockStore, partition: PartitionId, seq: u64) -> Result<Self, StoreError> {
        let path = Self::path(partition, seq);
        let delta = Self::decode(&path, &blocks.get_all(&path)?)?;
        if delta.seq != seq || delta.partition != partition {
            return Err(StoreError::damaged(path, format!("is delta {} of partition {}", delta.seq, delta.partition)));
        }
        Ok(delta)
    }
}

#[cfg(test)]
mod tests;
