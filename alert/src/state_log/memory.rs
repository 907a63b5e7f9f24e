//! Records in memory: for tests, and for a router that need not survive.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;

use super::{Change, StateLog, Watch, Watchers};
use crate::error::Error;

/// A state log that lives as long as the process.
#[derive(Debug)]
pub struct MemoryStateLog {
    records: Mutex<BTreeMap<String, Value>>,
    watchers: Watchers,
}

impl MemoryStateLog {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self { records: Mutex::default(), watchers: Watchers::new() }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        // A panic elsewhere cannot leave the map half changed: each change is one call.
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for MemoryStateLog {
    fn default() -> Self {
        Self::new()
    }
}

impl StateLog for MemoryStateLog {
    fn write(&self, changes: &[Change]) -> Result<(), Error> {
        let mut records = self.records();
        for change in changes {
            match change {
                Change::Put { key, value } => drop(records.insert(key.clone(), value.clone())),
                Change::Delete { key } => drop(records.remove(key)),
            }
        }
        self.watchers.tell(changes);
        Ok(())
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Value)>, Error> {
        let records = self.records();
        let from_prefix = records.range(prefix.to_owned()..);
        Ok(from_prefix.take_while(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.watchers.watch(prefix)
    }
}
