//! Reads views into batches: series in the order of their ids, each merged over blocks and heads exactly once, a bounded
//! number of samples in memory at a time.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use forewarn_schemas::{TimeRange, Timestamp};

use crate::block::Block;
use crate::error::StoreError;
use crate::partition::View;
use crate::rows::{RowBuilder, RowShape};

/// Samples read at once, about.
const CHUNK_SAMPLES: u64 = 1 << 18;
/// Blocks up to which a range is read in one go when the order of time does not matter.
const SLICE_BLOCKS: usize = 32;
/// Batches in flight between the reader and its consumer.
const CHANNEL_BATCHES: usize = 2;

/// Reads a view; `emit` says whether to go on. Rows are sorted by series id and time.
pub(crate) fn read(
    view: &View,
    range: TimeRange,
    shape: &RowShape,
    emit: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<bool, StoreError> {
    let engine = |e: arrow::error::ArrowError| StoreError::Engine(e.to_string());
    let values = shape.has_values();
    let mut rows = RowBuilder::new(shape.clone(), view.partition);
    for chunk in view.series.chunks(chunk_series(view)) {
        let ids: Vec<u32> = chunk.iter().map(|(id, _)| *id).collect();
        for ((id, labels), column) in chunk.iter().zip(view.columns(&ids, range, values)?) {
            if !rows.push(*id, labels, &column, emit).map_err(engine)? {
                return Ok(false);
            }
        }
    }
    Ok(rows.is_empty() || emit(rows.finish().map_err(engine)?))
}

/// As [`read`], but in slices of time, which bounds how many blocks are open at once. Sorted only within a slice.
pub(crate) fn read_unsorted(
    view: &View,
    range: TimeRange,
    shape: &RowShape,
    emit: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), StoreError> {
    for slice in slices(&view.blocks, range) {
        if !read(view, slice, shape, emit)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Returns how many series to read at once, from what blocks and heads have on average.
fn chunk_series(view: &View) -> usize {
    let of_block = |b: &Arc<Block>| b.meta.samples.div_ceil(b.meta.series.max(1));
    let in_blocks: u64 = view.blocks.iter().map(of_block).sum();
    let in_heads: u64 = view.heads.iter().map(|h| h.samples() as u64 / (view.series_known as u64).max(1)).sum();
    (CHUNK_SAMPLES / (in_blocks + in_heads).max(1)).max(1) as usize
}

/// Cuts a range where no block goes across.
fn slices(blocks: &[Arc<Block>], range: TimeRange) -> Vec<TimeRange> {
    if blocks.len() <= SLICE_BLOCKS {
        return vec![range];
    }
    let mut spans: Vec<(i64, i64)> = blocks.iter().map(|b| (b.meta.min_ts, b.meta.max_ts)).collect();
    spans.sort_unstable();
    let mut out = Vec::new();
    let mut start = range.start;
    let mut reach = spans[0].1;
    for (min, max) in spans {
        let cut = Timestamp::from_millis(min);
        if min > reach && start < cut && cut < range.end {
            out.push(TimeRange::new(start, cut));
            start = cut;
        }
        reach = reach.max(max);
    }
    out.push(TimeRange::new(start, range.end));
    out
}

/// Streams views one after the other, sorted within each.
pub(crate) fn stream(views: Vec<View>, range: TimeRange, shape: RowShape) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&shape.schema), CHANNEL_BATCHES);
    let sender = builder.tx();
    builder.spawn_blocking(move || {
        for view in views {
            // The receiver is gone when nobody waits for the answer.
            let mut emit = |batch| sender.blocking_send(Ok(batch)).is_ok();
            if !read(&view, range, &shape, &mut emit).map_err(external)? {
                break;
            }
        }
        Ok(())
    });
    builder.build()
}

pub(crate) fn external(e: StoreError) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}
