//! The table `samples(ts, metric, node, family, labels, value)`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use forewarn_schemas::{METRIC_NAME, TimeRange, Timestamp};

use super::exec::{Emit, Pick, Reader, StoreExec};
use super::filter::{SeriesFilter, is_exact, time_range};
use crate::partition::{Partition, View};
use crate::rows::{Cell, RowShape, SampleColumn};
use crate::scan;

const COLUMNS: [SampleColumn; 6] = [
    SampleColumn::Ts,
    SampleColumn::Metric,
    SampleColumn::Node,
    SampleColumn::Family,
    SampleColumn::Labels,
    SampleColumn::Value,
];

#[derive(Debug)]
pub(super) struct SamplesTable {
    partitions: Arc<[Arc<Partition>]>,
    schema: SchemaRef,
}

impl SamplesTable {
    pub(super) fn new(partitions: Arc<[Arc<Partition>]>) -> Self {
        Self { partitions, schema: SampleColumn::schema(&COLUMNS) }
    }
}

#[async_trait]
impl TableProvider for SamplesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let decide = |f: &&Expr| match is_exact(f) {
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
        let columns: Vec<SampleColumn> = match projection {
            Some(indices) => indices.iter().map(|i| COLUMNS[*i]).collect(),
            None => COLUMNS.to_vec(),
        };
        let range = time_range(filters);
        let filter = SeriesFilter::new(filters);
        let mut views = Vec::new();
        for partition in self.partitions.iter() {
            let mut view = partition.view(|index| filter.candidates(index), range);
            view.series = filter.apply(state, view.series)?;
            if view.series.is_empty() {
                view.blocks.clear();
                view.heads.clear();
            }
            views.push(view);
        }
        let scan = Arc::new(Scan { line: describe(&views, range, &filter), views, range, limit });
        Ok(Arc::new(scan.exec(RowShape::of(&columns))))
    }
}

/// A scan that was planned, whatever columns it will have.
struct Scan {
    views: Vec<View>,
    range: TimeRange,
    limit: Option<usize>,
    line: String,
}

impl Scan {
    fn exec(self: Arc<Self>, shape: RowShape) -> StoreExec {
        let names = shape.cells.iter().map(|cell| match cell {
            Cell::Column(c) => c.field().name().clone(),
            Cell::Label(name) => format!("labels[{name}]"),
        });
        let line = format!("{}, columns=[{}]", self.line, names.collect::<Vec<_>>().join(", "));
        let reader = |view: &View| -> Reader {
            let (view, range, shape) = (view.clone(), self.range, shape.clone());
            Arc::new(move |emit: Emit<'_>| scan::read_unsorted(&view, range, &shape, emit))
        };
        let readers = self.views.iter().map(reader).collect();
        let (schema, limit) = (Arc::clone(&shape.schema), self.limit);
        let narrow = Arc::new(move |picks: &[Pick], schema: SchemaRef| {
            let cells = picks.iter().map(|p| narrow_cell(&shape.cells, p)).collect::<Option<_>>()?;
            Some(Arc::clone(&self).exec(RowShape { cells, schema }))
        });
        StoreExec::new("SamplesScan", line, schema, readers, limit).with_narrow(narrow)
    }
}

fn narrow_cell(cells: &[Cell], pick: &Pick) -> Option<Cell> {
    match pick {
        Pick::Column(i) => cells.get(*i).cloned(),
        Pick::Label(i, name) => {
            let known = cells.get(*i) == Some(&Cell::Column(SampleColumn::Labels)) && name != METRIC_NAME;
            known.then(|| Cell::Label(name.clone()))
        }
    }
}

fn describe(views: &[View], range: TimeRange, filter: &SeriesFilter) -> String {
    let sum = |of: fn(&View) -> usize| views.iter().map(of).sum::<usize>();
    let mut out = format!(
        "series={} of {}, blocks={} of {}, heads={}",
        sum(|v| v.series.len()),
        sum(|v| v.series_known),
        sum(|v| v.blocks.len()),
        sum(|v| v.blocks_known),
        sum(|v| v.heads.len()),
    );
    if range != TimeRange::ALL {
        let end = |t: Timestamp| match t {
            Timestamp::MIN | Timestamp::MAX => String::new(),
            t => t.rfc3339(),
        };
        out.push_str(&format!(", time=[{}, {})", end(range.start), end(range.end)));
    }
    let terms = filter.describe();
    if !terms.is_empty() {
        out.push_str(&format!(", where={terms}"));
    }
    out
}
