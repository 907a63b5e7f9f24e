//! Reads a block: which series it has, and the rows of some of them.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, Float64Type, Int64Type, TimestampMillisecondType, UInt8Type, UInt32Type, UInt64Type,
};
use bytes::Bytes;
use forewarn_schemas::{PartitionId, SeriesId, TimeRange};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::{ChunkReader, Length};

use super::value::Scale;
use super::{BlockMeta, FileSum};
use crate::block_store::BlockStore;
use crate::error::StoreError;
use crate::merge::Column;

/// Bytes that a sequential read takes at once.
const READ_AHEAD: u64 = 64 << 10;
/// Rows decoded at once.
const BATCH_ROWS: usize = 8192;

/// A block that was checked and whose directory is in memory.
#[derive(Debug)]
pub(crate) struct OpenBlock {
    file: ObjectFile,
    metadata: ArrowReaderMetadata,
    directory: Directory,
}

/// Which series a block has: ids ascending, the row at which each begins, and how its values are stored.
#[derive(Debug, Default)]
struct Directory {
    ids: Vec<u32>,
    starts: Vec<u64>,
    scales: Vec<u8>,
    bases: Vec<i64>,
}

/// Marks a series whose values are stored as they are.
const NO_SCALE: u8 = u8::MAX;

/// What `series.parquet` says about the life of a series.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeriesRow {
    pub(crate) id: SeriesId,
    pub(crate) min_ts: i64,
    pub(crate) max_ts: i64,
}

impl OpenBlock {
    pub(super) fn load(
        blocks: &Arc<dyn BlockStore>,
        partition: PartitionId,
        meta: &BlockMeta,
        check: bool,
    ) -> Result<Self, StoreError> {
        let path = meta.samples_path(partition);
        let bad = |e: &dyn std::fmt::Display| StoreError::damaged(&path, e);
        let file = ObjectFile { blocks: Arc::clone(blocks), path: path.clone(), bytes: meta.samples_file.bytes };
        let options = ArrowReaderOptions::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata = if check {
            // Read once, so that what was checked is what is parsed.
            let content = meta.samples_file.read(blocks.as_ref(), &path)?;
            ArrowReaderMetadata::load(&content, options)
        } else {
            ArrowReaderMetadata::load(&file, options)
        }
        .map_err(|e| bad(&e))?;
        let series_path = meta.series_path(partition);
        let series = read_series(blocks.as_ref(), &series_path, meta.series_file)?;
        let directory = Directory::decode(series).map_err(|why| StoreError::damaged(&series_path, why))?;
        let rows: i64 = metadata.metadata().row_groups().iter().map(|g| g.num_rows()).sum();
        if directory.starts.last().copied() != u64::try_from(rows).ok() || directory.rows() != meta.samples {
            return Err(bad(&format!(
                "{rows} rows, {} in the directory, {} in the manifest",
                directory.rows(),
                meta.samples
            )));
        }
        Ok(Self { file, metadata, directory })
    }

    /// Returns how much memory it takes, about.
    pub(crate) fn weight(&self) -> usize {
        self.directory.ids.len() * 21 + self.metadata.metadata().memory_size()
    }

    /// Reads the samples of some series, given ascending, within a range. Without `values` they are zero.
    pub(crate) fn read(&self, ids: &[u32], range: TimeRange, values: bool) -> Result<Vec<(u32, Column)>, StoreError> {
        let found = self.directory.find(ids);
        if found.is_empty() {
            return Ok(Vec::new());
        }
        self.decode(&found, range, values).map_err(|why| StoreError::damaged(&self.file.path, why))
    }

