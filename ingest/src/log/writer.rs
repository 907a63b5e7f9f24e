//! The writer of a partition: one thread that turns what waits in the queue into one write and one sync.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use forewarn_schemas::{Offset, PartitionId};
use forewarn_vfs::{Open, Vfs, VfsFile};

use super::LogError;
use super::embedded::EmbeddedLogConfig;
use super::frame::{FRAME_OVERHEAD, HEADER_BYTES, Header, encode_frame};
use super::partition::Partition;
use super::queue::{Job, Reply};
use super::segment::{Extent, Segment};
use crate::metrics::LogMetrics;

/// Capacity that the write buffer keeps between commits.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// What the writers of one log share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) config: EmbeddedLogConfig,
    pub(super) partitions: u32,
    pub(super) metrics: LogMetrics,
    /// Why the log takes no more writes, once it does not.
    closed: OnceLock<Arc<str>>,
}

impl Shared {
    pub(super) fn new(vfs: Arc<dyn Vfs>, config: EmbeddedLogConfig, partitions: u32, metrics: LogMetrics) -> Self {
        Self { vfs, config, partitions, metrics, closed: OnceLock::new() }
    }

    /// Returns the failure that closed the log.
    pub(super) fn failure(&self) -> Option<LogError> {
        self.closed.get().map(|reason| LogError::Closed(Arc::clone(reason)))
    }

    /// Closes the log to writes for good: after a failed write or sync nobody knows what is on the disk, and a second
    /// sync would call pages durable that the kernel has given up on.
    pub(super) fn fail(&self, reason: String) -> LogError {
        let first = self.closed.set(reason.as_str().into()).is_ok();
        if first {
            tracing::error!(reason, "log closed to writes: mend the disk, then restart");
            self.metrics.failed.set(1);
        }
        self.failure().unwrap_or_else(|| LogError::Closed(reason.into()))
    }
}

/// The two handles of a segment that was just made.
#[derive(Debug)]
pub(super) struct NewSegment {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Box<dyn VfsFile>,
}

impl Shared {
    /// Makes a segment: its header is durable and so is its name before anything is written to it. When the disk is
    /// full nothing of it stays.
    pub(super) fn create_segment(&self, dir: &Path, header: Header) -> Result<NewSegment, LogError> {
        let (p, base) = (header.partition, header.base);
        let path = Segment::path(dir, base);
        let what = format!("create {}", path.display());
        let mut file = self.vfs.open(&path, Open::CreateNew).map_err(|e| Self::space_or(p, &what, e))?;
        let made = file.append(&header.encode()).and_then(|()| self.vfs.open(&path, Open::Read));
        let reader = match made {
            Ok(reader) => reader,
            Err(e) => {
                let undone = self.vfs.remove(&path).and_then(|()| self.vfs.sync_dir(dir));
                undone.map_err(|e| self.fail(format!("remove {}: {e}", path.display())))?;
                return Err(Self::space_or(p, &what, e));
            }
        };
        file.sync()
            .and_then(|()| self.vfs.sync_dir(dir))
            .map_err(|e| self.fail(format!("sync {}: {e}", path.display())))?;
        let segment = Arc::new(Segment::new(header, path, reader, Extent::empty(base)));
        Ok(NewSegment { segment, file })
    }

