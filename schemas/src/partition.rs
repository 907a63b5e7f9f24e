//! Partitions, offsets within them, and the ids of series within them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A partition's number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

/// A record's position in its partition: the first is 0 and each next one is 1 more (Kafka may leave holes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// Returns the offset after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A series within its partition. Given by the store when it first sees the label set; an index, so dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeriesId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of the partition hash, kept with every data directory and topic.
pub const PARTITION_HASH: &str = "xxh64-0";

/// Returns the partition of a node: XXH64 of its identity with seed 0, modulo `partitions` (at least 1).
///
/// # Source
/// xxHash specification 0.1.1, XXH64. Frozen by `fixtures/partition.csv`.
pub fn partition_of(node: &str, partitions: u32) -> PartitionId {
    let hash = xxhash_rust::xxh64::xxh64(node.as_bytes(), 0);
    PartitionId((hash % u64::from(partitions.max(1))) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_frozen() {
        let fixture = include_str!("../fixtures/partition.csv");
        let mut rows = 0;
        for line in fixture.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            for (column, n) in [(1, 2), (2, 32)] {
                assert_eq!(partition_of(cells[0], n).0.to_string(), cells[column], "{line}");
            }
            rows += 1;
        }
        assert!(rows >= 5);
    }
}
