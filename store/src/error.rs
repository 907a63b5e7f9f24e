//! What can go wrong, one variant per decision of the caller.

use std::io;

use forewarn_schemas::{Offset, PartitionId};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The object is not there.
    #[error("{0}: not found")]
    NotFound(String),
    /// An object of that name is there already, with other content.
    #[error("{0}: already exists")]
    AlreadyExists(String),
    /// No space left: nothing was published, try again when there is some.
    #[error("{0}: no space left")]
    Full(String),
    /// Published, but not known to be durable: nothing more may be written before the store is opened again.
    #[error("{path}: written but not known to be durable: {source}")]
    Uncertain {
        /// The object.
        path: String,
        /// What the directory's sync said.
        source: io::Error,
    },
    /// Any other failure of the storage; nothing was published, trying again is safe.
    #[error("{path}: {source}")]
    Io {
        /// The object or file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A name that is no object's name.
    #[error("{0:?} is not the name of an object")]
    Path(String),
    /// Another writer has published in this partition: this one must stop.
    #[error("partition {partition}: fenced: another writer published manifest delta {seq}")]
    Fenced {
        /// The partition.
        partition: PartitionId,
        /// The delta that was lost to it.
        seq: u64,
    },
    /// The partition takes no writes until the store is opened again.
    #[error("partition {partition}: closed to writes: {why}")]
    Closed {
        /// The partition.
        partition: PartitionId,
        /// What closed it.
        why: String,
    },
    /// Written by a newer forewarn; nothing was changed.
    #[error("{what} has format {format}, newer than {known}: upgrade forewarn to open it")]
    Newer {
        /// The object.
        what: String,
        /// The format that it names.
        format: u32,
        /// The newest that this code reads.
        known: u32,
    },
    /// Bytes are not what they must be.
    #[error("{what}: {why}")]
    Damaged {
        /// The object.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The directory was created for another number of partitions or another hash.
    #[error("the store has {found}, not {wanted}")]
    Layout {
        /// What `store.json` says.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// There is no such partition.
    #[error("there is no partition {0}")]
    NoPartition(PartitionId),
    /// A partition has as many series as an id can count.
    #[error("partition {0}: out of series ids")]
    OutOfIds(PartitionId),
    /// The store was opened to read only.
    #[error("the store is open to read only")]
    ReadOnly,
    /// An offset that a record cannot have.
    #[error("offset {0} has no successor")]
    Offset(Offset),
    /// The query is wrong, or is something other than a question.
    #[error("query: {0}")]
    Query(String),
    /// The query hit a limit.
    #[error("query: more than {0}")]
    Limit(String),
    /// The query failed for a reason of our own.
    #[error("query failed: {0}")]
    Engine(String),
}

impl StoreError {
    #[expect(clippy::needless_pass_by_value, reason = "errors and messages alike, made on the spot")]
    pub(crate) fn damaged(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Damaged { what: what.into(), why: why.to_string() }
    }

    /// Names the object that an I/O error is about.
    pub(crate) fn io(path: impl Into<String>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound(path),
            io::ErrorKind::AlreadyExists => Self::AlreadyExists(path),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path),
            _ => Self::Io { path, source },
        }
    }

    /// Says whether the same call may succeed later without anyone doing anything to this process.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Io { .. })
    }
}
