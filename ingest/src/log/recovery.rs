//! Opening a log: what is there, what of it is damaged, and what is done about it.
//!
//! First everything is looked at and nothing changed, so that a log of a newer version or of another shape is refused
//! as it was found. Then each partition is mended:
//!
//! - Damage with a valid frame after it stays where it is, copied to `quarantine/` for a person; the frames that it
//!   touched are a gap. Unless they were to be synced together with the last frames that are there: a torn write may
//!   keep its end and lose its beginning, so those count as torn, and what is kept of them is served.
//! - Damage at the end of the last segment is taken for a torn write: copied, then cut. A torn write was never
//!   acknowledged, because the sync that acknowledges covers everything before it too. But rot of an acknowledged
//!   record looks the same, so its offset must not be given again, or a consumer that has seen it would pass over the
//!   record that takes its place. Writing goes on in a new segment, past every offset that the cut bytes may have held.
//! - What is readable is synced before it is served: a killed process leaves written but unsynced frames behind, and a
//!   consumer must not see what a power cut could still take away.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forewarn_schemas::{Offset, PartitionId};
use forewarn_vfs::{Open, Vfs, VfsFile};

use super::frame::{FRAME_OVERHEAD, HEADER_BYTES, Header, Opened, SEGMENT_VERSION};
use super::partition::Partition;
use super::queue::Queue;
use super::scan::{Frames, Step};
use super::segment::{Extent, Segment};
use super::writer::{NewSegment, Shared};
use super::{LogError, without};

/// The directory, beside those of the partitions, that damaged bytes are copied to.
const QUARANTINE: &str = "quarantine";

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records that can be read.
    pub records: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Bytes cut from damaged ends.
    pub cut_bytes: u64,
    /// Offsets of records that were acknowledged and are lost.
    pub gaps: Vec<(PartitionId, Range<Offset>)>,
    /// Offsets of records that are missing from the last commit, most likely torn before it was acknowledged.
    pub torn: Vec<(PartitionId, Range<Offset>)>,
    /// Copies of damaged bytes, those of earlier openings not repeated.
    pub quarantined: Vec<PathBuf>,
}

/// A segment as it was found.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    header: Header,
    /// Whether the header was read rather than guessed.
    header_valid: bool,
    file: Box<dyn VfsFile>,
    file_bytes: u64,
    extent: Extent,
    records: u64,
    /// Damaged byte ranges before the last valid frame.
    damage: Vec<Range<u64>>,
    /// Missing offsets before the last valid frame.
    missing: Vec<Range<Offset>>,
    /// The end of what was acknowledged for certain, because something was written after it.
    acknowledged: Offset,
}

/// A partition as it was found.
#[derive(Debug, Default)]
struct FoundPartition {
    segments: Vec<Found>,
    /// Files whose creation was interrupted; nothing was ever in them.
    unborn: Vec<PathBuf>,
}

/// The name of a partition's directory.
fn partition_dir(dir: &Path, p: PartitionId) -> PathBuf {
    dir.join(p.to_string())
}

fn io<T>(what: &str, path: &Path, result: std::io::Result<T>) -> Result<T, LogError> {
    result.map_err(|e| LogError::io(format!("{what} {}", path.display()), e))
}

/// Everything that was found, nothing changed yet.
#[derive(Debug)]
pub(super) struct Inspection(BTreeMap<PartitionId, FoundPartition>);

/// Looks at a log.
pub(super) fn inspect(vfs: &dyn Vfs, dir: &Path, partitions: u32) -> Result<Inspection, LogError> {
    let mut found = BTreeMap::new();
    for p in existing_partitions(vfs, dir)? {
        found.insert(p, inspect_partition(vfs, &partition_dir(dir, p), p, partitions)?);
    }
    let highest = found.keys().next_back().map_or(0, |p| p.0 + 1);
    let begun = found.values().any(|p| !p.segments.is_empty());
    // All directories are made before the first segment.
    if highest > partitions || (begun && highest < partitions) {
        return Err(LogError::Partitions { dir: dir.display().to_string(), found: highest, asked: partitions });
    }
    Ok(Inspection(found))
}

