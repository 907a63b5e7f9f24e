//! The data directory: its format, its lock, and where each part keeps its files.
//!
//! ```text
//! forewarn.json   format version, partitions and partition hash: fixed when the directory is made
//! lock            held (flock) by the process that writes here
//! log/            the segment log            (docs/formats/segment-v1.md)
//! blocks/         blocks and manifests       (docs/formats/block-v1.md, manifest-v1.md)
//! state.redb      the router's state         (docs/formats/state-log-v1.md)
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use forewarn_schemas::partition::PARTITION_HASH;
use forewarn_vfs::{StdVfs, Vfs};
use serde::{Deserialize, Serialize};

/// The format that this version writes, and the newest that it opens.
pub const FORMAT: u32 = 1;
/// Partitions of a new directory.
pub const PARTITIONS: u32 = 2;

/// Why a data directory cannot be used. Each message ends with what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process holds it.
    #[error("{0} is in use by another forewarn: stop that one, or choose another directory with --data")]
    Locked(PathBuf),
    /// A newer forewarn wrote it.
    #[error("{dir} has format {found}, newer than {FORMAT}: upgrade forewarn; nothing was changed")]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It was made with another partition hash.
    #[error("{dir} was made with the partition hash {found:?}, this forewarn has {PARTITION_HASH:?}")]
    Hash {
        /// The directory.
        dir: PathBuf,
        /// Its hash.
        found: String,
    },
    /// Its description cannot be read.
    #[error("{path}: {reason}; restore it from a copy, or move the directory away to begin anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is none.
    #[error("{0} is no data directory of forewarn: name one with --data")]
    Missing(PathBuf),
    /// The file system refused.
    #[error("{path}: {source}; forewarn must be able to write there, or choose another directory with --data")]
    Io {
        /// What was tried.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    format: u32,
    partitions: u32,
    partition_hash: String,
}

/// An open data directory; the lock is held as long as it lives.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    partitions: u32,
    _lock: File,
}

impl DataDir {
    /// Opens the directory to write, making it if need be.
    ///
    /// # Errors
    /// [`DataDirError`]; on every error the content is as it was.
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        let io = |path: &Path, source| DataDirError::Io { path: path.to_owned(), source };
        // Looked at before anything is written: a newer format must be left untouched.
        let known = describe(root)?;
        StdVfs.create_dir_all(root).map_err(|e| io(root, e))?;
        let lock_path = root.join("lock");
        let lock = OpenOptions::new().create(true).append(true).open(&lock_path).map_err(|e| io(&lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(root.to_owned())),
            Err(TryLockError::Error(e)) => return Err(io(&lock_path, e)),
        }
        // Read again under the lock, since another process may have made it meanwhile.
        let description = match known.map_or_else(|| describe(root), |d| Ok(Some(d)))? {
            Some(d) => d,
            None => {
                let fresh =
                    Description { format: FORMAT, partitions: PARTITIONS, partition_hash: PARTITION_HASH.into() };
                let path = root.join("forewarn.json");
                let text = serde_json::to_vec_pretty(&fresh).expect("a struct of numbers and text is JSON");
                StdVfs.publish(&path, &text).map_err(|e| io(&path, e))?;
                fresh
            }
        };
        Ok(Self { root: root.to_owned(), partitions: description.partitions, _lock: lock })
    }

    /// Opens a directory that must exist.
    ///
    /// # Errors
    /// [`DataDirError::Missing`] when it does not, and as [`DataDir::open`].
    pub fn open_existing(root: &Path) -> Result<Self, DataDirError> {
        match describe(root)? {
            Some(_) => Self::open(root),
            None => Err(DataDirError::Missing(root.to_owned())),
        }
    }

    /// Returns the number of partitions.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Returns where the log is.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Returns where the blocks are.
    pub fn blocks(&self) -> PathBuf {
        self.root.join("blocks")
    }

    /// Returns the file of the router's state.
    pub fn state(&self) -> PathBuf {
        self.root.join("state.redb")
    }
}

fn describe(root: &Path) -> Result<Option<Description>, DataDirError> {
    let path = root.join("forewarn.json");
    let bytes = match StdVfs.read(&path, 1 << 16) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataDirError::Io { path, source }),
    };
    // The version is read by itself first: a newer description may have another shape.
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let damaged = |e: serde_json::Error| DataDirError::Damaged { path: path.clone(), reason: e.to_string() };
    let Version { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if format > FORMAT {
        return Err(DataDirError::Newer { dir: root.to_owned(), found: format });
    }
    let description: Description = serde_json::from_slice(&bytes).map_err(damaged)?;
    if description.partition_hash != PARTITION_HASH {
        return Err(DataDirError::Hash { dir: root.to_owned(), found: description.partition_hash });
    }
    if !(1..=4096).contains(&description.partitions) {
        return Err(DataDirError::Damaged { path, reason: format!("{} partitions", description.partitions) });
    }
    Ok(Some(description))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_opened_again() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("a/b");
        assert!(matches!(DataDir::open_existing(&root), Err(DataDirError::Missing(_))));
        let first = DataDir::open(&root).unwrap();
        assert_eq!(first.partitions(), PARTITIONS);
        assert!(matches!(DataDir::open(&root), Err(DataDirError::Locked(_))));
        assert!(matches!(DataDir::open_existing(&root), Err(DataDirError::Locked(_))));
        drop(first);
        DataDir::open_existing(&root).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_and_nothing_changes() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("forewarn.json"), r#"{"format": 2, "shape": "unknown"}"#).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Newer { found: 2, .. }));
        assert!(error.to_string().contains("upgrade forewarn"));
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "not even a lock file was made");
    }

    #[test]
    fn a_damaged_description_is_named() {
        let temp = tempfile::tempdir().unwrap();
        for bad in ["", "{}", r#"{"format":1,"partitions":0,"partition_hash":"xxh64-0"}"#] {
            std::fs::write(temp.path().join("forewarn.json"), bad).unwrap();
            assert!(matches!(DataDir::open(temp.path()), Err(DataDirError::Damaged { .. })), "{bad}");
        }
        let other = r#"{"format":1,"partitions":2,"partition_hash":"md5"}"#;
        std::fs::write(temp.path().join("forewarn.json"), other).unwrap();
        assert!(matches!(DataDir::open(temp.path()), Err(DataDirError::Hash { .. })));
    }
}
