//! Files of `/proc` and of the cgroup, as a node reads them for us: text to numbers. A text that is not of the
//! expected form gives nothing.
//!
//! # Source
//! Linux, *proc(5)*; `Documentation/admin-guide/cgroup-v2.rst`; `Documentation/admin-guide/cgroup-v1/memory.rst`.

/// Levels of cgroups looked at, from the node's own upwards.
const CGROUP_LEVELS_MAX: usize = 8;
const PATH_BYTES_MAX: usize = 1024;
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// A directory under `/sys/fs/cgroup`: its path is checked when it is made, because it comes from the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CgroupDir(String);

impl CgroupDir {
    fn new(mount: &str, path: &str) -> Option<Self> {
        let plain = path.split('/').all(|part| part != ".." && part != ".");
        let printable = !path.contains(|c: char| c.is_control());
        (plain && printable).then(|| Self(format!("{CGROUP_ROOT}{mount}{}", path.trim_end_matches('/'))))
    }

    /// Returns the absolute path.
    pub(super) fn path(&self) -> &str {
        &self.0
    }
}

/// Where the controllers of a node's cgroup are, each from the node's own directory upwards to the mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cgroups {
    /// Version 2: all controllers.
    pub(super) unified: Vec<CgroupDir>,
    /// Version 1: memory.
    pub(super) memory_v1: Vec<CgroupDir>,
    /// Version 1: pids.
    pub(super) pids_v1: Vec<CgroupDir>,
}

/// Reads `/proc/self/cgroup`. The mount itself is always the last directory: in a container without a cgroup
/// namespace the path is that of the host, and the container's own cgroup is mounted at the root.
pub(super) fn cgroups(text: &str) -> Cgroups {
    let mut found = Cgroups::default();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            found.unified = upwards("", path);
        }
        for controller in controllers.split(',') {
            match controller {
                "memory" => found.memory_v1 = upwards("/memory", path),
                "pids" => found.pids_v1 = upwards("/pids", path),
                _ => {}
            }
        }
    }
    found
}

fn upwards(mount: &str, path: &str) -> Vec<CgroupDir> {
    let mut levels = Vec::new();
    let mut path = if path.len() > PATH_BYTES_MAX { "" } else { path.trim_end_matches('/') };
    while !path.is_empty() && levels.len() < CGROUP_LEVELS_MAX - 1 {
        levels.extend(CgroupDir::new(mount, path));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    levels.extend(CgroupDir::new(mount, ""));
    levels
}

/// Reads a single number; `max`, and what cannot be told from it in version 1, is no limit.
pub(super) fn single(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|n| *n < u64::MAX / 4)
}

/// Reads the value of `key` in lines of `key value`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Reads total and resident pages from `/proc/self/statm`.
pub(super) fn statm(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Returns the size of a page: the virtual size is in `status` in KiB and in `statm` in pages. They were not read in
/// the same instant, hence the nearest power of two. `None` outside 4 to 64 KiB.
pub(super) fn page_bytes(status: &str, statm_text: &str) -> Option<u64> {
    let kib = kib_of(status, "VmSize:")?;
    let (pages, _) = statm(statm_text)?;
    let ratio = kib as f64 * 1024.0 / pages.max(1) as f64;
    let size = 2f64.powi(ratio.log2().round() as i32) as u64;
    (4096..=65536).contains(&size).then_some(size)
}

/// Reads `MemTotal` from `/proc/meminfo`, in bytes.
pub(super) fn ram_bytes(meminfo: &str) -> Option<u64> {
    kib_of(meminfo, "MemTotal:")?.checked_mul(1024)
}

fn kib_of(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix(key))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Reads the soft limit of open files from `/proc/self/limits`; `None` when there is no limit.
pub(super) fn open_files_max(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dirs: &[CgroupDir]) -> Vec<&str> {
        dirs.iter().map(CgroupDir::path).collect()
    }

    #[test]
    fn finds_cgroups_of_both_versions() {
        let v2 = cgroups("0::/system.slice/rabbit.service\n");
        assert_eq!(
            paths(&v2.unified),
            ["/sys/fs/cgroup/system.slice/rabbit.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"]
        );
        assert!(v2.memory_v1.is_empty());
        let v1 = cgroups("9:name=systemd:/\n8:pids:/\n4:cpu,memory:/a/b\n0::/\nrubbish\n");
        assert_eq!(
            paths(&v1.memory_v1),
            ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]
        );
        assert_eq!(paths(&v1.pids_v1), ["/sys/fs/cgroup/pids"]);
        assert_eq!(paths(&v1.unified), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn a_node_cannot_lead_us_out_of_the_cgroup_tree() {
        for path in ["/../../etc", "/a/../../b", "/a\u{0}b"] {
            for dir in paths(&cgroups(&format!("0::{path}")).unified) {
                assert!(dir.starts_with(CGROUP_ROOT) && !dir.contains("..") && !dir.contains('\0'), "{dir}");
            }
        }
        assert_eq!(cgroups(&format!("0::{}", "/x".repeat(5000))).unified.len(), 1);
    }

    #[test]
    fn reads_numbers_and_no_limits() {
        assert_eq!(single("max\n"), None);
        assert_eq!(single("9223372036854771712\n"), None);
        assert_eq!(single("1048576\n"), Some(1_048_576));
        assert_eq!(keyed("oom 3\noom_kill 4\n", "oom_kill"), Some(4));
        assert_eq!(statm("526035 10459 4094 651 0 14516 0\n"), Some((526_035, 10_459)));
        assert_eq!(ram_bytes("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        let limits =
            "Limit  Soft Limit Hard Limit Units\nMax open files            20000                20000   files\n";
        assert_eq!(open_files_max(limits), Some(20_000));
        assert_eq!(open_files_max("Max open files  unlimited unlimited files"), None);
    }

    #[test]
    fn learns_the_size_of_a_page() {
        let status = "Name:\tbeam.smp\nVmSize:\t 2104140 kB\n";
        assert_eq!(page_bytes(status, "526035 10459"), Some(4096));
        assert_eq!(page_bytes(status, "131509 10459"), Some(16384));
        assert_eq!(page_bytes(status, "0 0"), None);
        assert_eq!(page_bytes("", "526035 10459"), None);
    }
}