    fn space_or(p: PartitionId, what: &str, e: io::Error) -> LogError {
        if is_full(&e) { LogError::NoSpace(p) } else { LogError::io(what, e) }
    }
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Owns the segment being written.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    segment: Arc<Segment>,
    file: Box<dyn VfsFile>,
    /// The next offset to give.
    next: Offset,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, partition: Arc<Partition>, active: NewSegment) -> Self {
        let next = active.segment.end();
        Self { shared, partition, segment: active.segment, file: active.file, next, buffer: Vec::new() }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(jobs) = self.partition.queue.take() {
            self.shared.metrics.queue_bytes(self.partition.id).set(0);
            self.commit(jobs);
            self.buffer.clear();
            self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    /// Does all jobs, in order. Each group that goes into one segment takes one write and one sync; after the first
    /// group that fails the rest is not tried.
    fn commit(&mut self, jobs: Vec<Job>) {
        let mut jobs = jobs.into_iter().peekable();
        let mut failed: Option<LogError> = self.shared.failure();
        while let Some(job) = jobs.next() {
            if let Some(e) = &failed {
                job.answer(Err(e.clone()));
                continue;
            }
            let mut group: Vec<Reply> = Vec::new();
            let outcome = match job {
                Job::Advance(to, reply) => {
                    group.push(reply);
                    self.advance(to)
                }
                Job::Append(record, reply) => {
                    let rolled = if self.fits(FRAME_OVERHEAD + record.len()) { Ok(()) } else { self.roll(self.next) };
                    group.push(reply);
                    self.add(&record, 0);
                    while rolled.is_ok()
                        && let Some(Job::Append(record, reply)) = jobs.next_if(|j| self.joins(j))
                    {
                        self.add(&record, group.len());
                        group.push(reply);
                    }
                    rolled.and_then(|()| self.write(group.len() as u64))
                }
            };
            self.buffer.clear();
            match outcome {
                Ok(first) => {
                    for (i, reply) in group.into_iter().enumerate() {
                        let _ = reply.send(Ok(Offset(first.0 + i as u64)));
                    }
                }
                Err(e) => {
                    for reply in group {
                        let _ = reply.send(Err(e.clone()));
                    }
                    failed = Some(e);
                }
            }
        }
    }

    fn add(&mut self, record: &[u8], nth: usize) {
        let offset = Offset(self.next.0 + nth as u64);
        encode_frame(&self.segment.header.marker, offset, nth as u32, record, &mut self.buffer);
    }

    /// Says whether `bytes` more fit into the segment; an empty one takes a frame of any size.
    fn fits(&self, bytes: usize) -> bool {
        let written = self.segment.extent().bytes + self.buffer.len() as u64;
        written == HEADER_BYTES as u64 || written + bytes as u64 <= self.shared.config.segment_bytes_max.bytes()
    }

    fn joins(&self, job: &Job) -> bool {
        matches!(job, Job::Append(..)) && self.fits(job.bytes())
    }

    /// Writes and syncs the buffer, which holds `frames` frames, and publishes the new end; returns the first offset.
    fn write(&mut self, frames: u64) -> Result<Offset, LogError> {
        let shared = Arc::clone(&self.shared);
        let before = self.segment.extent().bytes;
        let need = shared.config.free_bytes_min.bytes() + self.buffer.len() as u64;
        // Where the free space cannot be told, the write itself will.
        if shared.vfs.available(&self.partition.dir).is_ok_and(|free| free < need) {
            return Err(LogError::NoSpace(self.partition.id));
        }
        let path = || self.segment.path.display();
        if let Err(e) = self.file.append(&self.buffer) {
            if !is_full(&e) {
                return Err(shared.fail(format!("write {}: {e}", path())));
            }
            // Part of a frame may be there; a frame after it would still be found, but readers count on whole ones.
            return match cut_back(&mut *self.file, before) {
                Ok(()) => Err(LogError::NoSpace(self.partition.id)),
                Err(e) => Err(shared.fail(format!("cut {} to {before}: {e}", path()))),
            };
        }
        let timer = shared.metrics.sync_seconds.start_timer();
        self.file.sync().map_err(|e| shared.fail(format!("sync {}: {e}", path())))?;
        timer.observe_duration();
        self.publish(before, frames)
    }

    fn publish(&mut self, mut at: u64, frames: u64) -> Result<Offset, LogError> {
        let first = self.next;
        let mut extent = self.segment.extent();
        let mut rest = self.buffer.as_slice();
        for nth in 0..frames {
            let record = u32::from_le_bytes(rest[20..24].try_into().expect("four bytes")) as usize;
            let bytes = FRAME_OVERHEAD + record;
            extent.add(at, Offset(first.0 + nth), bytes as u64);
            at += bytes as u64;
            rest = &rest[bytes..];
        }
        drop(extent);
        self.next = Offset(first.0 + frames);
        self.partition.end.send_replace(self.next);
        self.shared.metrics.committed(self.partition.id, frames, self.buffer.len() as u64, self.next);
        self.shared.metrics.bytes(self.partition.id).set(self.partition.bytes() as i64);
        Ok(first)
    }

    /// Begins a new segment at `base`.
    fn roll(&mut self, base: Offset) -> Result<(), LogError> {
        let next = self.next;
        let header = Header::new(self.partition.id, self.shared.partitions, base);
        let header = Header { previous_end: next, previous_torn: next..next, ..header };
        let new = self.shared.create_segment(&self.partition.dir, header)?;
        self.partition.push(Arc::clone(&new.segment));
        (self.segment, self.file, self.next) = (new.segment, new.file, base);
        Ok(())
    }

    fn advance(&mut self, to: Offset) -> Result<Offset, LogError> {
        if self.next < to {
            self.roll(to)?;
            self.partition.end.send_replace(to);
        }
        Ok(self.next)
    }
}

/// Closes the log when the writer's thread ends, for whatever reason, so that nobody waits for it in vain.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) partition: Arc<Partition>,
    pub(super) shared: Arc<Shared>,
    /// Dropped last: who waits for the end sees the channel close.
    pub(super) _done: tokio::sync::watch::Sender<()>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail(format!("the writer of partition {} panicked", self.partition.id));
        }
        self.partition.queue.close();
        while let Some(jobs) = self.partition.queue.take() {
            let e = self.shared.failure().unwrap_or_else(|| LogError::Closed("its writer has stopped".into()));
            jobs.into_iter().for_each(|job| job.answer(Err(e.clone())));
        }
    }
}

fn cut_back(file: &mut dyn VfsFile, bytes: u64) -> io::Result<()> {
    file.truncate(bytes)?;
    let found = file.bytes()?;
    if found != bytes {
        return Err(io::Error::other(format!("it has {found} bytes")));
    }
    file.sync()
}
