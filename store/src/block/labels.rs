//! Label sets as Arrow columns: `metric` and `labels`, and the series objects of the manifest.
//!
//! The metric's name is a column of its own, so the map has every label but `__name__`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, MapArray, RecordBatch, StringArray, StringBuilder, StructArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, UInt32Type};
use bytes::Bytes;
use forewarn_schemas::label::METRIC_NAME;
use forewarn_schemas::{Labels, SeriesId};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::error::StoreError;

/// Returns the type of the column `labels`: Map<Utf8, Utf8>, keys sorted.
pub(crate) fn labels_type() -> DataType {
    DataType::Map(entries_field(), true)
}

fn entry_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)])
}

fn entries_field() -> Arc<Field> {
    Arc::new(Field::new("key_value", DataType::Struct(entry_fields()), false))
}

/// Builds the column `labels`.
pub(crate) fn labels_array<'a>(all: impl Iterator<Item = &'a Labels> + Clone) -> MapArray {
    let (mut keys, mut values) = (StringBuilder::new(), StringBuilder::new());
    let mut lengths = Vec::new();
    for labels in all {
        let mut pairs = 0;
        for (name, value) in labels.iter().filter(|(n, _)| *n != METRIC_NAME) {
            keys.append_value(name);
            values.append_value(value);
            pairs += 1;
        }
        lengths.push(pairs);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(keys.finish()), Arc::new(values.finish())];
    let entries = StructArray::new(entry_fields(), columns, None);
    let DataType::Map(field, sorted) = labels_type() else { unreachable!("labels_type is a map") };
    MapArray::new(field, OffsetBuffer::from_lengths(lengths), entries, None, sorted)
}

/// Reads the label sets of a batch with the columns `metric` and `labels`.
pub(crate) fn read_labels(batch: &RecordBatch) -> Result<Vec<Labels>, String> {
    let metric = text(batch, "metric")?;
    let maps = batch.column_by_name("labels").ok_or("no column labels")?;
    let maps = maps.as_map_opt().ok_or("column labels is not a map")?;
    let keys = maps.keys().as_string_opt::<i32>().ok_or("label names are not text")?;
    let values = maps.values().as_string_opt::<i32>().ok_or("label values are not text")?;
    let mut out = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let entries = maps.value_offsets()[row] as usize..maps.value_offsets()[row + 1] as usize;
        let pairs = entries.map(|i| (keys.value(i), values.value(i)));
        let all = std::iter::once((METRIC_NAME, metric.value(row))).chain(pairs);
        out.push(Labels::from_pairs(all).map_err(|e| e.to_string())?);
    }
    Ok(out)
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("no column {name}"))?;
    column.as_string_opt().ok_or_else(|| format!("column {name} is not text"))
}

/// Writer properties that every file of the store starts from.
pub(crate) fn file_properties() -> parquet::file::properties::WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_created_by(concat!("forewarn ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new("forewarn.format".into(), "1".to_owned())]))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("series_id", DataType::UInt32, false),
        Field::new("metric", DataType::Utf8, false),
        Field::new("labels", labels_type(), false),
    ]))
}

/// Encodes a series object: `series_id`, `metric`, `labels`, ascending by id.
pub(crate) fn encode_series(series: &[(SeriesId, Labels)]) -> Result<Vec<u8>, StoreError> {
    let bad = |e: &dyn std::fmt::Display| StoreError::Engine(format!("series object: {e}"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(series.iter().map(|(id, _)| id.0).collect::<UInt32Array>()),
        Arc::new(series.iter().map(|(_, l)| Some(l.metric())).collect::<StringArray>()),
        Arc::new(labels_array(series.iter().map(|(_, l)| l))),
    ];
    let batch = RecordBatch::try_new(schema(), columns).map_err(|e| bad(&e))?;
    let mut writer =
        ArrowWriter::try_new(Vec::new(), schema(), Some(file_properties().build())).map_err(|e| bad(&e))?;
    writer.write(&batch).map_err(|e| bad(&e))?;
    writer.into_inner().map_err(|e| bad(&e))
}

/// Decodes a series object, or the columns of it that a block's `series.parquet` has.
pub(crate) fn decode_series(bytes: Bytes) -> Result<Vec<(SeriesId, Labels)>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    for batch in reader.build().map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        let ids = batch.column_by_name("series_id").ok_or("no column series_id")?;
        let ids = ids.as_primitive_opt::<UInt32Type>().ok_or("column series_id is not uint32")?;
        out.extend(ids.values().iter().map(|id| SeriesId(*id)).zip(read_labels(&batch)?));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_round_trip() {
        let all = vec![
            (SeriesId(2), Labels::series("m", &[("node", "a@h"), ("mount", "/")]).unwrap()),
            (SeriesId(7), Labels::empty()),
            (SeriesId(8), Labels::from_pairs([("no", "metric"), ("ü", "\"\n\0")]).unwrap()),
        ];
        let bytes = encode_series(&all).unwrap();
        assert_eq!(decode_series(bytes.into()).unwrap(), all);
        assert!(decode_series(Bytes::from_static(b"PAR1 no PAR1")).is_err());
    }
}
