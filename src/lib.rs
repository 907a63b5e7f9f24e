//! forewarn, the program: wires the crates, owns start, reload and stop, and serves people and machines.
//!
//! Read in this order:
//!
//! 1. [`cli`]: commands and exit codes; [`config`]: the configuration file, and how its errors are found.
//! 2. [`run`]: start, serve, reload, stop; [`pipeline`]: the stages behind the edge; [`data_dir`]: their files.
//! 3. [`pump`]: from the log to store, analyzer, page and router. The heart of the process.
//! 4. [`api`], [`exporter`], [`page`]: what is served; [`view`]: what they read; [`web`]: who may.
//! 5. [`query`]: `forewarn query`. [`banner`]: the first lines. [`metrics`], [`telemetry`]: own health and log lines.
//!
//! The map of all crates and what must stay true: `docs/ARCHITECTURE.md`.

pub mod api;
pub mod banner;
pub mod cli;
pub mod config;
pub mod data_dir;
pub mod exporter;
pub mod metrics;
#[cfg(test)]
mod names;
pub mod page;
pub mod pipeline;
pub mod pump;
pub mod query;
pub mod run;
pub mod telemetry;
pub mod view;
pub mod web;
