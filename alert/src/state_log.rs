//! Durable keyed records: everything that the router must remember.
//!
//! A key is a path of segments, `alert/00a1…`; a value is a JSON object with its version in `v`. The router writes,
//! and reads only when it opens; a warm stand-by would [`watch`](StateLog::watch). Keys, values and the embedded file
//! are described in `docs/formats/state-log-v1.md`.
//!
//! Two back ends, one conformance suite (`alert/tests/state_log_conformance.rs`): [`EmbeddedStateLog`], one redb file,
//! and [`MemoryStateLog`]. A compacted topic fits the same contract: that is why a reader may not rely on a batch
//! being atomic unless the back end says so, and why batches are written in the order of their changes.

mod embedded;
mod memory;

use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast;

pub use embedded::EmbeddedStateLog;
pub use memory::MemoryStateLog;

use crate::error::Error;

/// The version of the layout: which keys there are. Each record has its own version besides.
pub const FORMAT_VERSION: u64 = 1;

/// How many events a [`Watch`] may lag behind before it has to scan again.
const WATCH_EVENTS_MAX: usize = 1024;

/// One change of one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The record is `value` from now on.
    Put {
        /// The record's key.
        key: String,
        /// All of its content.
        value: Value,
    },
    /// There is no such record any more.
    Delete {
        /// The record's key.
        key: String,
    },
}

impl Change {
    /// Returns the key of the record.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Keyed records.
///
/// - Durability: when [`write`](StateLog::write) returns `Ok`, a crash of the machine loses nothing of it. After an
///   error nothing, or for a back end without transactions a prefix, of the batch is there.
/// - Order: changes are applied in the order given; every [`Watch`] sees them in that order, after they are durable.
/// - Idempotence: a put of the same value and a delete of what is not there succeed.
/// - Calls block until done: make them where blocking is allowed.
pub trait StateLog: Send + Sync + Debug {
    /// Applies `changes`, all or none where the back end has transactions (both of this crate's have).
    ///
    /// # Errors
    /// [`Error::Storage`] when they may not be durable; the next call tries anew.
    fn write(&self, changes: &[Change]) -> Result<(), Error>;

    /// Returns every record whose key starts with `prefix`, sorted by key. A value that cannot be read as JSON is
    /// returned as `null`: one bad record must not hide the others.
    ///
    /// # Errors
    /// [`Error::Storage`] when reading fails.
    fn scan(&self, prefix: &str) -> Result<Vec<(String, Value)>, Error>;

    /// Follows the changes of keys that start with `prefix`, from now on. Watch first and scan then, to miss nothing.
    fn watch(&self, prefix: &str) -> Watch;

    /// Writes one record.
    ///
    /// # Errors
    /// As [`StateLog::write`].
    fn put(&self, key: &str, value: Value) -> Result<(), Error> {
        self.write(&[Change::Put { key: key.to_owned(), value }])
    }

    /// Deletes one record.
    ///
    /// # Errors
    /// As [`StateLog::write`].
    fn delete(&self, key: &str) -> Result<(), Error> {
        self.write(&[Change::Delete { key: key.to_owned() }])
    }
}

/// The changes under one prefix, in order.
#[derive(Debug)]
pub struct Watch {
    prefix: String,
    changes: broadcast::Receiver<Arc<Change>>,
}

/// The watcher fell behind and changes were dropped: scan again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("watch lagged behind and lost changes")]
pub struct Lagged;

impl Watch {
    /// Waits for the next change; `None` when the state log is closed. Cancel safe.
    ///
    /// # Errors
    /// [`Lagged`] when changes were lost; the call after it goes on with the oldest one still known.
    pub async fn next(&mut self) -> Result<Option<Arc<Change>>, Lagged> {
        loop {
            match self.changes.recv().await {
                Ok(change) if change.key().starts_with(&self.prefix) => return Ok(Some(change)),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(None),
                Err(broadcast::error::RecvError::Lagged(_)) => return Err(Lagged),
            }
        }
    }

    /// Returns the next change if there is one already.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Option<Arc<Change>>, Lagged> {
        loop {
            match self.changes.try_recv() {
                Ok(change) if change.key().starts_with(&self.prefix) => return Ok(Some(change)),
                Ok(_) => {}
                Err(broadcast::error::TryRecvError::Lagged(_)) => return Err(Lagged),
                Err(_) => return Ok(None),
            }
        }
    }
}

/// Tells the watchers; shared by the back ends. Called under the lock that orders the writes.
#[derive(Debug)]
struct Watchers(broadcast::Sender<Arc<Change>>);

impl Watchers {
    fn new() -> Self {
        Self(broadcast::channel(WATCH_EVENTS_MAX).0)
    }

    fn watch(&self, prefix: &str) -> Watch {
        Watch { prefix: prefix.to_owned(), changes: self.0.subscribe() }
    }

    fn tell(&self, changes: &[Change]) {
        if self.0.receiver_count() == 0 {
            return;
        }
        for change in changes {
            // Fails only when the last watcher has just left, which is no concern of the writer.
            let _ = self.0.send(Arc::new(change.clone()));
        }
    }
}
