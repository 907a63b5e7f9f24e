//! Objects as files of a directory, through [`Vfs`].

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forewarn_vfs::{Open, Vfs};

use super::{BlockStore, Object, PARTIAL, check_path};
use crate::error::StoreError;
use crate::lock::lock;

/// Objects below one directory. An object is written beside its place, synced, renamed without replacing, and its
/// directory synced.
#[derive(Debug)]
pub struct LocalBlocks {
    vfs: Arc<dyn Vfs>,
    root: PathBuf,
    /// Directories known to exist durably.
    made: Mutex<HashSet<PathBuf>>,
}

impl LocalBlocks {
    /// Opens a directory; it is created by the first write.
    pub fn new(vfs: Arc<dyn Vfs>, root: impl Into<PathBuf>) -> Self {
        Self { vfs, root: root.into(), made: Mutex::default() }
    }

    fn file(&self, path: &str) -> Result<PathBuf, StoreError> {
        check_path(path)?;
        Ok(self.root.join(path))
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        if !lock(&self.made).contains(dir) {
            self.vfs.create_dir_all(dir)?;
            lock(&self.made).insert(dir.to_owned());
        }
        Ok(())
    }

    /// Publishes a file; tells failures that changed nothing from the one that leaves it unknown.
    fn publish(&self, path: &str, content: &[u8]) -> Result<(), StoreError> {
        let file = self.file(path)?;
        let dir = file.parent().ok_or_else(|| StoreError::Path(path.into()))?;
        let mut temp = file.clone().into_os_string();
        temp.push(PARTIAL);
        let temp = PathBuf::from(temp);
        let staged = (|| {
            self.make_dir(dir)?;
            match self.vfs.remove(&temp) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut out = self.vfs.open(&temp, Open::CreateNew)?;
            out.append(content)?;
            out.sync()?;
            self.vfs.rename_no_replace(&temp, &file)
        })();
        if let Err(e) = staged {
            // The temporary file is worth nothing; why it came to that is what the caller must hear.
            let _ = self.vfs.remove(&temp);
            return Err(StoreError::io(path, e));
        }
        self.vfs.sync_dir(dir).map_err(|source| StoreError::Uncertain { path: path.into(), source })
    }

    fn walk(&self, dir: &Path, name: &str, found: &mut dyn FnMut(String, u64)) -> Result<(), StoreError> {
        let entries = match self.vfs.list(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| StoreError::io(name, e))?,
        };
        for entry in entries {
            let path = if name.is_empty() { entry.name.clone() } else { format!("{name}/{}", entry.name) };
            if entry.is_dir {
                self.walk(&dir.join(&entry.name), &path, found)?;
            } else {
                found(path, entry.bytes);
            }
        }
        Ok(())
    }

    fn below(&self, dir: &str) -> Result<PathBuf, StoreError> {
        if dir.is_empty() { Ok(self.root.clone()) } else { self.file(dir) }
    }
}

impl BlockStore for LocalBlocks {
    fn put(&self, path: &str, content: &[u8]) -> Result<(), StoreError> {
        match self.publish(path, content) {
            Err(StoreError::AlreadyExists(_)) => {}
            other => return other,
        }
        if self.bytes(path)? != content.len() as u64 || self.get_all(path)? != content {
            return Err(StoreError::AlreadyExists(path.into()));
        }
        let file = self.file(path)?;
        let dir = file.parent().ok_or_else(|| StoreError::Path(path.into()))?;
        self.vfs.sync_dir(dir).map_err(|source| StoreError::Uncertain { path: path.into(), source })
    }

    fn put_if_absent(&self, path: &str, content: &[u8]) -> Result<(), StoreError> {
        self.publish(path, content)
    }

    fn get(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let file = self.vfs.open(&self.file(path)?, Open::Read).map_err(|e| StoreError::io(path, e))?;
        let have = file.bytes().map_err(|e| StoreError::io(path, e))?;
        // Checked before the allocation: the range may come from damaged bytes.
        if range.start > range.end || range.end > have {
            return Err(StoreError::damaged(path, format!("bytes {range:?} of {have}")));
        }
        let mut out = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut out, range.start).map_err(|e| StoreError::io(path, e))?;
        Ok(out.into())
    }

    fn bytes(&self, path: &str) -> Result<u64, StoreError> {
        let file = self.vfs.open(&self.file(path)?, Open::Read).map_err(|e| StoreError::io(path, e))?;
        file.bytes().map_err(|e| StoreError::io(path, e))
    }

    fn list(&self, dir: &str) -> Result<Vec<Object>, StoreError> {
        let mut out = Vec::new();
        self.walk(&self.below(dir)?, dir, &mut |path, bytes| {
            if !path.ends_with(PARTIAL) {
                out.push(Object { path, bytes });
            }
        })?;
        out.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(out)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.vfs.remove(&self.file(path)?) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| StoreError::io(path, e)),
        }
    }

    fn discard_partial(&self, dir: &str) -> Result<usize, StoreError> {
        let mut partial = Vec::new();
        self.walk(&self.below(dir)?, dir, &mut |path, _| {
            if path.ends_with(PARTIAL) {
                partial.push(path);
            }
        })?;
        for path in &partial {
            self.vfs.remove(&self.root.join(path)).map_err(|e| StoreError::io(path, e))?;
        }
        Ok(partial.len())
    }
}
