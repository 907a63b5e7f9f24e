//! The file system as forewarn's durable parts see it.
//!
//! The segment log (`forewarn-ingest`) and the block store (`forewarn-store`) do all their file work through [`Vfs`],
//! so that one implementation, [`SimVfs`], can enumerate what a crash may leave behind: writes that were not synced
//! are torn, reordered or lost, and so are names whose directory was not synced. [`StdVfs`] is the real one.
//!
//! It is a crate of its own because both users need it and neither may depend on the other.
//! Deliberately absent: anything that only one of them needs, and asynchronous I/O (file work leaves the runtime).

mod sim;
mod std_fs;

use std::fmt::Debug;
use std::io;
use std::path::Path;

pub use sim::{CrashStates, Fault, SimVfs};
pub use std_fs::StdVfs;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and to append to.
    Append,
    /// A new file, to read and to append to; `AlreadyExists` if the name is taken.
    CreateNew,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name within the directory.
    pub name: String,
    /// Size in bytes; 0 for a directory.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A file system.
///
/// Durability: data is durable after [`VfsFile::sync`] returned, a name (created, renamed, removed) after
/// [`Vfs::sync_dir`] of its directory returned. Before that a crash may leave any mixture. After a failed sync the
/// state of the file is unknown and the caller must not sync it again but reopen and verify.
pub trait Vfs: Send + Sync + Debug {
    /// Creates a directory and its parents, durably; succeeds when it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Lists a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>>;
    /// Renames a file; `AlreadyExists`, with nothing changed, if `to` exists.
    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Returns the bytes that an ordinary user can still write there.
    fn available(&self, dir: &Path) -> io::Result<u64>;

    /// Reads a whole file of at most `bytes_max` bytes; `InvalidData` if it is larger.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let bytes = file.bytes()?;
        if bytes > bytes_max {
            let message = format!("{}: {bytes} bytes are more than {bytes_max}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut out = vec![0; bytes as usize];
        file.read_exact_at(&mut out, 0)?;
        Ok(out)
    }

    /// Publishes a file: writes `path.tmp`, syncs it, renames it without replacing, syncs the directory.
    /// `AlreadyExists`, with `path` unchanged, if it exists. A left-over one of an earlier crash is replaced.
    fn publish(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let mut temp = path.as_os_str().to_owned();
        temp.push(".tmp");
        let temp = Path::new(&temp);
        match self.remove(temp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = self.open(temp, Open::CreateNew)?;
        file.append(content)?;
        file.sync()?;
        drop(file);
        let renamed = self.rename_no_replace(temp, path);
        if renamed.is_err() {
            // The temporary file is worth nothing; that the rename failed is what the caller must hear.
            let _ = self.remove(temp);
        }
        renamed?;
        self.sync_dir(dir)
    }
}

/// An open file.
pub trait VfsFile: Send + Sync + Debug {
    /// Writes all of `bytes` at the end. On an error some of them may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Reads up to `into.len()` bytes at `offset`; 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Returns the size in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Cuts the file to `bytes`, which is at most its size.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Makes all that was written or cut durable.
    fn sync(&self) -> io::Result<()>;

    /// Fills `into` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.read_at(&mut into[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}
