//! Objects in memory: for tests, and for histories that need not outlive the process.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{BlockStore, Object, check_path};
use crate::error::StoreError;
use crate::lock::lock;

/// Objects in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryBlocks(Arc<Mutex<BTreeMap<String, Bytes>>>);

impl MemoryBlocks {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self::default()
    }
}

impl BlockStore for MemoryBlocks {
    fn put(&self, path: &str, content: &[u8]) -> Result<(), StoreError> {
        check_path(path)?;
        match lock(&self.0).entry(path.to_owned()).or_insert_with(|| Bytes::copy_from_slice(content)) {
            same if same == content => Ok(()),
            _ => Err(StoreError::AlreadyExists(path.into())),
        }
    }

    fn put_if_absent(&self, path: &str, content: &[u8]) -> Result<(), StoreError> {
        check_path(path)?;
        let mut objects = lock(&self.0);
        if objects.contains_key(path) {
            return Err(StoreError::AlreadyExists(path.into()));
        }
        objects.insert(path.to_owned(), Bytes::copy_from_slice(content));
        Ok(())
    }

    fn get(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_path(path)?;
        let objects = lock(&self.0);
        let all = objects.get(path).ok_or_else(|| StoreError::NotFound(path.into()))?;
        if range.start > range.end || range.end > all.len() as u64 {
            return Err(StoreError::damaged(path, format!("bytes {range:?} of {}", all.len())));
        }
        Ok(all.slice(range.start as usize..range.end as usize))
    }

    fn bytes(&self, path: &str) -> Result<u64, StoreError> {
        check_path(path)?;
        lock(&self.0).get(path).map(|b| b.len() as u64).ok_or_else(|| StoreError::NotFound(path.into()))
    }

    fn list(&self, dir: &str) -> Result<Vec<Object>, StoreError> {
        if !dir.is_empty() {
            check_path(dir)?;
        }
        let inside = |p: &str| dir.is_empty() || p.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        let objects = lock(&self.0);
        let found = objects.iter().filter(|(p, _)| inside(p));
        Ok(found.map(|(p, b)| Object { path: p.clone(), bytes: b.len() as u64 }).collect())
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        check_path(path)?;
        lock(&self.0).remove(path);
        Ok(())
    }

    fn discard_partial(&self, dir: &str) -> Result<usize, StoreError> {
        if dir.is_empty() { Ok(0) } else { check_path(dir).map(|()| 0) }
    }
}
