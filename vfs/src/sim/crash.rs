//! What may be found after a crash.

use std::sync::{Arc, Mutex};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::SimVfs;
use super::disk::{Directory, Disk, Fate, FileChange, Inode, InodeId};

/// Sectors are the unit that a disk writes whole.
const SECTOR: usize = 512;

/// Iterates over disks as they may be found after a crash; see [`SimVfs::crash_states`].
#[derive(Debug)]
pub struct CrashStates {
    disk: Disk,
    /// The number of ways in which each change can end: those of files, then those of names.
    ways: Vec<u128>,
    /// Indices of the files in `disk` that can be found at all.
    files: Vec<InodeId>,
    total: u128,
    max: usize,
    given: usize,
    /// Exhaustive: the next state, one digit per change.
    digits: Vec<u128>,
    rng: SmallRng,
}

impl CrashStates {
    pub(super) fn new(disk: Disk, seed: u64, max: usize) -> Self {
        let mut files: Vec<InodeId> = Vec::new();
        for dir in disk.dirs.values() {
            files.extend(dir.durable.values());
            for change in &dir.changes {
                let mut names = std::collections::BTreeMap::new();
                change.apply(&mut names);
                files.extend(names.values());
            }
        }
        files.sort_unstable();
        files.dedup();
        let open = |f: &InodeId| disk.inodes[*f].changes.iter().filter(|(_, fate)| *fate != Fate::Durable);
        let mut ways: Vec<u128> = files.iter().flat_map(|f| open(f).map(|(change, _)| ways_of(change))).collect();
        ways.extend(disk.dirs.values().flat_map(|d| d.changes.iter().map(|_| 2)));
        let total = ways.iter().try_fold(1u128, |n, w| n.checked_mul(*w)).unwrap_or(u128::MAX);
        let digits = vec![0; ways.len()];
        Self { disk, ways, files, total, max, given: 0, digits, rng: SmallRng::seed_from_u64(seed) }
    }

    /// Says whether every state is given, not a sample of them.
    pub fn is_exhaustive(&self) -> bool {
        self.total <= self.max as u128
    }

    /// Chooses how each change ends.
    fn choose(&mut self) -> Vec<Way> {
        if self.is_exhaustive() {
            let now = self.digits.iter().map(|d| Way::Number(*d)).collect();
            for (digit, ways) in self.digits.iter_mut().zip(&self.ways) {
                *digit += 1;
                if *digit < *ways {
                    break;
                }
                *digit = 0;
            }
            return now;
        }
        match self.given {
            0 => vec![Way::Number(0); self.ways.len()],
            1 => vec![Way::Number(1); self.ways.len()],
            _ => {
                // Mostly lost, evenly mixed, or mostly kept: a fair coin alone would hardly ever keep all but one.
                let keep = [0.1, 0.4, 0.8][self.rng.random_range(0..3)];
                let tear = [0.05, 0.4][self.rng.random_range(0..2)];
                self.ways.iter().map(|ways| draw(&mut self.rng, *ways, keep, tear)).collect()
            }
        }
    }

    fn state(&mut self, chosen: Vec<Way>) -> SimVfs {
        let mut chosen = chosen.into_iter();
        let mut inodes = vec![Inode::default(); self.disk.inodes.len()];
        for f in &self.files {
            let before = &self.disk.inodes[*f];
            let mut content = before.durable.clone();
            for (change, fate) in &before.changes {
                if *fate == Fate::Durable {
                    change.apply(&mut content);
                } else if let Some(way) = chosen.next() {
                    end(change, way, &mut self.rng, &mut content);
                }
            }
            inodes[*f] = Inode { live: content.clone(), durable: content, changes: Vec::new() };
        }
        let mut dirs = std::collections::BTreeMap::new();
        for (path, dir) in &self.disk.dirs {
            let mut names = dir.durable.clone();
            for change in &dir.changes {
                if matches!(chosen.next(), Some(Way::Number(1..))) {
                    change.apply(&mut names);
                }
            }
            dirs.insert(path.clone(), Directory { live: names.clone(), durable: names, changes: Vec::new() });
        }
        let disk = Disk { inodes, dirs, capacity: self.disk.capacity, ..Disk::default() };
        SimVfs { disk: Arc::new(Mutex::new(disk)) }
    }
}

