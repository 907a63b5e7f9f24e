//! The one error type of this crate.

/// What can go wrong outside of sending (for that see [`SendError`](crate::receiver::SendError)).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state was written by a newer program. Nothing was changed.
    #[error("state log {path}: format {found} is newer than {known}, the newest that this program reads")]
    NewerFormat {
        /// Where it is.
        path: String,
        /// Version found.
        found: u64,
        /// Newest version known.
        known: u64,
    },
    /// One record was written by a newer program. Nothing was changed.
    #[error("state record {key}: version {found} is newer than {known}, the newest that this program reads")]
    NewerRecord {
        /// The record's key.
        key: String,
        /// Version found.
        found: u64,
        /// Newest version known.
        known: u64,
    },
    /// Another process has it open.
    #[error("state log {path}: in use by another process")]
    Locked {
        /// Where it is.
        path: String,
    },
    /// The bytes are not what was written.
    #[error("state log {path}: damaged: {why}")]
    Damaged {
        /// Where it is.
        path: String,
        /// What the storage engine found.
        why: String,
    },
    /// Reading or writing failed.
    #[error("state log {path}: {source}")]
    Storage {
        /// Where it is.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A receiver cannot be built as configured.
    #[error("receiver {receiver}: {why}")]
    Receiver {
        /// Its name.
        receiver: String,
        /// What is wrong.
        why: String,
    },
}
