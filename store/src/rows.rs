//! Turns columns of series into Arrow batches, building only what is asked for.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, StringArray, StringViewArray, TimestampMillisecondArray,
    UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use forewarn_schemas::node::{family_of, node_of};
use forewarn_schemas::{Labels, PartitionId};

use crate::block::labels::{labels_array, labels_type};
use crate::merge::Column;

/// Rows of a batch.
pub(crate) const BATCH_ROWS: usize = 8192;

/// A column of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleColumn {
    /// `partition`: UInt32.
    Partition,
    /// `series_id`: UInt32, within the partition.
    SeriesId,
    /// `ts`: Timestamp(ms, UTC).
    Ts,
    /// `metric`: Utf8View.
    Metric,
    /// `node`: Utf8View; the node's identity (`forewarn_schemas::node::node_of`).
    Node,
    /// `family`: Utf8View; the family's (`forewarn_schemas::node::family_of`).
    Family,
    /// `labels`: Map<Utf8, Utf8>, every label but the metric's name.
    Labels,
    /// `value`: Float64.
    Value,
}

/// The type of times in answers.
pub(crate) fn ts_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

impl SampleColumn {
    pub(crate) fn field(self) -> Field {
        let (name, kind) = match self {
            Self::Partition => ("partition", DataType::UInt32),
            Self::SeriesId => ("series_id", DataType::UInt32),
            Self::Ts => ("ts", ts_type()),
            Self::Metric => ("metric", DataType::Utf8View),
            Self::Node => ("node", DataType::Utf8View),
            Self::Family => ("family", DataType::Utf8View),
            Self::Labels => ("labels", labels_type()),
            Self::Value => ("value", DataType::Float64),
        };
        Field::new(name, kind, false)
    }

    pub(crate) fn schema(columns: &[Self]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(|c| c.field()).collect::<Vec<_>>()))
    }

    /// Builds a column that follows from the series alone, one row per series.
    pub(crate) fn of_series<'a>(self, series: impl Iterator<Item = &'a Labels> + Clone) -> Option<ArrayRef> {
        Some(match self {
            Self::Metric => Arc::new(StringViewArray::from_iter_values(series.map(|l| l.metric()))),
            Self::Node => Arc::new(StringViewArray::from_iter_values(series.map(node_of))),
            Self::Family => Arc::new(StringViewArray::from_iter_values(series.map(family_of))),
            Self::Labels => Arc::new(labels_array(series)),
            _ => return None,
        })
    }
}

/// One column of an answer: a column of samples, or the value of one label (Utf8, null without it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Column(SampleColumn),
    Label(String),
}

/// The columns of an answer and their schema.
#[derive(Debug, Clone)]
pub(crate) struct RowShape {
    pub(crate) cells: Vec<Cell>,
    pub(crate) schema: SchemaRef,
}

impl RowShape {
    pub(crate) fn of(columns: &[SampleColumn]) -> Self {
        let cells = columns.iter().copied().map(Cell::Column).collect();
        Self { cells, schema: SampleColumn::schema(columns) }
    }

    /// Says whether values are needed, which are most of what a block has.
    pub(crate) fn has_values(&self) -> bool {
        self.cells.contains(&Cell::Column(SampleColumn::Value))
    }
}

/// Gathers samples and cuts them into batches.
pub(crate) struct RowBuilder {
    shape: RowShape,
    partition: PartitionId,
    ts: Vec<i64>,
    values: Vec<f64>,
    /// Series of the batch, with how many of its rows each has.
    runs: Vec<(u32, Labels, usize)>,
}

impl RowBuilder {
    pub(crate) fn new(shape: RowShape, partition: PartitionId) -> Self {
        Self { shape, partition, ts: Vec::new(), values: Vec::new(), runs: Vec::new() }
    }

    /// Adds a series' samples; full batches go to `emit`, which says whether to go on.
    pub(crate) fn push(
        &mut self,
        id: u32,
        labels: &Labels,
        column: &Column,
        emit: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<bool, ArrowError> {
        let mut at = 0;
        while at < column.len() {
            let n = (column.len() - at).min(BATCH_ROWS - self.ts.len());
            self.ts.extend_from_slice(&column.ts[at..at + n]);
            self.values.extend_from_slice(&column.values[at..at + n]);
            self.runs.push((id, labels.clone(), n));
            at += n;
            if self.ts.len() == BATCH_ROWS && !emit(self.finish()?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says whether there are rows that were not emitted.
    pub(crate) fn is_empty(&self) -> bool {
        self.ts.is_empty()
    }

    pub(crate) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = self.ts.len();
        let runs = std::mem::take(&mut self.runs);
        let ts = std::mem::take(&mut self.ts);
        let values = std::mem::take(&mut self.values);
        let per_row = |of: &dyn Fn(usize) -> u32| -> UInt32Array {
            runs.iter().enumerate().flat_map(|(i, run)| std::iter::repeat_n(of(i), run.2)).collect()
        };
        let per_series = |series: ArrayRef| take(&series, &per_row(&|i| i as u32), None);
        let labels = || runs.iter().map(|r| &r.1);
        let mut out: Vec<ArrayRef> = Vec::with_capacity(self.shape.cells.len());
        for cell in &self.shape.cells {
            out.push(match cell {
                Cell::Column(SampleColumn::Partition) => Arc::new(UInt32Array::from(vec![self.partition.0; rows])),
                Cell::Column(SampleColumn::SeriesId) => Arc::new(per_row(&|i| runs[i].0)),
                Cell::Column(SampleColumn::Ts) => {
                    Arc::new(TimestampMillisecondArray::from(ts.clone()).with_timezone("+00:00"))
                }
                Cell::Column(SampleColumn::Value) => Arc::new(Float64Array::from(values.clone())),
                Cell::Label(name) => per_series(Arc::new(labels().map(|l| l.get(name)).collect::<StringArray>()))?,
                Cell::Column(text) => {
                    let series = text.of_series(labels());
                    per_series(series.ok_or_else(|| ArrowError::ComputeError(format!("no column {text:?}")))?)?
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.shape.schema), out, &options)
    }
}