impl Iterator for CrashStates {
    type Item = SimVfs;

    fn next(&mut self) -> Option<SimVfs> {
        if self.given >= self.max || self.given as u128 >= self.total {
            return None;
        }
        let chosen = self.choose();
        self.given += 1;
        Some(self.state(chosen))
    }
}

/// How one change ended.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// As [`ways_of`] numbers them: 0 lost, 1 kept, then torn ones.
    Number(u128),
    /// A write torn at a random place.
    Torn,
}

/// Counts the ways in which a change can end. Of a write of n bytes over s sectors: lost, kept, n-1 prefixes alone, n
/// prefixes with zeros after, n with garbage after, and 2^s - 2 sets of sectors with zeros between.
fn ways_of(change: &FileChange) -> u128 {
    match change {
        FileChange::Cut(_) => 2,
        FileChange::Write { at, bytes } => {
            let n = bytes.len() as u128;
            let masks = match sectors(*at, bytes.len()) {
                0 | 1 => 0,
                s @ 2..=100 => (1u128 << s) - 2,
                _ => u128::MAX >> 1,
            };
            1 + 3 * n + masks
        }
    }
}

fn sectors(at: usize, len: usize) -> usize {
    (at + len).div_ceil(SECTOR) - at / SECTOR
}

fn draw(rng: &mut SmallRng, ways: u128, keep: f64, tear: f64) -> Way {
    if ways > 2 && rng.random_bool(tear) { Way::Torn } else { Way::Number(u128::from(rng.random_bool(keep))) }
}

/// Applies a change to what is on the disk, in the way it ended.
fn end(change: &FileChange, way: Way, rng: &mut SmallRng, content: &mut Vec<u8>) {
    let FileChange::Write { at, bytes } = change else {
        if matches!(way, Way::Number(1..)) {
            change.apply(content);
        }
        return;
    };
    let (at, n) = (*at, bytes.len());
    let spans_sectors = sectors(at, n) > 1;
    let kept = match way {
        Way::Number(0) => return,
        Way::Number(1) => bytes.clone(),
        Way::Number(number) => {
            let i = (number - 2) as usize;
            match i {
                _ if number - 2 >= (3 * n - 1) as u128 => {
                    let mask = number - 2 - (3 * n - 1) as u128 + 1;
                    only_sectors(at, bytes, |s| mask >> s & 1 == 1)
                }
                _ if i < n - 1 => bytes[..=i].to_vec(),
                _ if i < 2 * n - 1 => torn(bytes, i + 1 - n, None),
                _ => torn(bytes, i + 1 - 2 * n, Some(rng)),
            }
        }
        Way::Torn => {
            let mut keep = rng.random_range(0..n);
            if spans_sectors && rng.random_bool(0.5) {
                // The cut lies at a sector's edge.
                keep = ((at + keep) / SECTOR * SECTOR).saturating_sub(at);
            }
            match rng.random_range(0..4) {
                0 => bytes[..keep].to_vec(),
                1 => torn(bytes, keep, None),
                2 if spans_sectors => {
                    let mask: u128 = rng.random();
                    only_sectors(at, bytes, |s| mask >> (s % 128) & 1 == 1)
                }
                _ => torn(bytes, keep, Some(rng)),
            }
        }
    };
    FileChange::Write { at, bytes: kept }.apply(content);
}

/// Keeps a prefix; the rest has the length it should but is zero, or garbage when there is a generator.
fn torn(bytes: &[u8], keep: usize, garbage: Option<&mut SmallRng>) -> Vec<u8> {
    let mut out = bytes.to_vec();
    match garbage {
        Some(rng) => rng.fill(&mut out[keep..]),
        None => out[keep..].fill(0),
    }
    out
}

fn only_sectors(at: usize, bytes: &[u8], keep: impl Fn(usize) -> bool) -> Vec<u8> {
    let first = at / SECTOR;
    bytes.iter().enumerate().map(|(i, b)| if keep((at + i) / SECTOR - first) { *b } else { 0 }).collect()
}
