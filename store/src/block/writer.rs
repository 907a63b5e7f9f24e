//! Writes a block, series by series.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Builder, Int64Array, Int64Builder, RecordBatch, StringArray, TimestampMillisecondArray,
    UInt8Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use forewarn_schemas::{Labels, Offset, SeriesId};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::labels::{file_properties, labels_array, labels_type};
use super::value::Scale;
use super::{BlockMeta, FileSum};
use crate::error::StoreError;
use crate::merge::Column;

/// Rows of one row group.
const ROW_GROUP_ROWS: usize = 100_000;
/// Rows of one page: what a look at one series decodes.
const PAGE_ROWS: usize = 8192;

/// A block on its way: both files in memory.
pub(crate) struct BlockWriter {
    samples: ArrowWriter<Vec<u8>>,
    rows: Rows,
    series: Vec<SeriesLine>,
    count: u64,
}

struct SeriesLine {
    id: SeriesId,
    labels: Labels,
    scale: Option<Scale>,
    min_ts: i64,
    max_ts: i64,
    count: u32,
}

#[derive(Default)]
struct Rows {
    ids: Vec<u32>,
    ts: Vec<i64>,
    ints: Int64Builder,
    floats: Float64Builder,
}

/// A finished block: its metadata and its two files.
pub(crate) struct Encoded {
    pub(crate) meta: BlockMeta,
    pub(crate) samples: Vec<u8>,
    pub(crate) series: Vec<u8>,
}

impl BlockWriter {
    pub(crate) fn new() -> Result<Self, StoreError> {
        let options = ArrowWriterOptions::new().with_properties(samples_properties()).with_skip_arrow_metadata(true);
        let samples = ArrowWriter::try_new_with_options(Vec::new(), samples_schema(), options).map_err(bad)?;
        Ok(Self { samples, rows: Rows::default(), series: Vec::new(), count: 0 })
    }

    /// Adds a series, of a higher id than the last one; `column` is sorted, without duplicates and not empty.
    pub(crate) fn push(&mut self, id: SeriesId, labels: &Labels, column: &Column) -> Result<(), StoreError> {
        assert!(self.series.last().is_none_or(|last| last.id < id), "series are written in the order of their ids");
        assert!(column.ts.is_sorted_by(|a, b| a < b), "samples are written in the order of time");
        let (Some(min_ts), Some(max_ts)) = (column.ts.first().copied(), column.ts.last().copied()) else {
            return Ok(());
        };
        let scale = Scale::of(&column.values);
        for (ts, value) in column.ts.iter().zip(&column.values) {
            self.rows.ids.push(id.0);
            self.rows.ts.push(*ts);
            let stored = scale.and_then(|s| s.encode(*value));
            self.rows.ints.append_option(stored);
            self.rows.floats.append_option(stored.is_none().then_some(*value));
            if self.rows.ids.len() == ROW_GROUP_ROWS {
                self.write_rows()?;
            }
        }
        let count = u32::try_from(column.len()).map_err(|_| StoreError::Engine("series too long".into()))?;
        self.count += u64::from(count);
        self.series.push(SeriesLine { id, labels: labels.clone(), scale, min_ts, max_ts, count });
        Ok(())
    }

    fn write_rows(&mut self) -> Result<(), StoreError> {
        if self.rows.ids.is_empty() {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.rows);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(rows.ids)),
            Arc::new(TimestampMillisecondArray::from(rows.ts).with_timezone("UTC")),
            Arc::new(rows.ints.finish()),
            Arc::new(rows.floats.finish()),
        ];
        let batch = RecordBatch::try_new(samples_schema(), columns).map_err(|e| bad(e.into()))?;
        self.samples.write(&batch).map_err(bad)?;
        self.samples.flush().map_err(bad)
    }

    /// Finishes both files; `None` when no series was added. The id is `name` and the checksum of the samples, so that
    /// two blocks of one name have the same content.
    pub(crate) fn finish(mut self, name: &str, from: Offset, to: Offset) -> Result<Option<Encoded>, StoreError> {
        self.write_rows()?;
        if self.series.is_empty() {
            return Ok(None);
        }
        let samples = self.samples.into_inner().map_err(bad)?;
        let series = encode_lines(&self.series)?;
        let samples_file = FileSum::of(&samples);
        let series_file = FileSum::of(&series);
        let meta = BlockMeta {
            id: format!("{name}-{:08x}{:08x}", samples_file.crc32c, series_file.crc32c),
            from,
            to,
            min_ts: self.series.iter().map(|s| s.min_ts).min().unwrap_or_default(),
            max_ts: self.series.iter().map(|s| s.max_ts).max().unwrap_or_default(),
            samples: self.count,
            series: self.series.len() as u64,
            samples_file,
            series_file,
        };
        Ok(Some(Encoded { meta, samples, series }))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used in map_err")]
fn bad(e: ParquetError) -> StoreError {
    StoreError::Engine(format!("block: {e}"))
}

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn samples_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("series_id", DataType::UInt32, false),
        Field::new("ts", utc(), false),
        Field::new("value_int", DataType::Int64, true),
        Field::new("value", DataType::Float64, true),
    ]))
}

fn samples_properties() -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let mut properties = file_properties()
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(1024)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None);
    for name in ["series_id", "ts", "value_int"] {
        properties = properties.set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["series_id", "ts"] {
        properties = properties.set_column_statistics_enabled(column(name), EnabledStatistics::Page);
    }
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    properties
        .set_column_encoding(column("value"), Encoding::BYTE_STREAM_SPLIT)
        .set_column_compression(column("value"), Compression::ZSTD(level))
        .build()
}

fn encode_lines(lines: &[SeriesLine]) -> Result<Vec<u8>, StoreError> {
    let ts = |f: fn(&SeriesLine) -> i64| {
        let stamps: Vec<i64> = lines.iter().map(f).collect();
        Arc::new(TimestampMillisecondArray::from(stamps).with_timezone("UTC"))
    };
    let columns: Vec<(Field, ArrayRef)> = vec![
        (
            Field::new("series_id", DataType::UInt32, false),
            Arc::new(lines.iter().map(|l| l.id.0).collect::<UInt32Array>()),
        ),
        (
            Field::new("metric", DataType::Utf8, false),
            Arc::new(lines.iter().map(|l| Some(l.labels.metric())).collect::<StringArray>()),
        ),
        (Field::new("labels", labels_type(), false), Arc::new(labels_array(lines.iter().map(|l| &l.labels)))),
        (
            Field::new("scale", DataType::UInt8, true),
            Arc::new(lines.iter().map(|l| l.scale.map(|s| s.scale)).collect::<UInt8Array>()),
        ),
        (
            Field::new("base", DataType::Int64, true),
            Arc::new(lines.iter().map(|l| l.scale.map(|s| s.base)).collect::<Int64Array>()),
        ),
        (Field::new("min_ts", utc(), false), ts(|l| l.min_ts)),
        (Field::new("max_ts", utc(), false), ts(|l| l.max_ts)),
        (
            Field::new("count", DataType::UInt64, false),
            Arc::new(lines.iter().map(|l| u64::from(l.count)).collect::<UInt64Array>()),
        ),
    ];
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| bad(e.into()))?;
    let mut properties = file_properties();
    for name in ["series_id", "base", "min_ts", "max_ts", "count"] {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).map_err(bad)?;
    writer.write(&batch).map_err(bad)?;
    writer.into_inner().map_err(bad)
}
