//! What can go wrong while a file is read.

use std::io;
use std::path::{Path, PathBuf};

/// Why a part, or an object of it, could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was read and does not hold what it should.
    #[error("{}: no readable {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was sought in it.
        what: &'static str,
    },
}

impl Error {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn malformed(path: &Path, what: &'static str) -> Self {
        Self::Malformed { path: path.to_owned(), what }
    }

    /// Says whether the thing read is not there, or went away while it was read.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_gone(source))
    }

    /// Says whether the kernel has the file but not the function (pressure files with `psi=0`).
    pub(super) fn is_unsupported(&self) -> bool {
        let code = rustix::io::Errno::OPNOTSUPP.raw_os_error();
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(code))
    }
}

/// As [`Error::is_gone`]. A process that ends while it is read answers ESRCH, a removed cgroup ENODEV.
pub(super) fn is_gone(e: &io::Error) -> bool {
    use rustix::io::Errno;
    e.kind() == io::ErrorKind::NotFound
        || [Errno::SRCH, Errno::NODEV].iter().any(|gone| e.raw_os_error() == Some(gone.raw_os_error()))
}
