//! The host collector on the machine that runs the tests: its real `/proc`, and a tmpfs and a cgroup made here where
//! that is permitted (what is not is said on stdout).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use forewarn_ingest::host::{Collector, HostConfig};
use forewarn_ingest::status::Board;
use forewarn_schemas::{Batch, Timestamp, is_stale};

fn collector() -> Collector {
    Collector::new(&HostConfig::default(), Arc::new(Board::default()))
}

/// Returns the value of the series of `metric` that has the label.
fn value(batch: &Batch, metric: &str, label: &str, is: &str) -> Option<f64> {
    let has = |s: &&forewarn_schemas::SeriesSamples| s.labels.metric() == metric && s.labels.get(label) == Some(is);
    batch.series.iter().find(has).map(|s| s.samples[0].value)
}

fn only(batch: &Batch, metric: &str) -> f64 {
    value(batch, metric, "job", "host").unwrap_or_else(|| panic!("no {metric}"))
}

#[test]
fn figures_of_this_machine_are_sane() {
    let config = HostConfig { processes_top: usize::MAX, ..HostConfig::default() };
    let mut collector = Collector::new(&config, Arc::default());
    let batch = collector.collect(Timestamp::from_secs(1));
    assert_eq!(collector.last_error(), "");

    let total = only(&batch, "host_memory_total_bytes");
    assert!(total > 0.0);
    for (used, limit) in [
        ("host_memory_used_bytes", "host_memory_limit_bytes"),
        ("host_memory_limit_bytes", "host_memory_total_bytes"),
        ("host_swap_used_bytes", "host_swap_total_bytes"),
        ("host_pids_used", "host_pids_limit"),
    ] {
        assert!(only(&batch, used) <= only(&batch, limit), "{used}");
    }
    assert!(only(&batch, "host_file_descriptors_used") > 0.0);
    assert!(only(&batch, "host_uptime_seconds") > 0.0);
    assert!(only(&batch, "host_boot_time_seconds") > 1e9);
    assert_eq!(only(&batch, "host_up"), 1.0);

    let disks: Vec<_> = batch.series.iter().filter(|s| s.labels.metric() == "host_disk_used_bytes").collect();
    assert!(!disks.is_empty());
    for disk in disks {
        let mount = disk.labels.get("mount").unwrap();
        let limit = value(&batch, "host_disk_limit_bytes", "mount", mount).unwrap();
        assert!(disk.samples[0].value <= limit && limit > 0.0, "{mount}");
    }

    // This process has its own descriptors, and as many as it says.
    let me = fs::read_to_string("/proc/self/comm").unwrap();
    let used = value(&batch, "host_process_file_descriptors_used", "process", me.trim_end());
    assert!(used.unwrap_or_else(|| panic!("no {me:?}")) >= 3.0);
    assert!(batch.series.iter().all(|s| s.samples.iter().all(|s| s.value.is_finite())));
}

