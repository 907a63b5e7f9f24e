//! The table `series(metric, node, family, labels, first_ts, last_ts)`: the series that have samples.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, TimestampMillisecondArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use forewarn_schemas::{SeriesId, TimeRange};

use super::exec::{Emit, Reader, StoreExec};
use super::filter::{SeriesFilter, of_series};
use crate::block::OpenBlock;
use crate::error::StoreError;
use crate::partition::{Partition, View};
use crate::rows::{BATCH_ROWS, SampleColumn, ts_type};

const SERIES: [SampleColumn; 4] =
    [SampleColumn::Metric, SampleColumn::Node, SampleColumn::Family, SampleColumn::Labels];
const FIRST_TS: usize = SERIES.len();

#[derive(Debug)]
pub(super) struct SeriesTable {
    partitions: Arc<[Arc<Partition>]>,
    schema: SchemaRef,
}

impl SeriesTable {
    pub(super) fn new(partitions: Arc<[Arc<Partition>]>) -> Self {
        let times = ["first_ts", "last_ts"].map(|name| Field::new(name, ts_type(), false));
        let fields: Vec<Field> = SERIES.iter().map(|c| c.field()).chain(times).collect();
        Self { partitions, schema: Arc::new(Schema::new(fields)) }
    }
}

#[async_trait]
impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let decide = |f: &&Expr| match of_series(f) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(decide).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&projection)?);
        let filter = SeriesFilter::new(filters);
        let mut views = Vec::new();
        for partition in self.partitions.iter() {
            let mut view = partition.view(|index| filter.candidates(index), TimeRange::ALL);
            view.series = filter.apply(state, view.series)?;
            views.push(view);
        }
        let sum = |of: fn(&View) -> usize| views.iter().map(of).sum::<usize>();
        let mut line = format!("series={} of {}", sum(|v| v.series.len()), sum(|v| v.series_known));
        if !filter.describe().is_empty() {
            line.push_str(&format!(", where={}", filter.describe()));
        }
        let reader = |view: View| -> Reader {
            let (projection, schema) = (projection.clone(), Arc::clone(&schema));
            Arc::new(move |emit: Emit<'_>| read(&view, &projection, &schema, emit))
        };
        let readers = views.into_iter().map(reader).collect();
        Ok(Arc::new(StoreExec::new("SeriesScan", line, Arc::clone(&schema), readers, limit)))
    }
}

fn read(view: &View, projection: &[usize], schema: &SchemaRef, emit: Emit<'_>) -> Result<(), StoreError> {
    if view.series.is_empty() {
        return Ok(());
    }
    let spans = spans(view)?;
    let alive = view.series.iter().filter_map(|(id, labels)| Some((labels, *spans.get(id)?)));
    let alive: Vec<_> = alive.collect();
    for rows in alive.chunks(BATCH_ROWS) {
        let column = |i: &usize| -> ArrayRef {
            match SERIES.get(*i).and_then(|c| c.of_series(rows.iter().map(|r| r.0))) {
                Some(array) => array,
                None => {
                    let of = |span: (i64, i64)| if *i == FIRST_TS { span.0 } else { span.1 };
                    let stamps: Vec<i64> = rows.iter().map(|r| of(r.1)).collect();
                    Arc::new(TimestampMillisecondArray::from(stamps).with_timezone("+00:00"))
                }
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = projection.iter().map(column).collect();
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options);
        if !emit(batch.map_err(|e| StoreError::Engine(e.to_string()))?) {
            return Ok(());
        }
    }
    Ok(())
}

/// First and last time of every series that has samples, over blocks and heads.
fn spans(view: &View) -> Result<HashMap<u32, (i64, i64)>, StoreError> {
    let mut out: HashMap<u32, (i64, i64)> = HashMap::new();
    let mut widen = |id: u32, min: i64, max: i64| {
        let span = out.entry(id).or_insert((min, max));
        *span = (span.0.min(min), span.1.max(max));
    };
    for block in view.blocks.iter().filter(|b| b.damage().is_none()) {
        let rows = OpenBlock::spans(view.shared.blocks.as_ref(), view.partition, &block.meta);
        for row in view.shared.unless_damaged(block, rows)?.unwrap_or_default() {
            widen(row.id.0, row.min_ts, row.max_ts);
        }
    }
    for head in &view.heads {
        for (id, _) in &view.series {
            if let Some((min, max)) = head.span(SeriesId(*id)) {
                widen(*id, min, max);
            }
        }
    }
    Ok(out)
}
