//! Memory and swap of the whole host.
//!
//! `limit` is what applications can have: all memory less the huge-page reserve, which MemAvailable does not count
//! either. The commit limit is one only when the kernel enforces it (`vm.overcommit_memory = 2`).

use super::collector::Part;
use super::error::Error;
use super::series::Out;
use super::text::{field, read_number};
use super::tree::{Tree, read_text, read_text_if_there};

#[derive(Debug)]
pub(super) struct Memory;

/// Memory in bytes.
#[derive(Debug, PartialEq)]
struct Meminfo {
    total: u64,
    available: u64,
    huge_pages: u64,
    swap_total: u64,
    swap_free: u64,
    commit_limit: u64,
    committed: u64,
}

impl Part for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn collect(&mut self, tree: &Tree, out: &mut Out<'_>) -> Result<(), Error> {
        let path = tree.proc("meminfo");
        let info = meminfo(&read_text(&path)?).ok_or_else(|| Error::malformed(&path, "memory totals"))?;
        let limit = info.total.saturating_sub(info.huge_pages);
        let available = info.available.saturating_add(reclaimable_arc(tree)?).min(limit);
        out.set("host_memory_total_bytes", info.total as f64);
        out.set("host_memory_available_bytes", available as f64);
        out.set("host_memory_limit_bytes", limit as f64);
        out.set("host_memory_used_bytes", (limit - available) as f64);
        out.set("host_swap_total_bytes", info.swap_total as f64);
        out.set("host_swap_used_bytes", info.swap_total.saturating_sub(info.swap_free) as f64);
        if read_number(&tree.proc("sys/vm/overcommit_memory"))? == 2 {
            out.set("host_memory_commit_limit_bytes", info.commit_limit as f64);
            out.set("host_memory_committed_bytes", info.committed as f64);
        }
        let path = tree.proc("vmstat");
        let vmstat = read_text(&path)?;
        let faults = field(&vmstat, "pgmajfault").ok_or_else(|| Error::malformed(&path, "pgmajfault"))?;
        out.set("host_memory_major_faults_total", faults as f64);
        // Kernels before 4.13 do not count their kills.
        if let Some(kills) = field(&vmstat, "oom_kill") {
            out.set("host_memory_oom_kill_total", kills as f64);
        }
        Ok(())
    }
}

/// Returns `None` when the file is cut short: its last line, or one that every kernel since 3.14 has, is not whole.
fn meminfo(text: &str) -> Option<Meminfo> {
    if !text.ends_with('\n') {
        return None;
    }
    let bytes = |name| field(text, name).map(|kib| kib.saturating_mul(1024));
    // `Hugetlb` counts pages of all sizes; older kernels say the default size only.
    let huge_pages = bytes("Hugetlb").or_else(|| {
        let pages = field(text, "HugePages_Total")?;
        Some(pages.saturating_mul(bytes("Hugepagesize")?))
    });
    let info = Meminfo {
        total: bytes("MemTotal")?,
        available: bytes("MemAvailable")?,
        huge_pages: huge_pages.unwrap_or(0),
        swap_total: bytes("SwapTotal")?,
        swap_free: bytes("SwapFree")?,
        commit_limit: bytes("CommitLimit")?,
        committed: bytes("Committed_AS")?,
    };
    (info.total > 0).then_some(info)
}

/// The part of the ZFS cache that the kernel can have back; MemAvailable leaves it out.
fn reclaimable_arc(tree: &Tree) -> Result<u64, Error> {
    let path = tree.proc("spl/kstat/zfs/arcstats");
    let Some(text) = read_text_if_there(&path)? else { return Ok(0) };
    // Rows of `name type data`, so the value is the second number.
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next()? == name).then_some(())?;
            words.nth(1)?.parse::<u64>().ok()
        })
    };
    match (value("size"), value("c_min")) {
        (Some(size), Some(floor)) => Ok(size.saturating_sub(floor)),
        _ => Err(Error::malformed(&path, "size and c_min")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn available_counts_the_arc_and_the_limit_leaves_out_huge_pages() {
        let f = Fixture::healthy();
        let s = f.collect_part(Memory);
        assert_eq!(s.value("host_memory_total_bytes"), 16_000_000.0 * 1024.0);
        assert_eq!(s.value("host_memory_limit_bytes"), 15_000_000.0 * 1024.0);
        assert_eq!(s.value("host_memory_available_bytes"), 9_000_000.0 * 1024.0);
        assert_eq!(s.value("host_memory_used_bytes"), 6_000_000.0 * 1024.0);
        assert_eq!(s.value("host_swap_used_bytes"), 1_500_000.0 * 1024.0);
        assert_eq!(s.value("host_memory_oom_kill_total"), 3.0);
        assert_eq!(s.value("host_memory_major_faults_total"), 42.0);
        assert_eq!(s.get("host_memory_commit_limit_bytes"), None);

        f.write("proc/spl/kstat/zfs/arcstats", "9 1 0x01\nname type data\nc_min 4 1024000\nsize 4 2048000\n");
        let s = f.collect_part(Memory);
        assert_eq!(s.value("host_memory_available_bytes"), 9_001_000.0 * 1024.0);
    }

    #[test]
    fn the_commit_limit_counts_only_where_it_is_enforced() {
        let f = Fixture::healthy();
        f.write("proc/sys/vm/overcommit_memory", "2\n");
        let s = f.collect_part(Memory);
        assert_eq!(s.value("host_memory_commit_limit_bytes"), 12_000_000.0 * 1024.0);
        assert_eq!(s.value("host_memory_committed_bytes"), 5_000_000.0 * 1024.0);
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_or_right_but_never_a_panic() {
        let whole = Fixture::healthy().read("proc/meminfo");
        let right = meminfo(&whole).unwrap();
        for cut in 0..whole.len() {
            if let Some(info) = meminfo(&whole[..cut]) {
                assert_eq!(Meminfo { huge_pages: right.huge_pages, ..info }, right, "cut at {cut}");
            }
        }
        assert_eq!(meminfo("MemTotal: 99999999999999999999 kB\n"), None);
    }

    #[test]
    fn older_kernels_reserve_by_number_and_size() {
        let text = Fixture::healthy().read("proc/meminfo").replace("Hugetlb:", "Other:");
        assert_eq!(meminfo(&text).unwrap().huge_pages, 10 * 2048 * 1024);
    }
}
