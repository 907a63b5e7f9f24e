//! `statvfs` that cannot hang its caller: one thread per mount point, asked once per cycle, waited for until a deadline.
//!
//! A mount whose file system is dead holds its own thread until the kernel gives it back, and is not asked again
//! before. Threads stay from cycle to cycle, so that a host that has run out of process ids is still watched, and
//! their number is bounded by [`WORKERS_MAX`].

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long one answer may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// Threads at most, those that hang included.
pub(super) const WORKERS_MAX: usize = 256;
/// `statvfs` needs next to nothing.
const STACK_BYTES: usize = 128 << 10;

/// The call itself, so that tests can have their own.
pub(super) type StatVfs = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// Space of a file system, in bytes, and its inodes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Space {
    pub(super) size: u64,
    pub(super) free: u64,
    /// What is free to those who are not root.
    pub(super) available: u64,
    pub(super) files: u64,
    pub(super) files_free: u64,
}

/// Returns the real `statvfs`.
pub(super) fn of_the_system() -> StatVfs {
    Arc::new(|path| {
        let s = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(s.f_frsize);
        Ok(Space {
            size: bytes(s.f_blocks),
            free: bytes(s.f_bfree),
            available: bytes(s.f_bavail),
            files: s.f_files,
            files_free: s.f_ffree,
        })
    })
}

/// What became of a mount in this cycle.
#[derive(Debug)]
pub(super) enum Answer {
    /// It answered.
    Space(io::Result<Space>),
    /// It has not answered for longer than [`DEADLINE`].
    Stalled,
    /// It has not answered yet, and still may in time.
    Pending,
}

/// The threads, and what they were asked.
pub(super) struct Prober {
    statvfs: StatVfs,
    workers: HashMap<PathBuf, Worker>,
    answers: HashMap<PathBuf, io::Result<Space>>,
    sender: Sender<(PathBuf, io::Result<Space>)>,
    receiver: Receiver<(PathBuf, io::Result<Space>)>,
}

/// The thread ends when `ask` is dropped and its call has come back.
struct Worker {
    ask: Sender<()>,
    asked: Option<Instant>,
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Prober {
    pub(super) fn new(statvfs: StatVfs) -> Self {
        let (sender, receiver) = channel();
        Self { statvfs, workers: HashMap::new(), answers: HashMap::new(), sender, receiver }
    }

    /// Asks every mount point that is not still at an earlier question, and returns at once. Threads of mount points
    /// that are not named any more end.
    pub(super) fn ask<'p>(&mut self, points: impl Iterator<Item = &'p Path> + Clone) {
        // Answers that came after their cycle only say that the thread is free again.
        while let Ok((point, _)) = self.receiver.try_recv() {
            self.free(&point);
        }
        self.answers.clear();
        let wanted: std::collections::HashSet<&Path> = points.clone().collect();
        self.workers.retain(|point, worker| worker.asked.is_some() || wanted.contains(point.as_path()));
        for point in points {
            if let Err(e) = self.ask_one(point) {
                self.answers.insert(point.to_owned(), Err(e));
            }
        }
    }

    fn ask_one(&mut self, point: &Path) -> io::Result<()> {
        if !self.workers.contains_key(point) {
            if self.workers.len() >= WORKERS_MAX {
                return Err(io::Error::other("too many mounts hang or are watched"));
            }
            let worker = self.spawn(point.to_owned())?;
            self.workers.insert(point.to_owned(), worker);
        }
        if let Some(worker) = self.workers.get_mut(point)
            && worker.asked.is_none()
        {
            worker.asked = Some(Instant::now());
            if worker.ask.send(()).is_err() {
                self.workers.remove(point);
                return Err(io::Error::other("the thread of the mount is gone"));
            }
        }
        Ok(())
    }

    fn spawn(&self, point: PathBuf) -> io::Result<Worker> {
        let (ask, asked) = channel();
        let (statvfs, sender) = (Arc::clone(&self.statvfs), self.sender.clone());
        std::thread::Builder::new().name("host-statvfs".into()).stack_size(STACK_BYTES).spawn(move || {
            for () in asked {
                if sender.send((point.clone(), statvfs(&point))).is_err() {
                    return;
                }
            }
        })?;
        Ok(Worker { ask, asked: None })
    }

    /// Waits until every mount has answered or is past its deadline, at most for `patience`.
    pub(super) fn wait(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let now = Instant::now();
            let due = self.workers.values().filter_map(|w| w.asked).map(|asked| asked + DEADLINE).filter(|d| *d > now);
            let Some(until) = due.max() else { return };
            let left = until.min(end).saturating_duration_since(now);
            let Ok((point, answer)) = self.receiver.recv_timeout(left) else {
                if Instant::now() >= end {
                    return;
                }
                continue;
            };
            self.free(&point);
            self.answers.insert(point, answer);
        }
    }

    /// Returns what became of a mount point that was asked.
    pub(super) fn answer(&mut self, point: &Path) -> Answer {
        if let Some(answer) = self.answers.remove(point) {
            return Answer::Space(answer);
        }
        match self.workers.get(point).and_then(|w| w.asked) {
            Some(asked) if asked.elapsed() >= DEADLINE => Answer::Stalled,
            _ => Answer::Pending,
        }
    }

    fn free(&mut self, point: &Path) {
        if let Some(worker) = self.workers.get_mut(point) {
            worker.asked = None;
        }
    }
}
