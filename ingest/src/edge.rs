//! placeholder
use forewarn_schemas::Batch;

/// Whether somebody waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A client waits: join the next group commit at once.
    Waiting,
    /// A pull collector: linger at most 250 ms.
    Lingering,
}

/// Where collectors and request handlers hand over batches. [`Edge`] is the real one; tests use one that remembers.
#[async_trait::async_trait]
pub trait Intake: Send + Sync {
    /// Returns once the batch is durable in the log.
    async fn submit(&self, source: &str, batch: Batch, urgency: Urgency) -> Result<Accepted, SubmitError>;
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accepted {
    /// Samples that are durable.
    pub samples: usize,
    /// Samples refused, with the reason (a closed set) and how many.
    pub refused: std::collections::BTreeMap<&'static str, usize>,
}

/// Why nothing of a batch was taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The pump is behind or the disk is full: try again later.
    #[error("overloaded: {reason}; try again in {retry_after:?}")]
    Overloaded {
        /// What is behind.
        reason: String,
        /// When to try again.
        retry_after: std::time::Duration,
    },
    /// The log is closed, by shutdown or after a failed sync.
    #[error("the log is closed: {0}")]
    Closed(String),
}
