//! Trees that look like `/proc` and `/sys`, for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forewarn_schemas::{Batch, Timestamp, is_stale};
use tempfile::TempDir;

use super::collector::Part;
use super::config::HostConfig;
use super::series::Ledger;
use super::statvfs::{Space, StatVfs};
use super::tree::Tree;
use crate::status::Board;

/// A host in a temporary directory: `proc` and `sys` below its root.
pub(super) struct Fixture {
    dir: TempDir,
    pub(super) board: Arc<Board>,
}

/// Files of a host on which all is well.
const HEALTHY: &[(&str, &str)] = &[
    (
        "proc/meminfo",
        "MemTotal:       16000000 kB\nMemFree:         4000000 kB\nMemAvailable:    9000000 kB\nSwapTotal:       2000000 kB\n\
         SwapFree:         500000 kB\nCommitLimit:    12000000 kB\nCommitted_AS:    5000000 kB\nHugePages_Total:      10\n\
         Hugepagesize:       2048 kB\nHugetlb:         1000000 kB\n",
    ),
    ("proc/vmstat", "pgfault 100\npgmajfault 42\noom_kill 3\n"),
    ("proc/sys/vm/overcommit_memory", "0\n"),
    ("proc/pressure/cpu", "some avg10=1.00 avg60=0.50 avg300=0.10 total=1000000\n"),
    (
        "proc/pressure/memory",
        "some avg10=12.50 avg60=0.50 avg300=0.10 total=4000000\nfull avg10=2.00 avg60=0.50 avg300=0.10 total=2500000\n",
    ),
    (
        "proc/pressure/io",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
    ),
    ("proc/sys/fs/file-nr", "520\t0\t1000\n"),
    ("proc/loadavg", "0.28 0.42 0.53 1/91 19048\n"),
    ("proc/uptime", "1542.04 1895.85\n"),
    ("proc/stat", "cpu 1 2 3\nbtime 1700000000\n"),
    ("proc/sys/kernel/pid_max", "32768\n"),
    ("proc/sys/kernel/threads-max", "192731\n"),
    ("proc/sys/kernel/hostname", "alpha\n"),
    ("proc/sys/kernel/osrelease", "5.10.0-1-amd64\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "7\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
    (
        "proc/self/mountinfo",
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n28 27 254:1 / /data rw,relatime - xfs /dev/vdb rw\n",
    ),
    ("sys/fs/cgroup/cgroup.controllers", "memory pids\n"),
];

impl Fixture {
    /// Makes a host without any file.
    pub(super) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), board: Arc::default() }
    }

    /// Makes a host on which all is well, with the processes `init` and `db` and the cgroup `/app`.
    pub(super) fn healthy() -> Self {
        let f = Self::empty();
        for (file, text) in HEALTHY {
            f.write(file, text);
        }
        f.process(1, "init", 3, "1024");
        f.process(20, "db", 60, "100");
        f.group("app", 1000, "4000", "max");
        f
    }

    /// Writes a process with so many descriptors and this soft limit.
    pub(super) fn process(&self, pid: u32, name: &str, descriptors: usize, limit: &str) {
        let dir = format!("proc/{pid}");
        self.remove(&dir);
        for i in 0..descriptors {
            self.write(&format!("{dir}/fd/{i}"), "");
        }
        self.write(&format!("{dir}/comm"), format!("{name}\n"));
        self.limits(pid, limit);
    }

    /// Writes the limits of a process.
    pub(super) fn limits(&self, pid: u32, limit: &str) {
        let text = format!("Limit  Soft Limit  Hard Limit  Units\nMax open files            {limit}   4096   files\n");
        self.write(&format!("proc/{pid}/limits"), &text);
    }

    /// Writes a v2 group that uses so many bytes and two processes of its ten.
    pub(super) fn group(&self, path: &str, used: u64, max: &str, high: &str) {
        let stat = format!("anon {used}\nfile 900000\nkernel 0\nshmem 0\nunevictable 0\nslab_reclaimable 0\n");
        let files = [
            ("memory.stat", stat.as_str()),
            ("memory.max", max),
            ("memory.high", high),
            ("memory.events", "low 0\nhigh 4\nmax 5\noom 1\noom_kill 1\noom_group_kill 0\n"),
            ("memory.pressure", "some avg10=2.00 avg60=0 avg300=0 total=9\nfull avg10=1.00 avg60=0 avg300=0 total=8\n"),
            ("pids.max", "10\n"),
            ("pids.current", "2\n"),
            ("pids.events", "max 6\n"),
        ];
        for (file, text) in files {
            self.write(&format!("sys/fs/cgroup/{path}/{file}"), text);
        }
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub(super) fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// Removes a file or a directory with all in it, if it is there.
    pub(super) fn remove(&self, file: &str) {
        let path = self.path(file);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        assert!(removed.is_ok() || removed.unwrap_err().kind() == std::io::ErrorKind::NotFound);
    }

    pub(super) fn tree(&self) -> Tree {
        Tree::new(&self.path("proc"), &self.path("sys"))
    }

    pub(super) fn config(&self) -> HostConfig {
        HostConfig { proc_root: self.path("proc"), sys_root: self.path("sys"), ..HostConfig::default() }
    }

    /// Runs one part for one cycle.
    pub(super) fn collect_part(&self, part: impl Part) -> Seen {
        Rig::new(self, part).collect()
    }
}

