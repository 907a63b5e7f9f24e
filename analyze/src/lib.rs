//! What will run out, and when. Pure computation: no I/O, no clock, no runtime; randomness only from seeds that follow
//! from the data. Live equals replay.
//!
//! The caller feeds an [`Analyzer`] per partition with every record ([`Analyzer::observe`]) and evaluates it at every
//! multiple of the step ([`Analyzer::evaluate`]); a fit asks back for history through [`History`]. The state goes into
//! the manifest with every flush ([`Analyzer::snapshot`], [`Analyzer::restore`]). Read in this order:
//!
//! 1. [`catalogue`]: what can run out, as data; `cell`: limits, restarts and harm beside it; `liveness`: nodes.
//! 2. `screen`: tier 1, O(1) per sample: segments, noise, climbs, and whether a fit is worth it.
//! 3. `fit`: tier 2: window, robust line, bootstrap; `outlook`: the mixture with "flat" and "resets".
//! 4. `decide`: tier 3: states with hold; `grade`: its own past error.
//! 5. `resource` joins these for one resource, [`Analyzer`] for a partition; `sentence` says it to a person.
//!
//! How and why it decides is in `docs/forecasting.md`; the snapshot's bytes are in `docs/formats/snapshot-v1.md`.
//! Deliberately absent: alerts, severities and routes (`forewarn-alert`), storage (`forewarn-store`).

mod analyzer;
pub mod catalogue;
mod cell;
mod codec;
mod config;
mod decide;
mod error;
mod fit;
mod grade;
mod liveness;
mod outlook;
mod resource;
mod screen;
mod sentence;

pub use analyzer::{Analyzer, Evaluation, History};
pub use catalogue::Catalogue;
pub use config::AnalyzeConfig;
pub use error::{AnalyzeError, CatalogueError};
pub use liveness::NodeStatus;
