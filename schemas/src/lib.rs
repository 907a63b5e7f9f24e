//! The shared vocabulary of forewarn and every schema that crosses a process or a disk.
//!
//! Nothing here does I/O, reads a clock or needs a runtime. Read in this order:
//!
//! 1. [`label`]: label sets, the identity of a series; [`matcher`]: predicates on them; [`node`]: whose series it is.
//! 2. [`time`], [`units`], [`sample`]: timestamps, durations and sizes, samples and batches of them.
//! 3. [`partition`]: which partition a node belongs to, offsets and series ids within it.
//! 4. [`record`]: record v1, the bytes of the log (`docs/formats/record-v1.md`).
//! 5. [`resource`], [`forecast`]: what can run out, and when it will.
//! 6. [`alert`], [`webhook`], [`scaling`]: what leaves towards people and autoscalers.
//!
//! Deliberately absent: anything that decides. Storage is `forewarn-store`, judgement is `forewarn-analyze`.

pub mod alert;
pub mod forecast;
pub mod label;
pub mod matcher;
pub mod node;
pub mod partition;
pub mod record;
pub mod resource;
pub mod sample;
pub mod scaling;
pub mod time;
pub mod units;
pub mod webhook;

pub use alert::{Alert, AlertStatus, Fingerprint, Severity};
pub use forecast::{Forecast, ForecastState, Horizon};
pub use label::{LabelError, Labels, METRIC_NAME};
pub use matcher::{MatchOp, Matcher, Selector};
pub use partition::{Offset, PartitionId, SeriesId, partition_of};
pub use record::{Record, RecordBody, RecordError};
pub use resource::{Direction, ResourceKey, ResourceKind};
pub use sample::{Batch, STALE_NAN, Sample, SeriesSamples, is_stale};
pub use scaling::{ScalingAction, ScalingRequest};
pub use time::{Clock, ManualClock, TimeRange, Timestamp};
pub use units::ByteSize;
