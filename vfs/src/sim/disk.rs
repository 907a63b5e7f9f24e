//! The disk: what a process sees, what is durable, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::Fault;
use crate::Entry;

/// An index into [`Disk::inodes`].
pub(super) type InodeId = usize;

/// The kinds of call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Open,
    Read,
    Append,
    Truncate,
    Sync,
    Rename,
    Remove,
    SyncDir,
    List,
}

/// A change of a file's content.
#[derive(Debug, Clone)]
pub(super) enum FileChange {
    /// Bytes written at a position (the end of the file at that time).
    Write { at: usize, bytes: Vec<u8> },
    /// The file cut to a length.
    Cut(usize),
}

/// Whether a change can still be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not synced yet.
    Open,
    /// Its sync failed: no later one helps.
    Stuck,
    /// Durable, but kept as a change because one before it is not.
    Durable,
}

/// A file, whatever its names.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What a process reads.
    pub(super) live: Vec<u8>,
    /// What is on the disk for certain.
    pub(super) durable: Vec<u8>,
    /// What comes on top, in order.
    pub(super) changes: Vec<(FileChange, Fate)>,
}

/// A change of a directory's names.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Link(String, InodeId),
    Unlink(String),
    Rename(String, String, InodeId),
}

/// A directory; that it exists is durable.
#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    pub(super) live: BTreeMap<String, InodeId>,
    pub(super) durable: BTreeMap<String, InodeId>,
    pub(super) changes: Vec<NameChange>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) inodes: Vec<Inode>,
    pub(super) dirs: BTreeMap<PathBuf, Directory>,
    pub(super) ops: u64,
    pub(super) crash_after: Option<u64>,
    pub(super) capacity: Option<u64>,
    /// Kind, and how many calls of it pass before the one that fails.
    pub(super) faults: Vec<(Call, u64)>,
}

impl NameChange {
    /// Applies the change to a set of names.
    pub(super) fn apply(&self, names: &mut BTreeMap<String, InodeId>) {
        match self {
            Self::Link(name, inode) => _ = names.insert(name.clone(), *inode),
            Self::Unlink(name) => _ = names.remove(name),
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl FileChange {
    /// Applies the change in full; a write beyond the end leaves zeros between.
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Cut(len) => content.truncate(*len),
        }
    }
}

fn eio() -> io::Error {
    const EIO: i32 = 5;
    io::Error::from_raw_os_error(EIO)
}

fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(Path::new("")).to_owned(), name.to_owned()))
}

impl Disk {
    pub(super) fn arm(&mut self, fault: Fault) {
        self.faults.push(match fault {
            Fault::Open(n) => (Call::Open, n),
            Fault::Read(n) => (Call::Read, n),
            Fault::Append(n) => (Call::Append, n),
            Fault::Truncate(n) => (Call::Truncate, n),
            Fault::Sync(n) => (Call::Sync, n),
            Fault::Rename(n) => (Call::Rename, n),
            Fault::Remove(n) => (Call::Remove, n),
            Fault::SyncDir(n) => (Call::SyncDir, n),
            Fault::List(n) => (Call::List, n),
        });
    }

    /// Fails when the process is gone.
    pub(super) fn alive(&self) -> io::Result<()> {
        match self.crash_after {
            Some(n) if self.ops >= n => Err(eio()),
            _ => Ok(()),
        }
    }

    /// Begins a call that changes nothing.
    pub(super) fn look(&mut self, call: Call) -> io::Result<()> {
        self.alive()?;
        if self.fires(call) { Err(eio()) } else { Ok(()) }
    }

    /// Begins a call that changes something, and counts it.
    fn change(&mut self, call: Call) -> io::Result<()> {
        self.look(call)?;
        self.ops += 1;
        Ok(())
    }

