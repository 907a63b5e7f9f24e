//! `store.json`: what is fixed when the store is created.

use forewarn_schemas::partition::PARTITION_HASH;
use serde::{Deserialize, Serialize};

use crate::block_store::BlockStore;
use crate::error::StoreError;

const PATH: &str = "store.json";
const FORMAT: u32 = 1;

/// The store's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    format: u32,
    pub(crate) partitions: u32,
    partition_hash: String,
}

impl Layout {
    pub(crate) fn new(partitions: u32) -> Self {
        Self { format: FORMAT, partitions, partition_hash: PARTITION_HASH.into() }
    }

    /// Reads it; `None` when there is no store yet.
    pub(crate) fn read(blocks: &dyn BlockStore) -> Result<Option<Self>, StoreError> {
        let bytes = match blocks.get_all(PATH) {
            Err(StoreError::NotFound(_)) => return Ok(None),
            other => other?,
        };
        let bad = |e: serde_json::Error| StoreError::damaged(PATH, e);
        // A newer format may have other fields; its number is what it surely has.
        let any: serde_json::Value = serde_json::from_slice(&bytes).map_err(bad)?;
        if let Some(format) = any.get("format").and_then(serde_json::Value::as_u64).filter(|f| *f > u64::from(FORMAT)) {
            let format = u32::try_from(format).unwrap_or(u32::MAX);
            return Err(StoreError::Newer { what: PATH.into(), format, known: FORMAT });
        }
        let layout: Self = serde_json::from_value(any).map_err(bad)?;
        if layout.partition_hash != PARTITION_HASH {
            let wanted = format!("partition hash {PARTITION_HASH}");
            return Err(StoreError::Layout { found: format!("partition hash {}", layout.partition_hash), wanted });
        }
        Ok(Some(layout))
    }

    pub(crate) fn create(&self, blocks: &dyn BlockStore) -> Result<(), StoreError> {
        let mut bytes = serde_json::to_vec(self).map_err(|e| StoreError::Engine(e.to_string()))?;
        bytes.push(b'\n');
        blocks.put_if_absent(PATH, &bytes)
    }
}
