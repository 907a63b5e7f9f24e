//! The rolling history of forewarn: what was measured, for as long as it is kept, as plain Parquet that any engine reads.
//!
//! The path of a sample: [`Store::append`] takes a record of the log into the head; [`Store::flush`] writes the head into
//! one block per span of time and publishes it with a manifest delta that says up to which offset the log is no longer
//! needed. The log is the write-ahead log; after a crash it is read again from [`Store::checkpoint`]. Reads merge blocks
//! and heads, each sample exactly once: [`Store::history`] for one series, [`Store::select`] for matchers, [`Store::sql`]
//! for questions.
//!
//! Read in this order:
//!
//! 1. [`block_store`]: named immutable objects, the seam to disks and object stores.
//! 2. `index`, `merge`, `head`: label sets and ids; the rule of duplicates; samples not flushed yet.
//! 3. `block`, `cache`: two Parquet files and how they are checked and read (`docs/formats/block-v1.md`).
//! 4. `manifest`, `layout`: the chain of deltas, the commit and the fence (`docs/formats/manifest-v1.md`).
//! 5. `partition`: append, flush, retention, and what a query sees; `store`: all of them together.
//! 6. `rows`, `scan`, `sql`: Arrow batches, and DataFusion over them (`docs/sql.md`).
//!
//! Deliberately absent: a write-ahead log, a clock (the caller and `received_at` say what time it is), threads of its own,
//! and any judgement of what the samples mean.

mod block;
pub mod block_store;
mod cache;
mod config;
mod error;
mod head;
mod index;
mod layout;
mod lock;
mod manifest;
mod merge;
mod metrics;
mod partition;
mod rows;
mod scan;
mod shared;
mod sql;
mod store;

pub use block_store::{BlockStore, LocalBlocks, MemoryBlocks};
pub use config::{SqlLimits, StoreConfig};
pub use datafusion::execution::SendableRecordBatchStream;
pub use error::StoreError;
pub use partition::{FlushJob, PartitionStats, Retained};
pub use rows::SampleColumn;
pub use shared::Problem;
pub use store::Store;
