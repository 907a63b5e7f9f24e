//! placeholder
use crate::{Entry, Open, Vfs, VfsFile};
use std::io;
use std::path::Path;
/// placeholder
#[derive(Debug, Clone, Default)]
pub struct SimVfs;
/// placeholder
#[derive(Debug)]
pub struct CrashStates;
/// placeholder
#[derive(Debug)]
pub enum Fault {}
impl Vfs for SimVfs {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<Entry>> {
        Ok(vec![])
    }
    fn open(&self, _: &Path, _: Open) -> io::Result<Box<dyn VfsFile>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn rename_no_replace(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn available(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
