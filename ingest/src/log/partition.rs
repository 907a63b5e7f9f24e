//! A partition as readers see it: its segments, oldest first, and its durable end.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use forewarn_schemas::{Offset, PartitionId};
use forewarn_vfs::Vfs;
use tokio::sync::watch;

use super::queue::Queue;
use super::segment::Segment;
use super::{Chunk, LogError};

/// One partition. The last of its segments, which is never removed, is the one being written.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) id: PartitionId,
    pub(super) dir: PathBuf,
    segments: RwLock<Vec<Arc<Segment>>>,
    pub(super) end: watch::Sender<Offset>,
    pub(super) queue: Queue,
    truncating: Mutex<()>,
}

impl Partition {
    pub(super) fn new(id: PartitionId, dir: PathBuf, segments: Vec<Arc<Segment>>, queue: Queue) -> Self {
        let end = segments.last().map_or(Offset(0), |s| s.end());
        Self {
            id,
            dir,
            segments: RwLock::new(segments),
            end: watch::Sender::new(end),
            queue,
            truncating: Mutex::new(()),
        }
    }

    /// Returns the segments of the moment; they stay readable even when they are truncated meanwhile.
    fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a segment, which becomes the one being written.
    pub(super) fn push(&self, segment: Arc<Segment>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment);
    }

    /// Returns the bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments().iter().map(|s| s.extent().bytes).sum()
    }

    pub(super) fn bounds(&self) -> Range<Offset> {
        let first = self.segments.read().unwrap_or_else(PoisonError::into_inner).first().map(|s| s.header.base);
        let end = *self.end.borrow();
        first.unwrap_or(end)..end
    }

    pub(super) fn read(&self, from: Offset, bytes_max: usize) -> Result<Chunk, LogError> {
        // The end first: whatever segments are listed after it hold everything up to it.
        let end = *self.end.borrow();
        let segments = self.segments();
        let first = segments.first().map_or(end, |s| s.header.base);
        if from < first || from > end {
            return Err(LogError::OutOfRange { partition: self.id, from, first, end });
        }
        let start = segments.partition_point(|s| s.header.base <= from).saturating_sub(1);
        let (mut chunk, mut used) = (Chunk::starting(from), 0);
        for segment in &segments[start..] {
            // Offsets between two segments were never given.
            chunk.next = chunk.next.max(segment.header.base);
            let what = || format!("read {}", segment.path.display());
            let to_end = segment.read(&mut chunk, &mut used, bytes_max).map_err(|e| LogError::io(what(), e))?;
            if !to_end || (used >= bytes_max && !chunk.records.is_empty()) {
                break;
            }
        }
        Ok(chunk)
    }

    /// Removes segments all of whose records are below `before`, oldest first, and never the last. Each removal is
    /// durable before the next, so that a crash cannot leave a hole.
    pub(super) fn truncate(&self, vfs: &dyn Vfs, before: Offset) -> Result<(), LogError> {
        let _one_at_a_time = self.truncating.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let segments = self.segments();
            let [oldest, _, ..] = segments.as_slice() else { return Ok(()) };
            if oldest.end() > before {
                return Ok(());
            }
            match vfs.remove(&oldest.path) {
                // Removed by an earlier attempt that could not sync the directory.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|e| LogError::io(format!("remove {}", oldest.path.display()), e))?,
            }
            vfs.sync_dir(&self.dir).map_err(|e| LogError::io(format!("sync {}", self.dir.display()), e))?;
            self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(0);
        }
    }
}