    fn fires(&mut self, call: Call) -> bool {
        let mut fired = false;
        self.faults.retain_mut(|(kind, left)| {
            if *kind != call {
                return true;
            }
            if *left == 0 {
                fired = true;
                return false;
            }
            *left -= 1;
            true
        });
        fired
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        self.alive()?;
        if self.dirs.contains_key(dir) {
            return Ok(());
        }
        self.ops += 1;
        for ancestor in dir.ancestors() {
            self.dirs.entry(ancestor.to_owned()).or_default();
        }
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let names = &self.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?.live;
        let bytes = |inode: InodeId| self.inodes[inode].live.len() as u64;
        let mut out: Vec<Entry> =
            names.iter().map(|(n, i)| Entry { name: n.clone(), bytes: bytes(*i), is_dir: false }).collect();
        for child in self.dirs.keys().filter(|d| d.parent() == Some(dir)) {
            let name = child.file_name().unwrap_or_default().to_string_lossy().into_owned();
            out.push(Entry { name, bytes: 0, is_dir: true });
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    fn dir_mut(&mut self, dir: &Path) -> io::Result<&mut Directory> {
        // The root and the working directory are always there.
        if dir == Path::new("") || dir == Path::new("/") {
            return Ok(self.dirs.entry(dir.to_owned()).or_default());
        }
        self.dirs.get_mut(dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<InodeId> {
        let (dir, name) = split(path)?;
        let found = self.dirs.get(&dir).and_then(|d| d.live.get(&name));
        found.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn taken(&self, path: &Path) -> bool {
        self.find(path).is_ok() || self.dirs.contains_key(path)
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<InodeId> {
        let (dir, name) = split(path)?;
        if self.taken(path) {
            self.look(Call::Open)?;
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.dir_mut(&dir)?;
        self.change(Call::Open)?;
        let inode = self.inodes.len();
        self.inodes.push(Inode::default());
        self.rename_op(&dir, NameChange::Link(name, inode))?;
        Ok(inode)
    }

    fn rename_op(&mut self, dir: &Path, change: NameChange) -> io::Result<()> {
        let dir = self.dir_mut(dir)?;
        change.apply(&mut dir.live);
        dir.changes.push(change);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        if self.taken(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from)?, split(to)?);
        self.dir_mut(&to_dir)?;
        self.change(Call::Rename)?;
        if from_dir == to_dir {
            return self.rename_op(&to_dir, NameChange::Rename(from_name, to_name, inode));
        }
        self.rename_op(&to_dir, NameChange::Link(to_name, inode))?;
        self.rename_op(&from_dir, NameChange::Unlink(from_name))
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.alive()?;
        self.find(path)?;
        let (dir, name) = split(path)?;
        self.change(Call::Remove)?;
        self.rename_op(&dir, NameChange::Unlink(name))
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.dir_mut(dir)?;
        self.change(Call::SyncDir)?;
        let dir = self.dir_mut(dir)?;
        dir.durable = dir.live.clone();
        dir.changes.clear();
        Ok(())
    }

    pub(super) fn content(&self, inode: InodeId) -> &[u8] {
        &self.inodes[inode].live
    }

    pub(super) fn available(&self) -> u64 {
        let named: BTreeSet<InodeId> = self.dirs.values().flat_map(|d| d.live.values().copied()).collect();
        let used: usize = named.into_iter().map(|i| self.inodes[i].live.len()).sum();
        self.capacity.map_or(u64::MAX, |c| c.saturating_sub(used as u64))
    }

    pub(super) fn append(&mut self, inode: InodeId, bytes: &[u8]) -> io::Result<()> {
        self.alive()?;
        self.ops += 1;
        let (done, error) = if self.fires(Call::Append) {
            (bytes.len() / 2, Some(eio()))
        } else if self.available() < bytes.len() as u64 {
            (self.available() as usize, Some(io::ErrorKind::StorageFull.into()))
        } else {
            (bytes.len(), None)
        };
        let file = &mut self.inodes[inode];
        let change = FileChange::Write { at: file.live.len(), bytes: bytes[..done].to_vec() };
        file.live.extend_from_slice(&bytes[..done]);
        if done > 0 {
            file.changes.push((change, Fate::Open));
        }
        error.map_or(Ok(()), Err)
    }

    pub(super) fn truncate(&mut self, inode: InodeId, len: usize) -> io::Result<()> {
        if len > self.inodes[inode].live.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.change(Call::Truncate)?;
        let file = &mut self.inodes[inode];
        if len < file.live.len() {
            file.live.truncate(len);
            file.changes.push((FileChange::Cut(len), Fate::Open));
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: InodeId) -> io::Result<()> {
        self.alive()?;
        let started = self.change(Call::Sync);
        let file = &mut self.inodes[inode];
        let to = if started.is_ok() { Fate::Durable } else { Fate::Stuck };
        for (_, fate) in file.changes.iter_mut().filter(|(_, f)| *f == Fate::Open) {
            *fate = to;
        }
        let folded = file.changes.iter().take_while(|(_, f)| *f == Fate::Durable).count();
        for (change, _) in file.changes.drain(..folded) {
            change.apply(&mut file.durable);
        }
        started
    }

    pub(super) fn flip(&mut self, path: &Path, at: usize) {
        let inode = self.find(path).expect("a file to flip a byte of");
        let file = &mut self.inodes[inode];
        file.live[at] ^= 0xff;
        if let Some(b) = file.durable.get_mut(at) {
            *b ^= 0xff;
        }
        for (change, _) in &mut file.changes {
            if let FileChange::Write { at: start, bytes } = change
                && let Some(b) = at.checked_sub(*start).and_then(|i| bytes.get_mut(i))
            {
                *b ^= 0xff;
            }
        }
    }
}
