//! Deadline, row limit and plain types for the stream of an answer.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tokio::time::Instant;

use super::query_error;
use crate::config::SqlLimits;
use crate::error::StoreError;
use crate::metrics::Metrics;
use crate::scan::external;

struct State {
    inner: SendableRecordBatchStream,
    limits: SqlLimits,
    deadline: Instant,
    rows: usize,
    metrics: Metrics,
}

/// Wraps a stream: it ends with an error at the deadline or past the row limit, and has no view types.
pub(super) fn limited(
    inner: SendableRecordBatchStream,
    limits: SqlLimits,
    deadline: Instant,
    metrics: Metrics,
) -> SendableRecordBatchStream {
    let schema = plain_schema(&inner.schema());
    let state = State { inner, limits, deadline, rows: 0, metrics };
    let plain = Arc::clone(&schema);
    let stream = futures::stream::unfold(Some(state), move |state| {
        let schema = Arc::clone(&plain);
        async move {
            let mut state = state?;
            match next(&mut state, &schema).await {
                Some(Ok(batch)) => Some((Ok(batch), Some(state))),
                Some(Err(e)) => {
                    count(&state.metrics, &query_error(&e));
                    Some((Err(e), None))
                }
                None => {
                    state.metrics.queries_ok.inc();
                    None
                }
            }
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

async fn next(state: &mut State, schema: &SchemaRef) -> Option<Result<RecordBatch, DataFusionError>> {
    let batch = match tokio::time::timeout_at(state.deadline, state.inner.next()).await {
        Err(_) => return Some(Err(time_error(state.limits.time))),
        Ok(None) => return None,
        Ok(Some(Err(e))) => return Some(Err(e)),
        Ok(Some(Ok(batch))) => batch,
    };
    state.rows += batch.num_rows();
    if state.rows > state.limits.rows {
        return Some(Err(external(StoreError::Limit(format!("{} rows: add a LIMIT", state.limits.rows)))));
    }
    Some(plain(&batch, schema))
}

pub(super) fn time_error(limit: Duration) -> DataFusionError {
    external(StoreError::Limit(forewarn_schemas::units::format_duration(limit)))
}

pub(super) fn count(metrics: &Metrics, e: &StoreError) {
    match e {
        StoreError::Limit(_) => metrics.queries_limited.inc(),
        _ => metrics.queries_failed.inc(),
    }
}

/// View types are how DataFusion computes; answers have the types that every reader of Arrow knows.
fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    let plain = |f: &Arc<Field>| match f.data_type() {
        DataType::Utf8View => Arc::new(f.as_ref().clone().with_data_type(DataType::Utf8)),
        DataType::BinaryView => Arc::new(f.as_ref().clone().with_data_type(DataType::Binary)),
        _ => Arc::clone(f),
    };
    Arc::new(Schema::new_with_metadata(
        schema.fields().iter().map(plain).collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}

fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let cast = |(column, field): (&ArrayRef, &Arc<Field>)| cast(column, field.data_type());
    let columns = batch.columns().iter().zip(schema.fields()).map(cast).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
