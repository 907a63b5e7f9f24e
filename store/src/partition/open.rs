//! Opening a partition: everything is read first, and only then anything is changed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock};

use forewarn_schemas::PartitionId;

use super::{Partition, State};
use crate::block::Block;
use crate::block::labels::decode_series;
use crate::error::StoreError;
use crate::head::Head;
use crate::index::LabelIndex;
use crate::manifest::Chain;
use crate::shared::Shared;

impl Partition {
    /// Builds the state that a chain describes. Changes nothing.
    pub(crate) fn load(shared: Arc<Shared>, id: PartitionId, chain: Chain) -> Result<Self, StoreError> {
        let mut blocks: Vec<Arc<Block>> = chain.live.values().map(|meta| Block::new(id, meta.clone())).collect();
        blocks.sort_by_key(|b| (b.meta.from, b.meta.to, b.meta.min_ts));
        check_sizes(&shared, id, &blocks)?;
        let index = load_labels(&shared, id, &chain, &blocks)?;
        let state = State {
            index,
            head: Arc::new(Head::default()),
            frozen: VecDeque::new(),
            blocks: Arc::new(blocks),
            next: chain.to,
            checkpoint: chain.to,
            snapshot: chain.snapshot.clone(),
            received_at: chain.received_at,
            head_since: None,
            head_bytes: 0,
            flush_failed_at: None,
        };
        let partition = Self {
            id,
            gauges: shared.metrics.partition(id),
            shared,
            state: RwLock::new(state),
            chain: Mutex::new(chain),
            retired: Mutex::default(),
            retained_at: Mutex::default(),
        };
        partition.show(&crate::lock::read(&partition.state));
        Ok(partition)
    }

    /// Removes what crashes left behind. Only for whoever holds the directory's lock, after all of it could be opened.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        let removed = crate::lock::lock(&self.chain).sweep(&[])?;
        if removed > 0 {
            tracing::info!(partition = %self.id, removed, "swept objects that no manifest names");
        }
        Ok(())
    }
}

/// Finds missing and cut files without reading them.
fn check_sizes(shared: &Shared, id: PartitionId, blocks: &[Arc<Block>]) -> Result<(), StoreError> {
    let objects = shared.blocks.list(&format!("p{id}/blocks"))?;
    let sizes: HashMap<&str, u64> = objects.iter().map(|o| (o.path.as_str(), o.bytes)).collect();
    for block in blocks {
        let meta = &block.meta;
        for (path, sum) in [(meta.samples_path(id), meta.samples_file), (meta.series_path(id), meta.series_file)] {
            match sizes.get(path.as_str()) {
                Some(bytes) if *bytes == sum.bytes => {}
                Some(bytes) => shared.condemn(block, &path, &format!("{bytes} bytes, not {}", sum.bytes)),
                None => shared.condemn(block, &path, "missing"),
            }
        }
    }
    Ok(())
}

/// Loads the labels of every id given. Those of a damaged series object are taken from the blocks where these have
/// them; the others stay holes, whose ids are not given again.
fn load_labels(
    shared: &Shared,
    id: PartitionId,
    chain: &Chain,
    blocks: &[Arc<Block>],
) -> Result<LabelIndex, StoreError> {
    let mut index = LabelIndex::default();
    let mut damaged = false;
    for part in &chain.series {
        let object = &part.object;
        let content = object.sum.read(shared.blocks.as_ref(), &object.path);
        let series =
            content.and_then(|bytes| decode_series(bytes).map_err(|why| StoreError::damaged(&object.path, why)));
        match series {
            Ok(series) => series.into_iter().for_each(|(id, labels)| index.restore(id, labels)),
            Err(e @ (StoreError::Damaged { .. } | StoreError::NotFound(_))) => {
                shared.report(id, &object.path, &e.to_string());
                damaged = true;
            }
            Err(e) => return Err(e),
        }
    }
    if damaged {
        for block in blocks.iter().filter(|b| b.damage().is_none()) {
            let path = block.meta.series_path(id);
            let content = block.meta.series_file.read(shared.blocks.as_ref(), &path);
            let series = content.and_then(|bytes| decode_series(bytes).map_err(|why| StoreError::damaged(&path, why)));
            let series = shared.unless_damaged(block, series)?.unwrap_or_default();
            series.into_iter().for_each(|(id, labels)| index.restore(id, labels));
        }
    }
    index.reserve_ids(chain.series_next);
    Ok(index)
}
