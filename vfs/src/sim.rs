//! A file system in memory that knows what a crash may leave behind.
//!
//! [`SimVfs`] keeps, beside what a running process sees, what would survive a power cut: for each file the durable
//! content and the writes and cuts that were not synced, for each directory the durable names and the changes that
//! were not synced. [`SimVfs::crash_states`] enumerates what may be found afterwards:
//!
//! - an unsynced write is lost, kept, torn at any byte (the rest missing, zero, or garbage), or kept in some sectors
//!   and zero in others; a later write may survive without an earlier one, which leaves a hole of zeros;
//! - an unsynced cut happened or not; an unsynced creation, renaming or removal happened or not, each on its own.
//!   A renaming within one directory is atomic; across two it is a creation and a removal.
//!
//! This is weaker than what journalling file systems promise, on purpose: who survives it depends on
//! [`sync`](crate::VfsFile::sync) and [`sync_dir`](Vfs::sync_dir) alone.
//!
//! It also breaks on demand: [`SimVfs::fail`] (errors), [`SimVfs::set_capacity`] (a full disk), [`SimVfs::flip`] (bit
//! rot) and [`SimVfs::crash_after`] (the process is gone). After a failed sync the writes in question stay visible but
//! no later sync makes them durable, as on Linux, where their pages are marked clean.
//!
//! # Source
//! The model of legal states follows Pillai et al., *All File Systems Are Not Created Equal* (OSDI 2014); the failed
//! sync follows Rebello et al., *Can Applications Recover from fsync Failures?* (USENIX ATC 2020).

mod crash;
mod disk;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use crash::CrashStates;

use crate::{Entry, Open, Vfs, VfsFile};
use disk::{Call, Disk, InodeId};

/// The n-th call of a kind fails once with an I/O error (`EIO`), counted from 0 from the time it is armed.
///
/// A failing append has written half of its bytes; any other failing call has done nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Opening or creating a file.
    Open(u64),
    /// [`VfsFile::read_at`].
    Read(u64),
    /// [`VfsFile::append`].
    Append(u64),
    /// [`VfsFile::truncate`].
    Truncate(u64),
    /// [`VfsFile::sync`].
    Sync(u64),
    /// [`Vfs::rename_no_replace`].
    Rename(u64),
    /// [`Vfs::remove`].
    Remove(u64),
    /// [`Vfs::sync_dir`].
    SyncDir(u64),
    /// [`Vfs::list`].
    List(u64),
}

/// The simulated file system. Clones share the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimVfs {
    disk: Arc<Mutex<Disk>>,
}

impl SimVfs {
    /// Makes an empty file system of unlimited size.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what may be found after a crash now: every state when there are at most `max`, else `max` of them drawn
    /// with `seed`. The first has nothing that was not synced; one (the second when drawn) has all of it.
    ///
    /// Each state is a disk of its own with no faults armed, in which everything is durable.
    pub fn crash_states(&self, seed: u64, max: usize) -> CrashStates {
        CrashStates::new(self.lock().clone(), seed, max)
    }

    /// Arms a fault; any number can be armed.
    pub fn fail(&self, fault: Fault) {
        self.lock().arm(fault);
    }

    /// Limits the bytes of all files together; an append past the limit writes what fits and fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = Some(bytes);
    }

    /// Inverts the byte `at` of a file, on the disk and as read.
    ///
    /// # Panics
    /// When the file does not exist or is shorter: the test is wrong.
    pub fn flip(&self, path: impl AsRef<Path>, at: u64) {
        self.lock().flip(path.as_ref(), at as usize);
    }

    /// Returns how many calls so far changed something or made it durable (reads are not counted).
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// Lets the first `n` changing calls of the disk's life succeed (see [`SimVfs::ops`]) and every call after them,
    /// reads too, fail, as if the process were gone; then [`SimVfs::crash_states`] says what it left.
    pub fn crash_after(&self, n: u64) {
        self.lock().crash_after = Some(n);
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        // Every method leaves the disk whole before it can panic.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vfs for SimVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.lock().create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut disk = self.lock();
        disk.look(Call::List)?;
        disk.list(dir)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        let mut disk = self.lock();
        let inode = match how {
            Open::CreateNew => disk.create(path)?,
            Open::Read | Open::Append => {
                disk.look(Call::Open)?;
                disk.find(path)?
            }
        };
        Ok(Box::new(SimFile { disk: Arc::clone(&self.disk), inode, writable: how != Open::Read }))
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lock().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.lock().sync_dir(dir)
    }

    fn available(&self, _: &Path) -> io::Result<u64> {
        let disk = self.lock();
        disk.alive()?;
        Ok(disk.available())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: InodeId,
    writable: bool,
}

impl SimFile {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl VfsFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        self.lock().append(self.inode, bytes)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.lock();
        disk.look(Call::Read)?;
        let content = disk.content(self.inode);
        let rest = content.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn bytes(&self) -> io::Result<u64> {
        let disk = self.lock();
        disk.alive()?;
        Ok(disk.content(self.inode).len() as u64)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        self.lock().truncate(self.inode, bytes as usize)
    }

    fn sync(&self) -> io::Result<()> {
        self.lock().sync(self.inode)
    }
}

#[cfg(test)]
mod tests;
