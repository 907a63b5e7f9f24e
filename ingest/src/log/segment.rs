//! A segment as readers see it: its durable part, and a sparse index into it.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use forewarn_schemas::Offset;
use forewarn_vfs::VfsFile;

use super::Chunk;
use super::frame::{HEADER_BYTES, Header};
use super::scan::{Frames, Step};

/// Bytes between two entries of the sparse index: what a read may have to pass over.
const INDEX_BYTES: u64 = 64 << 10;

/// Ends the name of every segment.
const EXTENSION: &str = "seg";

/// One file of a partition.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    pub(super) path: PathBuf,
    file: Box<dyn VfsFile>,
    extent: Mutex<Extent>,
}

/// The durable part of a segment.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    /// The offset after its last record, lost ones included.
    pub(super) end: Offset,
    /// Bytes up to the end of the last frame.
    pub(super) bytes: u64,
    /// Offsets that, if they are missing, were never acknowledged.
    pub(super) torn: Range<Offset>,
    /// Where some of its frames begin, rising.
    index: Vec<(Offset, u64)>,
}

impl Extent {
    /// The extent of a segment without frames.
    pub(super) fn empty(base: Offset) -> Self {
        Self { end: base, bytes: HEADER_BYTES as u64, torn: base..base, index: Vec::new() }
    }

    /// Adds a frame that begins at byte `at`.
    pub(super) fn add(&mut self, at: u64, offset: Offset, bytes: u64) {
        if self.index.last().is_none_or(|(_, last)| at - last >= INDEX_BYTES) {
            self.index.push((offset, at));
        }
        self.end = offset.next();
        self.bytes = at + bytes;
    }
}

impl Segment {
    pub(super) fn new(header: Header, path: PathBuf, file: Box<dyn VfsFile>, extent: Extent) -> Self {
        Self { header, path, file, extent: Mutex::new(extent) }
    }

    /// Returns the path of the segment that begins at `base`.
    pub(super) fn path(dir: &Path, base: Offset) -> PathBuf {
        dir.join(format!("{:020}.{EXTENSION}", base.0))
    }

    /// Reads the first offset out of a file's name; `None` when it is not that of a segment.
    pub(super) fn base_of(name: &str) -> Option<Offset> {
        let (digits, extension) = name.split_once('.')?;
        let is_name = extension == EXTENSION && digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
        is_name.then(|| digits.parse().ok().map(Offset))?
    }

    pub(super) fn extent(&self) -> MutexGuard<'_, Extent> {
        // Each holder leaves the extent whole.
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) -> Offset {
        self.extent().end
    }

    /// Adds records from `out.next` on to a chunk whose records may have `bytes_max` bytes; returns whether it came to
    /// the segment's end.
    pub(super) fn read(&self, out: &mut Chunk, used: &mut usize, bytes_max: usize) -> io::Result<bool> {
        let (end, bytes, torn, (offset, at)) = {
            let extent = self.extent();
            let after = extent.index.partition_point(|(offset, _)| *offset <= out.next);
            let start = after.checked_sub(1).map_or((self.header.base, HEADER_BYTES as u64), |i| extent.index[i]);
            (extent.end, extent.bytes, extent.torn.clone(), start)
        };
        let mut frames = Frames::new(&*self.file, self.header.marker, at, bytes, offset);
        while let Some(step) = frames.step()? {
            let Step::Frame { offset, .. } = step else { continue };
            if offset < out.next {
                continue;
            }
            let record = frames.record();
            if !out.records.is_empty() && *used + record.len() > bytes_max {
                return Ok(false);
            }
            out.lose_until(offset, &torn);
            *used += record.len();
            out.records.push((offset, Bytes::copy_from_slice(record)));
            out.next = offset.next();
        }
        out.lose_until(end, &torn);
        Ok(true)
    }
}
