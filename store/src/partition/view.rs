//! What a query sees of a partition: the blocks and heads of one moment. Later flushes and deletions do not change it;
//! later appends may show.

use std::sync::Arc;

use forewarn_schemas::{Labels, PartitionId, SeriesId, TimeRange};

use super::Partition;
use crate::block::Block;
use crate::error::StoreError;
use crate::head::Head;
use crate::index::{Ids, LabelIndex};
use crate::lock::read;
use crate::merge::{Column, Duplicates};
use crate::shared::Shared;

#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) partition: PartitionId,
    pub(crate) shared: Arc<Shared>,
    /// The series selected, ascending by id.
    pub(crate) series: Vec<(u32, Labels)>,
    /// Series that the partition knows.
    pub(crate) series_known: usize,
    /// Blocks that may have samples of the range, lowest offsets first.
    pub(crate) blocks: Vec<Arc<Block>>,
    /// Blocks of the partition.
    pub(crate) blocks_known: usize,
    /// Heads, oldest first; their offsets are above those of the blocks.
    pub(crate) heads: Vec<Arc<Head>>,
}

impl Partition {
    pub(crate) fn view(&self, select: impl FnOnce(&LabelIndex) -> Ids, range: TimeRange) -> View {
        let state = read(&self.state);
        let labelled = |id: u32| Some((id, state.index.get(SeriesId(id))?.clone()));
        let heads = state.frozen.iter().map(|f| &f.head).chain([&state.head]);
        View {
            partition: self.id,
            shared: Arc::clone(&self.shared),
            series: select(&state.index).into_iter().filter_map(labelled).collect(),
            series_known: state.index.known(),
            blocks: state.blocks.iter().filter(|b| b.overlaps(range)).cloned().collect(),
            blocks_known: state.blocks.len(),
            heads: heads.filter(|h| h.overlaps(range)).cloned().collect(),
        }
    }
}

impl View {
    /// Reads one series.
    pub(crate) fn column(&self, id: SeriesId, range: TimeRange) -> Result<Column, StoreError> {
        let mut out = Column::default();
        let mut dropped = Duplicates::default();
        for block in &self.blocks {
            for (_, column) in self.shared.read_block(block, &[id.0], range, true)? {
                out.merge(column, &mut dropped);
            }
        }
        for head in &self.heads {
            out.merge(head.column(id, range), &mut dropped);
        }
        Ok(out)
    }

    /// Reads some of its series, given ascending: a column for each, some of them empty.
    pub(crate) fn columns(&self, ids: &[u32], range: TimeRange, values: bool) -> Result<Vec<Column>, StoreError> {
        let mut out = vec![Column::default(); ids.len()];
        let mut dropped = Duplicates::default();
        for block in self.blocks.iter().filter(|b| b.overlaps(range)) {
            let mut at = 0;
            for (id, column) in self.shared.read_block(block, ids, range, values)? {
                at += ids[at..].partition_point(|other| *other < id);
                out[at].merge(column, &mut dropped);
            }
        }
        for head in self.heads.iter().filter(|h| h.overlaps(range)) {
            for (id, column) in ids.iter().zip(&mut out) {
                column.merge(head.column(SeriesId(*id), range), &mut dropped);
            }
        }
        Ok(out)
    }
}
