//! The two roots that everything is read from, and the reading.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::Error;

/// Where procfs and sysfs are.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    proc_root: PathBuf,
    sys_root: PathBuf,
}

/// A file is never read beyond this; the largest honest one is `mountinfo` with thousands of mounts.
const FILE_BYTES_MAX: usize = 8 << 20;

impl Tree {
    pub(super) fn new(proc_root: &Path, sys_root: &Path) -> Self {
        Self { proc_root: proc_root.to_owned(), sys_root: sys_root.to_owned() }
    }

    pub(super) fn proc_root(&self) -> &Path {
        &self.proc_root
    }

    /// Returns the path of a file of procfs.
    pub(super) fn proc(&self, file: &str) -> PathBuf {
        self.proc_root.join(file)
    }

    /// Returns the path of a file of sysfs.
    pub(super) fn sys(&self, file: &str) -> PathBuf {
        self.sys_root.join(file)
    }
}

/// Reads a whole file as text. Bytes that are no UTF-8 are an error: the files read so hold ASCII.
pub(super) fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = read_bytes(path)?;
    String::from_utf8(bytes).map_err(|_| Error::malformed(path, "text"))
}

/// Reads a whole file as text, or `None` when there is none.
pub(super) fn read_text_if_there(path: &Path) -> Result<Option<String>, Error> {
    match read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.is_gone() => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads a whole file.
///
/// Not `std::fs::read`: the files of procfs say they are empty, which makes that one probe with tiny reads first.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = vec![0; 4096];
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io(path, e)),
        }
        if filled == bytes.len() {
            if filled >= FILE_BYTES_MAX {
                return Err(Error::malformed(path, "end within 8 MiB"));
            }
            bytes.resize(filled * 2, 0);
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
