//! SQL over the history, by DataFusion (`docs/sql.md`).
//!
//! Two tables, `samples` and `series`, over the same views as every other read. Filters on time and on what follows from
//! a series' labels are decided before a block is opened and shown by `EXPLAIN`. A query has a memory pool, a deadline
//! and a row limit of its own, writes no temporary files, and ends when its stream is dropped.

mod access;
mod exec;
mod filter;
mod limits;
mod samples;
mod series;

use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{FunctionRegistry, SendableRecordBatchStream};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};

use crate::config::SqlLimits;
use crate::error::StoreError;
use crate::partition::Partition;
use crate::shared::Shared;

/// What a query starts from: functions and tables, built once.
pub(crate) struct Engine {
    base: Result<SessionState, String>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    pub(crate) fn new(partitions: Vec<Arc<Partition>>, shared: Arc<Shared>) -> Self {
        let base = build(partitions.into()).map_err(|e| e.to_string());
        Self { base, shared }
    }

    pub(crate) async fn sql(&self, text: &str, limits: SqlLimits) -> Result<SendableRecordBatchStream, StoreError> {
        let deadline = tokio::time::Instant::now() + limits.time;
        let planned = tokio::time::timeout_at(deadline, self.start(text, limits)).await;
        let stream = planned.unwrap_or_else(|_| Err(limits::time_error(limits.time)));
        match stream {
            Ok(stream) => Ok(limits::limited(stream, limits, deadline, self.shared.metrics.clone())),
            Err(e) => {
                let e = query_error(&e);
                limits::count(&self.shared.metrics, &e);
                Err(e)
            }
        }
    }

    async fn start(&self, text: &str, limits: SqlLimits) -> Result<SendableRecordBatchStream, DataFusionError> {
        let base = self.base.clone().map_err(DataFusionError::Internal)?;
        let memory = usize::try_from(limits.memory.bytes()).unwrap_or(usize::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(memory, 1.0)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()?;
        let state = SessionStateBuilder::new_from_existing(base).with_runtime_env(runtime).build();
        let context = SessionContext::new_with_state(state);
        let only_questions = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        context.sql_with_options(text, only_questions).await?.execute_stream().await
    }
}

fn build(partitions: Arc<[Arc<Partition>]>) -> Result<SessionState, DataFusionError> {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let config = SessionConfig::new()
        .with_default_catalog_and_schema("forewarn", "public")
        .with_information_schema(true)
        .with_target_partitions(threads);
    let mut state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    state.register_expr_planner(Arc::new(access::LabelAccess))?;
    // They make a text of any length from a short one, in memory that no limit of a query counts.
    for unbounded in ["repeat", "lpad", "rpad"] {
        state.deregister_udf(unbounded)?;
    }
    let context = SessionContext::new_with_state(state);
    context.register_table("samples", Arc::new(samples::SamplesTable::new(Arc::clone(&partitions))))?;
    context.register_table("series", Arc::new(series::SeriesTable::new(partitions)))?;
    Ok(context.state())
}

/// Sorts a query's error by what the caller can do.
pub(crate) fn query_error(error: &DataFusionError) -> StoreError {
    let root = error.find_root();
    if let DataFusionError::External(inner) = root
        && let Some(known) = inner.downcast_ref::<StoreError>()
    {
        return match known {
            StoreError::Limit(what) => StoreError::Limit(what.clone()),
            other => StoreError::Engine(other.to_string()),
        };
    }
    let text = root.strip_backtrace();
    match root {
        DataFusionError::ResourcesExhausted(_) => StoreError::Limit(format!("its memory: {text}")),
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::ArrowError(..)
        | DataFusionError::Diagnostic(..)
        | DataFusionError::Collection(_) => StoreError::Query(text),
        _ => StoreError::Engine(text),
    }
}
