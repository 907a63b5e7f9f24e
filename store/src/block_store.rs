//! Where blocks and manifests are kept: named, immutable objects.
//!
//! Names are relative paths of plain components (`p0/blocks/x.samples.parquet`). An object appears whole or not at all
//! and never changes. [`BlockStore::put_if_absent`] is the fence: of two writers that create the same name one succeeds.

mod local;
mod memory;

use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;

pub use local::LocalBlocks;
pub use memory::MemoryBlocks;

use crate::error::StoreError;

/// An object's name and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A place for immutable objects.
///
/// After `put` or `put_if_absent` returned, the object survives a crash of the machine and is visible to every reader.
/// An error other than [`StoreError::Uncertain`] means that nothing was published, so trying again is safe. Every
/// method may block. A name that is none is [`StoreError::Path`].
pub trait BlockStore: Send + Sync + Debug {
    /// Creates an object. Putting the same content again succeeds; other content is [`StoreError::AlreadyExists`] and
    /// changes nothing.
    fn put(&self, path: &str, content: &[u8]) -> Result<(), StoreError>;
    /// Creates an object unless the name is taken: then [`StoreError::AlreadyExists`], whatever the content.
    fn put_if_absent(&self, path: &str, content: &[u8]) -> Result<(), StoreError>;
    /// Reads a range of bytes; [`StoreError::NotFound`] without the object, [`StoreError::Damaged`] when it is shorter.
    fn get(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError>;
    /// Returns an object's size.
    fn bytes(&self, path: &str) -> Result<u64, StoreError>;
    /// Lists the objects below a directory, `""` for all, sorted by name. Unfinished puts are not shown.
    fn list(&self, dir: &str) -> Result<Vec<Object>, StoreError>;
    /// Removes an object; succeeds when it is not there.
    fn delete(&self, path: &str) -> Result<(), StoreError>;
    /// Removes what interrupted puts left below a directory and returns how much it was.
    fn discard_partial(&self, dir: &str) -> Result<usize, StoreError>;

    /// Reads a whole object.
    fn get_all(&self, path: &str) -> Result<Bytes, StoreError> {
        self.get(path, 0..self.bytes(path)?)
    }
}

/// The suffix of unfinished puts, which no object may have.
const PARTIAL: &str = ".tmp";

/// Checks a name: plain components of letters, digits and `-_.`, none of them `.` or `..`, and not that of a partial.
fn check_path(path: &str) -> Result<(), StoreError> {
    let plain = |c: &str| {
        !c.is_empty() && c != "." && c != ".." && c.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if path.split('/').all(plain) && !path.ends_with(PARTIAL) { Ok(()) } else { Err(StoreError::Path(path.into())) }
}