/// A part that is run cycle by cycle.
pub(super) struct Rig<'f, P> {
    fixture: &'f Fixture,
    ledger: Ledger,
    pub(super) part: P,
}

impl<'f, P: Part> Rig<'f, P> {
    pub(super) fn new(fixture: &'f Fixture, part: P) -> Self {
        Self { fixture, ledger: Ledger::new(1, Vec::new()), part }
    }

    pub(super) fn collect(&mut self) -> Seen {
        let tree = self.fixture.tree();
        self.ledger.begin(Timestamp::from_secs(1));
        self.part.begin(&tree);
        match self.part.collect(&tree, &mut self.ledger.part(0, &self.fixture.board)) {
            Ok(()) => self.ledger.sweep(0),
            Err(e) => self.ledger.fail(0, &e),
        }
        let batch = self.ledger.finish();
        Seen { error: self.ledger.last_error().to_owned(), ..Seen::of(&batch) }
    }
}

/// The samples of one cycle.
#[derive(Debug)]
pub(super) struct Seen {
    samples: Vec<(String, f64)>,
    /// The last error of the cycle, empty when there was none.
    pub(super) error: String,
}

impl Seen {
    pub(super) fn of(batch: &Batch) -> Self {
        let samples = batch.series.iter().map(|s| {
            assert_eq!(s.samples.len(), 1);
            (s.labels.to_string().trim_end_matches("{}").to_owned(), s.samples[0].value)
        });
        let samples: Vec<_> = samples.collect();
        let unique: std::collections::HashSet<_> = samples.iter().map(|(s, _)| s).collect();
        assert_eq!(unique.len(), samples.len(), "a series is there twice: {samples:?}");
        Self { samples, error: String::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Returns the value of a series, written as `name` or `name{label="value"}`.
    pub(super) fn get(&self, series: &str) -> Option<f64> {
        self.samples.iter().find(|(s, _)| s == series).map(|(_, v)| *v)
    }

    pub(super) fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }

    /// Returns the series that ended, sorted.
    pub(super) fn ended(&self) -> Vec<&str> {
        let mut list: Vec<_> = self.samples.iter().filter(|(_, v)| is_stale(*v)).map(|(s, _)| s.as_str()).collect();
        list.sort_unstable();
        list
    }

    /// Returns the series whose text holds `part`.
    pub(super) fn having(&self, part: &str) -> Vec<&str> {
        self.samples.iter().map(|(s, _)| s.as_str()).filter(|s| s.contains(part)).collect()
    }
}

/// A file system of 1000 bytes: 100 reserved for root, 400 used; 50 inodes, 10 used.
pub(super) const SPACE: Space = Space { size: 1000, free: 600, available: 500, files: 50, files_free: 40 };

/// Answers [`SPACE`] for every path.
pub(super) fn always_space() -> StatVfs {
    Arc::new(|_: &Path| Ok(SPACE))
}
