//! Collectors and the log: a batch's way until it is durable.
//!
//! Read in this order:
//!
//! 1. [`log`]: the [`log::Log`] trait, its contract, and the embedded segment log (`docs/formats/segment-v1.md`).
//! 2. [`edge`]: what is refused before it is appended, node identity, batching, back-pressure, hand-over to the pump.
//! 3. [`clock`]: the time that the edge stamps, which never goes back.
//! 4. [`host`], [`beam`]: the collectors. [`status`]: what they watch, and what they could not do.
//!
//! Deliberately absent: anything that reads the log to keep or judge it (`forewarn-store`, `forewarn-analyze`).

pub mod beam;
pub mod clock;
pub mod edge;
pub mod host;
pub mod log;
mod metrics;
pub mod status;
