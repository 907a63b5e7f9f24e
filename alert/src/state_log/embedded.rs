//! Records in one redb file, synced on every write.
//!
//! - One process at a time: the engine locks the file.
//! - The format version is checked before anything is written, so a newer file is refused as it is.
//! - After a failed write the engine refuses to go on; the file is closed and opened anew by the next call, so a full
//!   disk heals when there is space again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableError};
use serde_json::Value;

use super::{Change, FORMAT_VERSION, StateLog, Watch, Watchers};
use crate::error::Error;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const FORMAT: &str = "format";

/// The engine's page cache. The router reads its state once, so little is enough.
const CACHE_BYTES: usize = 4 << 20;

/// A state log in one file.
#[derive(Debug)]
pub struct EmbeddedStateLog {
    path: PathBuf,
    db: Mutex<Option<Database>>,
    watchers: Watchers,
}

impl EmbeddedStateLog {
    /// Opens the file at `path`, or creates it, durably, in a directory that exists.
    ///
    /// # Errors
    /// [`Error::NewerFormat`], with the file unchanged; [`Error::Locked`] while another process has it;
    /// [`Error::Damaged`] when it is no state log or its checksums do not match; [`Error::Storage`] otherwise.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let db = open_file(path)?;
        Ok(Self { path: path.to_owned(), db: Mutex::new(Some(db)), watchers: Watchers::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.db.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs `call` on the open database, opening it anew after an earlier failure.
    fn with<T>(&self, call: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Error> {
        let mut slot = self.lock();
        let db = match slot.take() {
            Some(db) => db,
            None => open_file(&self.path)?,
        };
        let result = guarded(&self.path, || call(&db))?.map_err(|e| storage(&self.path, e));
        if result.is_ok() {
            *slot = Some(db);
        }
        result
    }
}

impl StateLog for EmbeddedStateLog {
    fn write(&self, changes: &[Change]) -> Result<(), Error> {
        self.with(|db| {
            // The default durability syncs the file before commit returns.
            let transaction = db.begin_write()?;
            {
                let mut records = transaction.open_table(RECORDS)?;
                for change in changes {
                    match change {
                        Change::Put { key, value } => {
                            records.insert(key.as_str(), value.to_string().as_bytes())?;
                        }
                        Change::Delete { key } => {
                            records.remove(key.as_str())?;
                        }
                    }
                }
            }
            transaction.commit()?;
            self.watchers.tell(changes);
            Ok(())
        })
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Value)>, Error> {
        self.with(|db| {
            let records = db.begin_read()?.open_table(RECORDS)?;
            let mut out = Vec::new();
            for entry in records.range(prefix..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                out.push((key.value().to_owned(), serde_json::from_slice(value.value()).unwrap_or(Value::Null)));
            }
            Ok(out)
        })
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.watchers.watch(prefix)
    }
}

fn open_file(path: &Path) -> Result<Database, Error> {
    let new = std::fs::metadata(path).map_or(true, |m| m.len() == 0);
    if !new {
        refuse_newer(path)?;
    }
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    let db = guarded(path, || builder.create(path))?.map_err(|e| open_error(path, e))?;
    let found = guarded(path, || mark(&db))?.map_err(|e| storage(path, e))?;
    if found > FORMAT_VERSION {
        return Err(newer(path, found));
    }
    if new {
        sync_parent(path).map_err(|e| storage(path, e))?;
    }
    Ok(db)
}

/// Reads the version without write access. A file that needs the engine's recovery after a crash cannot be opened so;
/// for that one the version is checked after recovery, which changes no record.
fn refuse_newer(path: &Path) -> Result<(), Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let found = catch_unwind(AssertUnwindSafe(|| {
        let db = builder.open_read_only(path).ok()?;
        let meta = db.begin_read().ok()?.open_table(META).ok()?;
        let found = meta.get(FORMAT).ok()??.value();
        Some(found)
    }));
    match found {
        Ok(Some(found)) if found > FORMAT_VERSION => Err(newer(path, found)),
        // Whatever else is wrong is found, and named, by the checked open that follows.
        _ => Ok(()),
    }
}

/// Writes the version into a file that has none and makes both tables; returns the version of the file.
fn mark(db: &Database) -> Result<u64, redb::Error> {
    match db.begin_read()?.open_table(META) {
        Ok(meta) => {
            if let Some(found) = meta.get(FORMAT)? {
                return Ok(found.value());
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(e) => return Err(e.into()),
    }
    let transaction = db.begin_write()?;
    transaction.open_table(META)?.insert(FORMAT, FORMAT_VERSION)?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    Ok(FORMAT_VERSION)
}

/// The engine may panic on a file that was changed behind its back; damaged bytes are an error here.
fn guarded<T>(path: &Path, call: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Error::Damaged {
        path: path.display().to_string(),
        why: "the storage engine gave up on it".into(),
    })
}

fn open_error(path: &Path, e: DatabaseError) -> Error {
    match e {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Error::Locked { path: path.display().to_string() }
        }
        e => storage(path, e),
    }
}

fn storage(path: &Path, e: impl Into<redb::Error>) -> Error {
    let path = path.display().to_string();
    match e.into() {
        redb::Error::Corrupted(why) => Error::Damaged { path, why },
        redb::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            Error::Damaged { path, why: e.to_string() }
        }
        redb::Error::Io(e) => Error::Storage { path, source: e.into() },
        e => Error::Storage { path, source: e.into() },
    }
}

fn newer(path: &Path, found: u64) -> Error {
    Error::NewerFormat { path: path.display().to_string(), found, known: FORMAT_VERSION }
}

/// Makes the name of a new file durable.
fn sync_parent(path: &Path) -> Result<(), StorageError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|d| d.sync_all()).map_err(StorageError::Io)
}
