//! The `host` section of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use forewarn_schemas::units;
use serde::{Deserialize, Serialize};

/// The shortest interval; below it the collector would be a load of its own.
pub(super) const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// What the host collector watches, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Whether this machine is watched. Default: `true`.
    pub enabled: bool,
    /// Time from one cycle to the next, at least `1s`. Default: `10s`.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// The label `node` of every series. Default: the host's name.
    pub node: Option<String>,
    /// The label `family` of every series: which hosts are alike. Default: `host`.
    pub family: String,
    /// Types of file systems that are not watched; a trailing `*` stands for any ending, a leading `!` makes an
    /// exception. Default: pseudo and network
    /// file systems. The root `/` is watched whatever its type; `overlay` is watched at `/` only.
    pub disk_fstypes_exclude: Vec<String>,
    /// Mount points that are not watched, in the same form. Default: `/proc`, `/sys` and what lies
    /// below them, `/dev` save `/dev/shm`, what systemd and container engines mount for themselves, and the three
    /// files of `/etc` that container engines bind.
    pub disk_mounts_exclude: Vec<String>,
    /// Process names whose descriptors are reported, the nearest to their limit. Default: `50`.
    pub processes_top: usize,
    /// Cgroups reported per controller, the nearest to their limit. Default: `500`.
    pub cgroups_max: usize,
    /// Where procfs is mounted. Default: `/proc`.
    pub proc_root: PathBuf,
    /// Where sysfs is mounted; cgroups are sought in `fs/cgroup` below it. Default: `/sys`.
    pub sys_root: PathBuf,
}

const PSEUDO: [&str; 28] = [
    "autofs",
    "bdev",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cpuset",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "pipefs",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sockfs",
    "sysfs",
    "tracefs",
];

/// `fuse.*` is mostly remote or synthetic; disks mounted through FUSE are of type `fuseblk`.
const REMOTE: [&str; 15] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse",
    "fuse.*",
    "glusterfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
    "virtiofs",
];

const MOUNTS: [&str; 16] = [
    "/proc",
    "/proc/*",
    "/sys",
    "/sys/*",
    "/dev",
    "/dev/*",
    "!/dev/shm",
    "/run/user/*",
    "/run/lock",
    "/run/credentials/*",
    "/run/containerd/*",
    "/var/lib/kubelet/pods/*",
    "/var/lib/docker/containers/*",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
];

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(10),
            node: None,
            family: "host".into(),
            disk_fstypes_exclude: PSEUDO.iter().chain(&REMOTE).map(|s| (*s).to_owned()).collect(),
            disk_mounts_exclude: MOUNTS.iter().map(|s| (*s).to_owned()).collect(),
            processes_top: 50,
            cgroups_max: 500,
            proc_root: "/proc".into(),
            sys_root: "/sys".into(),
        }
    }
}

impl HostConfig {
    /// Returns everything that is wrong with the values, one sentence each; empty when nothing is. Reads nothing.
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.interval < INTERVAL_MIN {
            wrong.push("host.interval: must be at least 1s".to_owned());
        }
        if self.node.as_deref().is_some_and(str::is_empty) {
            wrong.push("host.node: must not be empty".to_owned());
        }
        if self.family.is_empty() {
            wrong.push("host.family: must not be empty".to_owned());
        }
        for (name, path) in [("proc_root", &self.proc_root), ("sys_root", &self.sys_root)] {
            if !path.is_absolute() {
                wrong.push(format!("host.{name}: must be an absolute path"));
            }
        }
        wrong
    }
}

/// Says whether one of `patterns` matches: equal, or equal up to a trailing `*`; and none with a leading `!` does.
pub(super) fn matches_any(patterns: &[String], text: &str) -> bool {
    let matches = |p: &str| match p.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => p == text,
    };
    let excepted = patterns.iter().filter_map(|p| p.strip_prefix('!')).any(matches);
    !excepted && patterns.iter().any(|p| matches(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_bad_values_are_all_named() {
        assert_eq!(HostConfig::default().validate(), Vec::<String>::new());
        let bad = HostConfig {
            interval: Duration::from_millis(10),
            node: Some(String::new()),
            family: String::new(),
            proc_root: "proc".into(),
            ..HostConfig::default()
        };
        assert_eq!(bad.validate().len(), 4);
    }

    #[test]
    fn a_trailing_star_matches_any_ending() {
        let patterns = ["fuse.*".to_owned(), "nfs".to_owned()];
        assert!(matches_any(&patterns, "fuse.sshfs"));
        assert!(matches_any(&patterns, "nfs"));
        assert!(!matches_any(&patterns, "nfs4"));
        assert!(!matches_any(&patterns, "fuseblk"));
    }

    #[test]
    fn of_the_mounts_below_dev_only_shm_is_watched() {
        let patterns = HostConfig::default().disk_mounts_exclude;
        for point in ["/dev", "/dev/pts", "/dev/hugepages1G", "/dev/termination-log"] {
            assert!(matches_any(&patterns, point), "{point}");
        }
        assert!(!matches_any(&patterns, "/dev/shm"));
    }
}