    fn decode(&self, found: &[usize], range: TimeRange, values: bool) -> Result<Vec<(u32, Column)>, String> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for at in found {
            let rows = self.directory.starts[*at]..self.directory.starts[at + 1];
            match runs.last_mut() {
                Some(last) if last.end == rows.start => last.end = rows.end,
                _ => runs.push(rows),
            }
        }
        let (groups, selection) = self.select(&runs);
        let columns: &[&str] = if values { &["ts", "value_int", "value"] } else { &["ts"] };
        let mask = ProjectionMask::columns(self.metadata.parquet_schema(), columns.iter().copied());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
            .with_row_groups(groups)
            .with_row_selection(selection)
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|e| e.to_string())?;
        let mut rows = Rows { batches: reader, batch: None, at: 0, values };
        let mut out = Vec::with_capacity(found.len());
        for at in found {
            let count = self.directory.starts[at + 1] - self.directory.starts[*at];
            let mut column = rows.take(count as usize, self.directory.scale(*at))?;
            column.cut(range);
            if !column.is_empty() {
                out.push((self.directory.ids[*at], column));
            }
        }
        Ok(out)
    }

    /// Turns row ranges of the file into row groups and a selection within these.
    fn select(&self, runs: &[Range<u64>]) -> (Vec<usize>, RowSelection) {
        let (mut groups, mut ranges) = (Vec::new(), Vec::new());
        let (mut start, mut kept) = (0u64, 0u64);
        let mut runs = runs.iter().peekable();
        for (i, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let rows = group.num_rows() as u64;
            let end = start + rows;
            let before = ranges.len();
            while let Some(run) = runs.peek().filter(|r| r.start < end) {
                let from = run.start.max(start) - start + kept;
                let to = run.end.min(end) - start + kept;
                ranges.push(from as usize..to as usize);
                if run.end > end {
                    break;
                }
                runs.next();
            }
            if ranges.len() > before {
                groups.push(i);
                kept += rows;
            }
            start = end;
        }
        (groups, RowSelection::from_consecutive_ranges(ranges.into_iter(), kept as usize))
    }

    /// Reads the first and last time of every series of a block.
    pub(crate) fn spans(
        blocks: &dyn BlockStore,
        partition: PartitionId,
        meta: &BlockMeta,
    ) -> Result<Vec<SeriesRow>, StoreError> {
        let path = meta.series_path(partition);
        let bad = |why: String| StoreError::damaged(&path, why);
        let mut out = Vec::new();
        for batch in read_series(blocks, &path, meta.series_file)? {
            let ids = column::<UInt32Type>(&batch, "series_id").map_err(bad)?;
            let min = column::<TimestampMillisecondType>(&batch, "min_ts").map_err(bad)?;
            let max = column::<TimestampMillisecondType>(&batch, "max_ts").map_err(bad)?;
            let rows = ids.values().iter().zip(min.values()).zip(max.values());
            out.extend(rows.map(|((id, min), max)| SeriesRow { id: SeriesId(*id), min_ts: *min, max_ts: *max }));
        }
        Ok(out)
    }
}

/// Reads `series.parquet`, checked, without the labels.
fn read_series(blocks: &dyn BlockStore, path: &str, sum: FileSum) -> Result<Vec<RecordBatch>, StoreError> {
    let bad = |e: &dyn std::fmt::Display| StoreError::damaged(path, e);
    let content = sum.read(blocks, path)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(content).map_err(|e| bad(&e))?;
    let names = ["series_id", "scale", "base", "min_ts", "max_ts", "count"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), names);
    let reader = builder.with_projection(mask).with_batch_size(1 << 16).build().map_err(|e| bad(&e))?;
    reader.collect::<Result<_, _>>().map_err(|e| bad(&e))
}

fn column<'a, T: ArrowPrimitiveType>(batch: &'a RecordBatch, name: &str) -> Result<&'a PrimitiveArray<T>, String> {
    let array = batch.column_by_name(name).ok_or_else(|| format!("no column {name}"))?;
    array.as_primitive_opt().ok_or_else(|| format!("column {name} has type {}", array.data_type()))
}

impl Directory {
    fn decode(batches: Vec<RecordBatch>) -> Result<Self, String> {
        let mut out = Self { starts: vec![0], ..Self::default() };
        let mut next = 0u64;
        for batch in batches {
            let scales = column::<UInt8Type>(&batch, "scale")?;
            let bases = column::<Int64Type>(&batch, "base")?;
            out.ids.extend_from_slice(column::<UInt32Type>(&batch, "series_id")?.values());
            for (i, count) in column::<UInt64Type>(&batch, "count")?.values().iter().enumerate() {
                next = next.checked_add(*count).ok_or("impossible counts")?;
                out.starts.push(next);
                out.scales.push(if scales.is_valid(i) { scales.value(i) } else { NO_SCALE });
                out.bases.push(if bases.is_valid(i) { bases.value(i) } else { 0 });
            }
        }
        if !out.ids.is_sorted_by(|a, b| a < b) {
            return Err("series are not in order".into());
        }
        Ok(out)
    }

    fn rows(&self) -> u64 {
        self.starts.last().copied().unwrap_or_default()
    }