fn existing_partitions(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<PartitionId>, LogError> {
    let entries = match vfs.list(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => io("list", dir, listed)?,
    };
    let number = |name: &str| name.parse().ok().filter(|n: &u32| n.to_string() == name).map(PartitionId);
    Ok(entries.iter().filter(|e| e.is_dir).filter_map(|e| number(&e.name)).collect())
}

fn inspect_partition(vfs: &dyn Vfs, dir: &Path, p: PartitionId, partitions: u32) -> Result<FoundPartition, LogError> {
    let mut found = FoundPartition::default();
    for entry in io("list", dir, vfs.list(dir))? {
        let Some(base) = Segment::base_of(&entry.name).filter(|_| !entry.is_dir) else { continue };
        let path = dir.join(&entry.name);
        let file = io("open", &path, vfs.open(&path, Open::Read))?;
        let mut head = vec![0; HEADER_BYTES.min(entry.bytes as usize)];
        io("read", &path, file.read_exact_at(&mut head, 0))?;
        let (header, header_valid) = match Header::decode(&head) {
            Opened::Newer(version) => {
                let segment = path.display().to_string();
                return Err(LogError::Version { segment, version, newest: SEGMENT_VERSION });
            }
            Opened::Valid(h) if h.partitions != partitions => {
                let dir = dir.display().to_string();
                return Err(LogError::Partitions { dir, found: h.partitions, asked: partitions });
            }
            Opened::Valid(h) if h.partition != p || h.base != base => {
                let segment = path.display().to_string();
                return Err(LogError::Misplaced { segment, partition: h.partition, base: h.base });
            }
            Opened::Valid(h) => (h, true),
            Opened::Damaged if entry.bytes <= HEADER_BYTES as u64 => {
                found.unborn.push(path);
                continue;
            }
            Opened::Damaged => {
                // Both copies are gone, but the first frame repeats the marker, and its checksum vouches for it.
                let mut marker = [0; 8];
                let at = HEADER_BYTES as u64;
                let n = io("read", &path, file.read_at(&mut marker, at))?;
                marker[n..].fill(0);
                (Header { marker, ..Header::new(p, partitions, base) }, false)
            }
        };
        let scanned = scan(path.clone(), header, header_valid, file, entry.bytes);
        found.segments.push(io("read", &path, scanned)?);
    }
    Ok(found)
}

fn scan(
    path: PathBuf,
    header: Header,
    header_valid: bool,
    file: Box<dyn VfsFile>,
    file_bytes: u64,
) -> std::io::Result<Found> {
    let (mut extent, mut records) = (Extent::empty(header.base), 0);
    let (mut damage, mut missing): (Vec<Range<u64>>, Vec<Range<Offset>>) = (Vec::new(), Vec::new());
    let mut acknowledged = header.base;
    let mut pending = None;
    let mut frames = Frames::new(&*file, header.marker, HEADER_BYTES as u64, file_bytes, header.base);
    while let Some(step) = frames.step()? {
        match step {
            Step::Damage { at, bytes } => pending = Some(at..at + bytes),
            Step::Frame { at, offset, bytes, acknowledged: before } => {
                damage.extend(pending.take());
                if extent.end < offset {
                    missing.push(extent.end..offset);
                }
                extent.add(at, offset, bytes);
                records += 1;
                acknowledged = acknowledged.max(before);
            }
        }
    }
    drop(frames);
    Ok(Found { path, header, header_valid, file, file_bytes, extent, records, damage, missing, acknowledged })
}

/// A partition that was mended, and the segment to go on writing.
#[derive(Debug)]
pub(super) struct Mended {
    pub(super) partition: Arc<Partition>,
    pub(super) active: NewSegment,
}

impl Inspection {
    /// Mends every partition, making those that are missing.
    pub(super) fn mend(mut self, shared: &Shared, dir: &Path) -> Result<(Vec<Mended>, Recovery), LogError> {
        let vfs = &*shared.vfs;
        let ids = (0..shared.partitions).map(PartitionId);
        for p in ids.clone() {
            let dir = partition_dir(dir, p);
            io("create", &dir, vfs.create_dir_all(&dir))?;
        }
        let mut recovery = Recovery::default();
        let mut mended = Vec::new();
        for p in ids {
            let found = self.0.remove(&p).unwrap_or_default();
            mended.push(found.mend(shared, dir, p, &mut recovery)?);
        }
        Ok((mended, recovery))
    }
}

impl FoundPartition {
    fn mend(self, shared: &Shared, root: &Path, p: PartitionId, recovery: &mut Recovery) -> Result<Mended, LogError> {
        let vfs = &*shared.vfs;
        let dir = partition_dir(root, p);
        // The name of an interrupted segment still says that offsets below it were given or skipped.
        let mut next_min = Offset(0);
        for path in &self.unborn {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            next_min = next_min.max(Segment::base_of(name).unwrap_or_default());
            io("remove", path, vfs.remove(path))?;
        }
        // Names that are seen now must not be taken back by a power cut later.
        io("sync", &dir, vfs.sync_dir(&dir))?;
        let headers: Vec<Header> = self.segments.iter().skip(1).map(|s| s.header.clone()).collect();
        let (mut segments, mut last) = (Vec::new(), None);
        for (i, mut found) in self.segments.into_iter().enumerate() {
            let next = headers.get(i);
            let loses_end = next.is_some_and(|next| found.extent.end < next.previous_end);
            found.settle(next);
            found.report(vfs, root, p, recovery);
            let tail = found.tail();
            match next {
                None => last = Some(Last::of(vfs, &found)?),
                // Left from an opening that was itself interrupted.
                Some(_) if tail.is_cuttable() && !loses_end => {
                    let file = io("open", &found.path, vfs.open(&found.path, Open::Append))?;
                    tail.cut(&found.path, file, recovery)?;
                }
                Some(_) => {}
            }
            segments.push(Arc::new(Segment::new(found.header, found.path, found.file, found.extent)));
        }
        let active = match (last, segments.last()) {
            (Some(last), Some(segment)) if last.is_clean && segment.end() >= next_min => {
                NewSegment { segment: Arc::clone(segment), file: last.file }
            }
            (last, segment) => {
                let end = segment.map_or(next_min, |s| s.end());
                let skipped = last.as_ref().map_or(0, |l| l.tail.offsets_max());
                let base = Offset(end.0 + skipped).max(next_min);
                let torn = segment.map_or(end..end, |s| s.extent().torn.clone());
                let header = Header::new(p, shared.partitions, base);
                let new = shared.create_segment(&dir, Header { previous_end: end, previous_torn: torn, ..header })?;
                // Only now that the new segment is durable: cut first, and a crash would forget the skipped offsets.
                if let (Some(last), Some(segment)) = (last, segment)
                    && last.tail.is_cuttable()
                {
                    last.tail.cut(&segment.path, last.file, recovery)?;
                }
                segments.push(Arc::clone(&new.segment));
                new
            }
        };
        let queue = Queue::new(shared.config.queue_bytes_max.bytes() as usize);
        let partition = Arc::new(Partition::new(p, dir, segments, queue));
        recovery.bytes += partition.bytes();
        Ok(Mended { partition, active })
    }
}

/// The last segment, opened to be written.
#[derive(Debug)]
struct Last {
    file: Box<dyn VfsFile>,
    tail: Tail,
    is_clean: bool,
}

impl Last {
    fn of(vfs: &dyn Vfs, found: &Found) -> Result<Self, LogError> {
        let file = io("open", &found.path, vfs.open(&found.path, Open::Append))?;
        io("sync", &found.path, file.sync())?;
        let tail = found.tail();
        let is_clean = found.header_valid && tail.start == tail.end && found.extent.torn.is_empty();
        Ok(Self { file, tail, is_clean })
    }
}

/// What a segment has after its last valid frame.
#[derive(Debug, Clone, Copy)]
struct Tail {
    start: u64,
    /// Before the start when the file is shorter than its header.
    end: u64,
    header_valid: bool,
}

impl Tail {
    fn range(self) -> Option<Range<u64>> {
        (self.start < self.end).then_some(self.start..self.end)
    }

    /// Bounds the number of offsets that it held: every frame takes its overhead at least.
    fn offsets_max(self) -> u64 {
        self.end.saturating_sub(self.start).div_ceil(FRAME_OVERHEAD as u64).max(1)
    }

    /// Without a valid header nothing is known well enough to destroy it.
    fn is_cuttable(self) -> bool {
        self.header_valid && self.range().is_some()
    }

    fn cut(self, path: &Path, mut file: Box<dyn VfsFile>, recovery: &mut Recovery) -> Result<(), LogError> {
        io("cut", path, file.truncate(self.start))?;
        io("sync", path, file.sync())?;
        recovery.cut_bytes += self.end - self.start;
        Ok(())
    }
}

impl Found {
    fn tail(&self) -> Tail {
        Tail { start: self.extent.bytes, end: self.file_bytes, header_valid: self.header_valid }
    }

    /// Takes in what the header of the next segment says about the end of this one. The last segment has no next: what
    /// is missing from its last commit is torn.
    fn settle(&mut self, next: Option<&Header>) {
        let end = self.extent.end;
        if let Some(next) = next {
            self.extent.torn = next.previous_torn.clone();
            if end < next.previous_end {
                self.missing.push(end..next.previous_end);
                self.extent.end = next.previous_end;
            }
            return;
        }
        let torn = |m: &&Range<Offset>| m.end > self.acknowledged;
        if let (Some(first), Some(last)) = (self.missing.iter().find(torn), self.missing.iter().rfind(torn)) {
            self.extent.torn = first.start.max(self.acknowledged)..last.end;
        }
    }

    fn report(&self, vfs: &dyn Vfs, root: &Path, p: PartitionId, recovery: &mut Recovery) {
        for range in self.damage.iter().cloned().chain(self.tail().range()) {
            recovery.quarantined.extend(quarantine(vfs, root, p, self, &range));
        }
        recovery.records += self.records;
        let torn = &self.extent.torn;
        for missing in &self.missing {
            recovery.gaps.extend(without(missing.clone(), torn).map(|r| (p, r)));
            let (start, end) = (missing.start.max(torn.start), missing.end.min(torn.end));
            recovery.torn.extend((start < end).then_some((p, start..end)));
        }
    }
}

/// Copies damaged bytes aside; `None` when that was done before or cannot be done, which must not keep the log shut.
fn quarantine(vfs: &dyn Vfs, root: &Path, p: PartitionId, segment: &Found, range: &Range<u64>) -> Option<PathBuf> {
    let dir = root.join(QUARANTINE);
    let path = dir.join(format!("{p}-{:020}-{}.bin", segment.header.base.0, range.start));
    let copy = || -> std::io::Result<()> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        segment.file.read_exact_at(&mut bytes, range.start)?;
        vfs.create_dir_all(&dir)?;
        vfs.publish(&path, &bytes)
    };
    match copy() {
        Ok(()) => Some(path),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "damaged bytes could not be copied aside");
            None
        }
    }
}
