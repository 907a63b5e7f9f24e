use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use super::*;
use crate::host::fixture::{Fixture, Rig, SPACE, always_space};

const DATA: &str = "{device=\"/dev/vdb\",fstype=\"xfs\",mount=\"/data\"}";
const ROOT: &str = "{device=\"/dev/vda\",fstype=\"ext4\",mount=\"/\"}";

fn disks(f: &Fixture, statvfs: StatVfs) -> Rig<'_, Disks> {
    Rig::new(f, Disks::new(&f.config(), statvfs))
}

fn series(metric: &str, labels: &str) -> String {
    format!("{metric}{labels}")
}

#[test]
fn blocks_reserved_for_root_are_on_neither_side() {
    let f = Fixture::healthy();
    let s = disks(&f, always_space()).collect();
    for (metric, value) in [
        ("host_disk_used_bytes", 400.0),
        ("host_disk_limit_bytes", 900.0),
        ("host_disk_size_bytes", 1000.0),
        ("host_disk_inodes_used", 10.0),
        ("host_disk_inodes_limit", 50.0),
        ("host_disk_stalled", 0.0),
    ] {
        assert_eq!(s.value(&series(metric, ROOT)), value, "{metric}");
        assert_eq!(s.value(&series(metric, DATA)), value, "{metric}");
    }
    assert_eq!((s.len(), s.error.as_str()), (12, ""));
}

#[test]
fn no_inodes_and_no_blocks_mean_no_series() {
    let f = Fixture::healthy();
    let statvfs: StatVfs =
        Arc::new(|path: &Path| Ok(if path == Path::new("/") { Space { files: 0, ..SPACE } } else { Space::default() }));
    let s = disks(&f, statvfs).collect();
    assert!(s.having("inodes").is_empty());
    assert!(s.having("/data").is_empty());
    assert_eq!(s.len(), 4);
}

#[test]
fn an_unmounted_disk_ends_and_another_in_its_place_is_another_object() {
    let f = Fixture::healthy();
    let mut rig = disks(&f, always_space());
    rig.collect();
    let list = f.read("proc/self/mountinfo");
    f.write("proc/self/mountinfo", list.replace("/dev/vdb", "/dev/vdc"));
    let s = rig.collect();
    assert_eq!(s.ended().len(), 6);
    assert!(s.ended().iter().all(|s| s.contains("/dev/vdb")));
    assert_eq!(s.having("/dev/vdc").len(), 6);
    f.write("proc/self/mountinfo", list.lines().next().unwrap());
    assert!(rig.collect().ended().iter().all(|s| s.contains("/dev/vdc")));
    assert_eq!(rig.collect().len(), 6);
}

#[test]
fn a_list_that_cannot_be_read_ends_nothing() {
    let f = Fixture::healthy();
    let list = f.read("proc/self/mountinfo");
    for bad in ["", "\n", "nonsense\n", "27 1 254:0 / / rw"] {
        let mut rig = disks(&f, always_space());
        f.write("proc/self/mountinfo", &list);
        rig.collect();
        f.write("proc/self/mountinfo", bad);
        let s = rig.collect();
        assert_ne!(s.error, "", "{bad:?}");
        assert!(s.ended().is_empty(), "{bad:?}");
        // The disks known before are still read.
        assert_eq!(s.len(), 12, "{bad:?}");
    }
}

#[test]
fn a_line_that_cannot_be_read_costs_that_line() {
    let f = Fixture::healthy();
    let mut rig = disks(&f, always_space());
    f.write("proc/self/mountinfo", format!("{}29 27 broken\n", f.read("proc/self/mountinfo")));
    for _ in 0..2 {
        let s = rig.collect();
        assert!(s.error.contains("mountinfo"));
        assert_eq!(s.len(), 12);
    }
}

#[test]
fn a_disk_that_may_not_be_read_is_told_and_taken_back() {
    let f = Fixture::healthy();
    let refuse = Arc::new(Mutex::new(true));
    let refused = Arc::clone(&refuse);
    let statvfs: StatVfs = Arc::new(move |path: &Path| {
        if path == Path::new("/data") && *refused.lock().unwrap() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(SPACE)
    });
    let mut rig = disks(&f, statvfs);
    let s = rig.collect();
    assert!(s.error.contains("/data"));
    assert_eq!(s.len(), 6);
    assert!(f.board.notices()[0].message.contains("/data"));
    *refuse.lock().unwrap() = false;
    assert_eq!(rig.collect().len(), 12);
    assert!(f.board.notices().is_empty());
}

/// Hangs calls while it is shut, and counts them.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    opened: Condvar,
}

impl Gate {
    fn shut(&self) {
        self.state.lock().unwrap().0 = true;
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.opened.notify_all();
    }

    fn calls(&self) -> usize {
        self.state.lock().unwrap().1
    }

    fn statvfs(self: &Arc<Self>) -> StatVfs {
        let gate = Arc::clone(self);
        Arc::new(move |path: &Path| {
            if path == Path::new("/data") {
                let mut state = gate.state.lock().unwrap();
                state.1 += 1;
                while state.0 {
                    state = gate.opened.wait(state).unwrap();
                }
            }
            Ok(SPACE)
        })
    }
}

#[test]
fn a_hung_mount_costs_nothing_else_and_is_not_asked_again_until_it_returns() {
    let f = Fixture::healthy();
    let gate = Arc::new(Gate::default());
    let mut rig = disks(&f, gate.statvfs());
    assert_eq!(rig.collect().len(), 12);

    gate.shut();
    let s = rig.collect();
    assert_eq!(s.value(&series("host_disk_stalled", DATA)), 1.0);
    assert_eq!(s.value(&series("host_disk_used_bytes", ROOT)), 400.0);
    assert!(s.ended().is_empty());
    assert!(f.board.notices()[0].message.contains("/data does not answer"));
    for _ in 0..3 {
        let s = rig.collect();
        assert_eq!((s.value(&series("host_disk_stalled", DATA)), s.len()), (1.0, 7));
    }
    assert_eq!(gate.calls(), 2);

    gate.open();
    // The thread comes back in its own time; each cycle sees whether it has.
    let back = (0..100_000).any(|_| {
        std::thread::yield_now();
        rig.collect().get(&series("host_disk_stalled", DATA)) == Some(0.0)
    });
    assert!(back);
    assert_eq!(gate.calls(), 3);
    assert!(f.board.notices().is_empty());
}

#[test]
fn the_first_cycle_does_not_wait_for_a_hung_mount_and_calls_nothing_stalled_yet() {
    let f = Fixture::healthy();
    let gate = Arc::new(Gate::default());
    gate.shut();
    let mut rig = disks(&f, gate.statvfs());
    let s = rig.collect();
    assert_eq!(s.len(), 6);
    assert!(s.having("/data").is_empty());
    assert!(f.board.notices().is_empty());
    assert_eq!(rig.collect().value(&series("host_disk_stalled", DATA)), 1.0);
    gate.open();
}

#[test]
fn a_mount_that_hangs_and_is_unmounted_ends() {
    let f = Fixture::healthy();
    let gate = Arc::new(Gate::default());
    let mut rig = disks(&f, gate.statvfs());
    rig.collect();
    gate.shut();
    rig.collect();
    f.write("proc/self/mountinfo", f.read("proc/self/mountinfo").lines().next().unwrap());
    assert_eq!(rig.collect().ended().len(), 6);
    gate.open();
}
