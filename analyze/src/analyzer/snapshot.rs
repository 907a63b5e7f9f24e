//! The whole state as bytes (`docs/formats/snapshot-v1.md`) and back.

use forewarn_schemas::{Direction, Timestamp};

use super::Analyzer;
use crate::catalogue::{Catalogue, Entry};
use crate::codec::{Reader, State};
use crate::config::AnalyzeConfig;
use crate::error::AnalyzeError;
use crate::resource::Resource;

const MAGIC: &[u8; 4] = b"FWAN";
/// The version that this code writes, and the newest that it reads.
const VERSION: u16 = 1;

impl Analyzer {
    /// Returns the state as bytes. [`Analyzer::restore`] goes on from them as if nothing had happened: every later
    /// evaluation is the same to the bit.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024 + 1024 * self.resources.len());
        out.extend_from_slice(MAGIC);
        VERSION.put(&mut out);
        self.last_at.put(&mut out);
        self.unwatched.put(&mut out);
        let entries: Vec<String> = self.catalogue.entries().iter().map(identity).collect();
        entries.put(&mut out);
        self.nodes.put(&mut out);
        self.cells.put(&mut out);
        (self.resource_index.len() as u32).put(&mut out);
        for resource in self.resources.iter().flatten() {
            resource.put(&mut out);
        }
        self.dropped.put(&mut out);
        crc32c::crc32c(&out).put(&mut out);
        out
    }

    /// Goes on from a snapshot. The catalogue may have changed: what it no longer names is dropped, and reported as
    /// gone by the next evaluation; series that it newly names are found as they come by.
    ///
    /// # Errors
    /// The `Snapshot…` variants of [`AnalyzeError`]: not a snapshot, damaged, or written by a newer version.
    pub fn restore(catalogue: Catalogue, config: AnalyzeConfig, bytes: &[u8]) -> Result<Self, AnalyzeError> {
        if bytes.get(..4) != Some(MAGIC) {
            return Err(AnalyzeError::SnapshotMagic);
        }
        let mut head = Reader::new(&bytes[4..]);
        let version = u16::take(&mut head)?;
        if version > VERSION {
            return Err(AnalyzeError::SnapshotVersion(version, VERSION));
        }
        let (body, sum) = bytes.split_at(bytes.len().saturating_sub(4));
        if sum != crc32c::crc32c(body).to_le_bytes() {
            return Err(AnalyzeError::SnapshotChecksum);
        }
        let input = &mut Reader::new(body);
        input.take(6)?;
        let mut out = Self::new(catalogue, config);
        out.last_at = Timestamp::take(input)?;
        out.unwatched = u64::take(input)?;
        let entries = Vec::<String>::take(input)?;
        out.nodes = State::take(input)?;
        out.cells = State::take(input)?;
        let resources = Vec::<Resource>::take(input)?;
        out.dropped = State::take(input)?;
        if input.remaining() > 0 {
            return Err(input.bad("bytes left over"));
        }
        let (nodes, cells) = (out.nodes.len(), out.cells.len());
        let sound = |r: &mut Resource| {
            (r.node as usize) < nodes
                && r.cells.each().all(|c| (*c as usize) < cells)
                && (r.entry as usize) < entries.len()
        };
        let ids: Vec<String> = out.catalogue.entries().iter().map(identity).collect();
        let entry_at: Vec<Option<u32>> =
            entries.iter().map(|e| ids.iter().position(|i| i == e).map(|i| i as u32)).collect();
        for mut resource in resources {
            if !sound(&mut resource) {
                return Err(input.bad("a number that is out of range"));
            }
            let Some(entry) = entry_at[resource.entry as usize] else {
                out.dropped.push(resource.key);
                continue;
            };
            resource.entry = entry;
            out.resources.push(Some(Box::new(resource)));
        }
        out.renumber_cells(&entry_at);
        for resource in out.resources.iter_mut().flatten() {
            let entry = &out.catalogue.entries()[resource.entry as usize];
            resource.rebuild(entry, &out.cells);
        }
        out.index();
        Ok(out)
    }

    /// Gives cells the entry numbers of the present catalogue. One whose entry is gone keeps its place until the next
    /// sweep, under a number that no series leads to.
    fn renumber_cells(&mut self, entry_at: &[Option<u32>]) {
        for cell in &mut self.cells {
            let entry = entry_at.get(cell.key.entry as usize).copied();
            cell.key.entry = match entry {
                Some(Some(entry)) => entry,
                _ => u32::MAX,
            };
        }
    }
}

/// An entry as the snapshot names it: one whose direction changed is another entry, because its levels mean something
/// else.
fn identity(entry: &Entry) -> String {
    let direction = match entry.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    format!("{direction} {}", entry.id())
}