#[test]
fn own_descriptors_are_counted_exactly() {
    let name = "fw-descriptors";
    let script = format!("printf {name} > /proc/self/comm; exec 3</dev/null 4</dev/null 5</dev/null; echo; read x");
    let mut child = Command::new("sh");
    child.args(["-c", &script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    // It has said its line when all is open.
    let mut line = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let by_hand = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
    let config = HostConfig { processes_top: usize::MAX, ..HostConfig::default() };
    let batch = Collector::new(&config, Arc::default()).collect(Timestamp::from_secs(1));
    let used = value(&batch, "host_process_file_descriptors_used", "process", name);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(used, Some(by_hand as f64));
    assert!(by_hand >= 6);
}

/// Unmounts when dropped, so that a failed assertion leaves nothing behind.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(point: &Path) -> Option<Self> {
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "fw-test"]).arg(point).output().ok()?;
        done.status.success().then(|| Self(point.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn a_small_tmpfs_is_watched_while_it_fills_and_ends_when_unmounted() {
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("a small\tone");
    fs::create_dir(&point).unwrap();
    let Some(mounted) = Mounted::tmpfs(&point) else {
        println!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    // The label has no control characters, the path has.
    let mount = point.to_str().unwrap().replace('\t', "\u{fffd}");
    let mut collector = collector();
    let read = |b: &Batch, metric: &str| value(b, metric, "mount", &mount);

    let empty = collector.collect(Timestamp::from_secs(1));
    assert_eq!(read(&empty, "host_disk_limit_bytes"), Some(f64::from(1 << 20)));
    assert_eq!(read(&empty, "host_disk_used_bytes"), Some(0.0));

    let mut file = fs::File::create(point.join("fill")).unwrap();
    file.write_all(&vec![0; 512 << 10]).unwrap();
    let half = collector.collect(Timestamp::from_secs(11));
    assert_eq!(read(&half, "host_disk_used_bytes"), Some(f64::from(512 << 10)));
    assert!(read(&half, "host_disk_inodes_used") > read(&empty, "host_disk_inodes_used"));

    drop((file, mounted));
    let gone = collector.collect(Timestamp::from_secs(21));
    assert!(is_stale(read(&gone, "host_disk_used_bytes").unwrap()));
    assert_eq!(read(&collector.collect(Timestamp::from_secs(31)), "host_disk_used_bytes"), None);
}

/// A cgroup with a memory limit, removed when dropped.
struct Group(PathBuf);

impl Group {
    fn with_limit(name: &str, bytes: u64) -> Option<Self> {
        let roots = [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
        for (root, file) in roots {
            let dir = Path::new(root).join(name);
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let group = Self(dir);
            // Not created where it is missing: in a hybrid layout the first root is no cgroup but a plain directory.
            let limit = fs::OpenOptions::new().write(true).open(group.0.join(file));
            if limit.and_then(|mut f| f.write_all(bytes.to_string().as_bytes())).is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A cgroup's files go with it, and its last process may need a moment to leave.
        for _ in 0..1000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_real_cgroup_counts_memory_and_not_page_cache() {
    let name = format!("fw-test-{}", std::process::id());
    let limit = 64 << 20;
    let Some(group) = Group::with_limit(&name, limit) else {
        println!("skipped: making a cgroup with a memory limit is not permitted here");
        return;
    };
    let path = format!("/{name}");
    let mut collector = collector();
    let read = |b: &Batch, metric: &str| value(b, metric, "cgroup", &path);
    let empty = collector.collect(Timestamp::from_secs(1));
    assert_eq!(read(&empty, "host_cgroup_memory_limit_bytes"), Some(limit as f64));
    assert_eq!(read(&empty, "host_cgroup_memory_oom_kill_total"), Some(0.0));

    // A shell in the group writes 24 MiB to a disk, which is page cache, and then holds 16 MiB in a variable.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let script = format!(
        "echo $$ > {}/cgroup.procs && head -c 25165824 /dev/zero > {}/cached && x=$(head -c 16777216 /dev/zero | tr '\\0' x) \
         && echo && read y && echo ${{#x}}",
        group.0.display(),
        dir.path().display()
    );
    let mut child = Command::new("sh");
    child.args(["-c", &script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut line = [0];
    let ready = std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line);
    let full = collector.collect(Timestamp::from_secs(11));
    child.kill().unwrap();
    child.wait().unwrap();
    ready.unwrap();
    let used = read(&full, "host_cgroup_memory_used_bytes").unwrap();
    let mib = f64::from(1 << 20);
    assert!(used >= 15.0 * mib, "{} MiB", used / mib);
    // What is written to a tmpfs is no cache but memory.
    let on_tmpfs = rustix::fs::statfs(dir.path()).unwrap().f_type == 0x0102_1994;
    assert!(on_tmpfs || used < 36.0 * mib, "{} MiB", used / mib);

    drop(group);
    let gone = collector.collect(Timestamp::from_secs(21));
    assert!(is_stale(read(&gone, "host_cgroup_memory_used_bytes").unwrap()));
}

/// Nanoseconds that all threads of this process have been on a CPU.
fn cpu_nanos() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|t| t.unwrap().path().join("schedstat"));
    let nanos = |text: String| text.split(' ').next().unwrap().parse::<u64>().unwrap();
    tasks.map(|file| nanos(fs::read_to_string(file).unwrap())).sum()
}

#[test]
#[ignore = "a measurement: prints CPU time per cycle with 300 processes; run by hand"]
fn cpu_time_per_cycle() {
    let have = || {
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|e| e.file_name().to_str().is_some_and(|n| n.parse::<u32>().is_ok()))
            .count()
    };
    let mut children = Vec::new();
    while have() < 300 {
        children.push(Command::new("sleep").arg("1000").spawn().unwrap());
    }
    let mut collector = collector();
    let series = collector.collect(Timestamp::from_secs(0)).series.len();
    let cycles = 50;
    let before = cpu_nanos();
    for i in 1..=cycles {
        collector.collect(Timestamp::from_secs(10 * i));
    }
    let each = (cpu_nanos() - before) as f64 / 1e6 / cycles as f64;
    println!(
        "{} processes, {series} series: {each:.2} ms of CPU per cycle, {:.4} % of a core at 10 s",
        have(),
        each / 100.0
    );
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
