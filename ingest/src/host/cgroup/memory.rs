//! The memory controller's files.
//!
//! Source: Linux `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`.

use std::path::Path;

use crate::host::error::Error;
use crate::host::pressure::{Stall, stall};
use crate::host::text::field;
use crate::host::tree::{read_text, read_text_if_there};

/// Which files a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum MemoryFiles {
    V2,
    V1,
}

/// Limits of a group itself, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// Where the kernel kills.
    pub(super) hard: Option<u64>,
    /// Where it slows the group down.
    pub(super) high: Option<u64>,
}

/// Memory of a group, in bytes.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) used: u64,
    /// The smallest hard limit on the way up.
    pub(super) limit: Option<u64>,
    pub(super) high: Option<u64>,
}

/// What a limit did to a group so far; `None` where the kernel does not say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Harm {
    oom_kill: Option<u64>,
    max: Option<u64>,
    high: Option<u64>,
    stall: Option<Stall>,
}

impl Harm {
    /// Returns the metrics with their values.
    pub(super) fn metrics(&self) -> [(&'static str, Option<f64>); 5] {
        [
            ("host_cgroup_memory_oom_kill_total", self.oom_kill.map(|v| v as f64)),
            ("host_cgroup_memory_max_total", self.max.map(|v| v as f64)),
            ("host_cgroup_memory_high_total", self.high.map(|v| v as f64)),
            ("host_cgroup_memory_pressure_full_avg10_ratio", self.stall.map(|s| s.avg10_ratio)),
            ("host_cgroup_memory_pressure_full_seconds_total", self.stall.map(|s| s.total_seconds)),
        ]
    }
}

/// From here on a v1 limit is "none": the kernel shows the largest number, rounded down to a page.
const UNLIMITED: u64 = 1 << 60;

/// Reads a limit: a number, or `max`. A file that is not there limits nothing: the controller is off in this group.
pub(super) fn limit(path: &Path) -> Result<Option<u64>, Error> {
    let Some(text) = read_text_if_there(path)? else { return Ok(None) };
    match text.trim() {
        "max" => Ok(None),
        number => match number.parse() {
            Ok(limit) => Ok(Some(limit).filter(|l| *l < UNLIMITED)),
            Err(_) => Err(Error::malformed(path, "limit")),
        },
    }
}

/// Reads the limits of a group itself.
pub(super) fn limits(files: MemoryFiles, dir: &Path) -> Result<Limits, Error> {
    match files {
        MemoryFiles::V2 => Ok(Limits { hard: limit(&dir.join("memory.max"))?, high: limit(&dir.join("memory.high"))? }),
        MemoryFiles::V1 => Ok(Limits { hard: limit(&dir.join("memory.limit_in_bytes"))?, high: None }),
    }
}

/// Reads the memory that a group cannot give back.
pub(super) fn used(files: MemoryFiles, dir: &Path) -> Result<u64, Error> {
    let path = dir.join("memory.stat");
    let text = read_text(&path)?;
    used_by(files, &text).ok_or_else(|| Error::malformed(&path, "memory statistics"))
}

/// Reads from the text of a `memory.stat` the bytes that the group cannot give back. `None` when something is missing
/// or the text is cut short.
pub(crate) fn used_by(files: MemoryFiles, stat: &str) -> Option<u64> {
    if !stat.ends_with('\n') {
        return None;
    }
    match files {
        MemoryFiles::V2 => used_v2(stat),
        MemoryFiles::V1 => used_v1(stat),
    }
}

/// `anon + shmem + unevictable + (kernel - slab_reclaimable)`.
fn used_v2(stat: &str) -> Option<u64> {
    let get = |name| field(stat, name);
    let optional = |name| get(name).unwrap_or(0);
    let pinned = pinned(get("anon")?, get("shmem")?, get("unevictable")?, get("inactive_anon"), get("active_anon"));
    // The sum is there since 5.18; its parts were before.
    let kernel = get("kernel").unwrap_or_else(|| {
        let parts = ["kernel_stack", "pagetables", "percpu", "vmalloc", "slab_reclaimable", "slab_unreclaimable"];
        parts.iter().map(|p| optional(p)).fold(0, u64::saturating_add)
    });
    Some(pinned.saturating_add(kernel.saturating_sub(optional("slab_reclaimable"))))
}

/// As v2, of the whole subtree, without kernel memory: v1 does not say which part of it is reclaimable.
fn used_v1(stat: &str) -> Option<u64> {
    let get = |name| field(stat, name);
    // Older kernels count shmem as cache only.
    let shmem = get("total_shmem").unwrap_or(0);
    let [inactive, active] = ["total_inactive_anon", "total_active_anon"].map(get);
    Some(pinned(get("total_rss")?, shmem, get("total_unevictable")?, inactive, active))
}

/// Adds up memory that has no place to go: `anon + shmem + unevictable`, with locked pages counted once.
///
/// A page that a process has locked is in `anon` and in `unevictable`, and a JVM or a database that locks its heap
/// would seem to use twice what it does. The lists of pages tell them apart: what is not evictable is not on the
/// active or inactive list, so the lists and `unevictable` add up to all there is.
fn pinned(anon: u64, shmem: u64, unevictable: u64, inactive: Option<u64>, active: Option<u64>) -> u64 {
    let owned = anon.saturating_add(shmem);
    let only_unevictable = match (inactive, active) {
        (Some(i), Some(a)) => i.saturating_add(a).saturating_add(unevictable).saturating_sub(owned).min(unevictable),
        _ => unevictable,
    };
    owned.saturating_add(only_unevictable)
}

/// Reads what limits did to a group itself, not to groups below it: a kill would else be told once for each ancestor; `stalled` asks for its memory pressure too, which is how a high limit hurts.
pub(super) fn harm(files: MemoryFiles, dir: &Path, stalled: bool) -> Result<Harm, Error> {
    let read = |file: &str, names: [&'static str; 3]| -> Result<[Option<u64>; 3], Error> {
        let Some(text) = read_text_if_there(&dir.join(file))? else { return Ok([None; 3]) };
        Ok(names.map(|n| field(&text, n)))
    };
    match files {
        MemoryFiles::V2 => {
            let names = ["oom_kill", "max", "high"];
            let [oom_kill, max, high] = match read("memory.events.local", names)? {
                // Before Linux 5.2 there are only the sums over all groups below.
                [None, None, None] => read("memory.events", names)?,
                own => own,
            };
            let pressure = if stalled { pressure(&dir.join("memory.pressure"))? } else { None };
            Ok(Harm { oom_kill, max, high, stall: pressure })
        }
        MemoryFiles::V1 => {
            let [oom_kill, ..] = read("memory.oom_control", ["oom_kill", "", ""])?;
            Ok(Harm { oom_kill, max: limit(&dir.join("memory.failcnt"))?, high: None, stall: None })
        }
    }
}

fn pressure(path: &Path) -> Result<Option<Stall>, Error> {
    match read_text(path) {
        Ok(text) => stall(&text, "full").map(Some).ok_or_else(|| Error::malformed(path, "line of pressure")),
        Err(e) if e.is_gone() || e.is_unsupported() => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_cache_and_reclaimable_slab_are_left_out() {
        let stat = "anon 100\nfile 900000\nkernel 50\nshmem 10\nunevictable 5\nslab_reclaimable 20\n";
        assert_eq!(used_v2(stat), Some(100 + 10 + 5 + 30));
        let before_5_18 = "anon 100\nfile 9\nkernel_stack 4\npagetables 3\nshmem 10\nunevictable 5\nslab_reclaimable 20\nslab_unreclaimable 2\n";
        assert_eq!(used_v2(before_5_18), Some(100 + 10 + 5 + 4 + 3 + 2));
        let v1 = "cache 9\nrss 1\ntotal_cache 900\ntotal_rss 100\ntotal_shmem 10\ntotal_unevictable 5\n";
        assert_eq!(used_v1(v1), Some(115));
    }

    #[test]
    fn locked_memory_counts_once() {
        // 100 anonymous, 80 of them locked; 3 bytes of locked file pages; nothing else evictable but 20 and shmem.
        assert_eq!(pinned(100, 10, 83, Some(30), Some(0)), 113);
        // Nothing locked: the plain sum.
        assert_eq!(pinned(100, 10, 7, Some(60), Some(50)), 117);
        // Swap cache on the lists adds nothing beyond the plain sum.
        assert_eq!(pinned(100, 10, 7, Some(900), Some(0)), 117);
        assert_eq!(pinned(u64::MAX, 1, 1, Some(u64::MAX), Some(1)), u64::MAX);
    }

    #[test]
    fn a_statistic_that_is_missing_is_no_zero() {
        for missing in ["anon", "shmem", "unevictable"] {
            let stat = "anon 100\nkernel 50\nshmem 10\nunevictable 5\nslab_reclaimable 20\n".replace(missing, "other");
            assert_eq!(used_v2(&stat), None, "{missing}");
        }
        assert_eq!(used_v1(""), None);
    }
}