    fn scale(&self, at: usize) -> Option<Scale> {
        let scale = self.scales[at];
        (scale != NO_SCALE).then(|| Scale { scale, base: self.bases[at] })
    }

    /// Returns the positions of those of `ids` that are here.
    fn find(&self, ids: &[u32]) -> Vec<usize> {
        let mut out = Vec::with_capacity(ids.len().min(self.ids.len()));
        let mut from = 0;
        for id in ids {
            // Dense selections advance by one; sparse ones jump.
            if self.ids.get(from) != Some(id) {
                from += self.ids[from..].partition_point(|other| other < id);
            }
            if self.ids.get(from) == Some(id) {
                out.push(from);
                from += 1;
            }
        }
        out
    }
}

/// The selected rows, in order, cut into series by their counts.
struct Rows<R> {
    batches: R,
    batch: Option<RecordBatch>,
    at: usize,
    values: bool,
}

impl<R: Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>>> Rows<R> {
    fn take(&mut self, count: usize, scale: Option<Scale>) -> Result<Column, String> {
        let mut out = Column { ts: Vec::with_capacity(count), values: Vec::with_capacity(count) };
        while out.len() < count {
            let batch = match &self.batch {
                Some(b) if self.at < b.num_rows() => b,
                _ => {
                    let next = self.batches.next().ok_or("fewer rows than the directory says")?;
                    self.at = 0;
                    self.batch.insert(next.map_err(|e| e.to_string())?)
                }
            };
            let n = (count - out.len()).min(batch.num_rows() - self.at);
            let rows = self.at..self.at + n;
            let ts = column::<TimestampMillisecondType>(batch, "ts")?;
            out.ts.extend_from_slice(&ts.values()[rows.clone()]);
            if self.values {
                decode_values(batch, rows, scale, &mut out.values)?;
            } else {
                out.values.resize(out.ts.len(), 0.0);
            }
            self.at += n;
        }
        if out.ts.is_sorted_by(|a, b| a < b) { Ok(out) } else { Err("samples are not in order".into()) }
    }
}

fn decode_values(
    batch: &RecordBatch,
    rows: Range<usize>,
    scale: Option<Scale>,
    out: &mut Vec<f64>,
) -> Result<(), String> {
    let floats = column::<Float64Type>(batch, "value")?;
    let ints = column::<Int64Type>(batch, "value_int")?;
    let Some(scale) = scale else {
        if floats.null_count() > 0 && rows.clone().any(|i| floats.is_null(i)) {
            return Err("a value is missing".into());
        }
        out.extend_from_slice(&floats.values()[rows]);
        return Ok(());
    };
    for i in rows {
        let value = if ints.is_valid(i) {
            scale.decode(ints.value(i)).ok_or("a value does not fit its scale")?
        } else if floats.is_valid(i) {
            floats.value(i)
        } else {
            return Err("a value is missing".into());
        };
        out.push(value);
    }
    Ok(())
}

/// An object as the Parquet reader wants it.
#[derive(Debug, Clone)]
struct ObjectFile {
    blocks: Arc<dyn BlockStore>,
    path: String,
    bytes: u64,
}

impl ObjectFile {
    fn range(&self, start: u64, length: u64) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length).filter(|end| *end <= self.bytes);
        let end = end.ok_or_else(|| ParquetError::EOF(format!("{start} + {length} of {}", self.bytes)))?;
        self.blocks.get(&self.path, start..end).map_err(|e| ParquetError::External(Box::new(e)))
    }
}

impl Length for ObjectFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for ObjectFile {
    type T = ObjectRead;

    fn get_read(&self, start: u64) -> Result<ObjectRead, ParquetError> {
        Ok(ObjectRead { file: self.clone(), next: start, have: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.range(start, length as u64)
    }
}

/// A sequential read of an object.
#[derive(Debug)]
struct ObjectRead {
    file: ObjectFile,
    next: u64,
    have: Bytes,
}

impl Read for ObjectRead {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.have.is_empty() && self.next < self.file.bytes {
            let length = READ_AHEAD.min(self.file.bytes - self.next);
            self.have = self.file.range(self.next, length).map_err(std::io::Error::other)?;
            self.next += length;
        }
        let n = into.len().min(self.have.len());
        into[..n].copy_from_slice(&self.have.split_to(n));
        Ok(n)
    }
}
