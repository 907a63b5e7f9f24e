use super::*;
use crate::host::fixture::{Fixture, Rig, Seen};

fn used(s: &Seen, name: &str) -> Option<f64> {
    s.get(&format!("host_process_file_descriptors_used{{process=\"{name}\"}}"))
}

fn limit(s: &Seen, name: &str) -> Option<f64> {
    s.get(&format!("host_process_file_descriptors_limit{{process=\"{name}\"}}"))
}

fn processes(f: &Fixture, top: usize) -> Rig<'_, Processes> {
    Rig::new(f, Processes::new(top, "5.10.0", &f.tree()))
}

#[test]
fn the_worst_of_a_name_stands_for_all() {
    let f = Fixture::healthy();
    f.process(30, "db", 5, "10");
    f.process(31, "db", 90, "1000");
    f.write("proc/irq/30/comm", "");
    let s = processes(&f, 50).collect();
    assert_eq!((used(&s, "db"), limit(&s, "db")), (Some(60.0), Some(100.0)));
    assert_eq!((used(&s, "init"), limit(&s, "init")), (Some(3.0), Some(1024.0)));
    assert_eq!((s.value("host_process_unreadable"), s.len(), s.error.as_str()), (0.0, 5, ""));
}

#[test]
fn kernel_threads_and_unlimited_processes_are_left_out() {
    let f = Fixture::healthy();
    f.process(2, "kthreadd", 0, "1024");
    std::fs::create_dir(f.path("proc/2/fd")).unwrap();
    f.process(3, "free", 4, "unlimited");
    let s = processes(&f, 50).collect();
    assert_eq!((used(&s, "kthreadd"), used(&s, "free"), s.error.as_str()), (None, None, ""));
}

#[test]
fn a_limit_that_was_set_as_a_ban_is_none() {
    let f = Fixture::healthy();
    f.process(30, "sshd", 5, "1");
    f.process(31, "sandbox", 3, "4");
    f.process(32, "lowered", 20, "16");
    let s = processes(&f, 50).collect();
    for name in ["sshd", "sandbox", "lowered"] {
        assert_eq!((used(&s, name), limit(&s, name)), (None, None), "{name}");
    }
    // One of the same name with a real limit stands for itself.
    f.process(33, "sshd", 8, "1024");
    assert_eq!(used(&processes(&f, 50).collect(), "sshd"), Some(8.0));
}

#[test]
fn only_the_nearest_to_their_limit_are_reported() {
    let f = Fixture::healthy();
    f.process(30, "web", 18, "20");
    let s = processes(&f, 2).collect();
    assert_eq!((used(&s, "web"), used(&s, "db"), used(&s, "init")), (Some(18.0), Some(60.0), None));
}

#[test]
fn a_process_that_is_gone_ends_and_one_that_goes_meanwhile_costs_nothing() {
    let f = Fixture::healthy();
    let mut rig = processes(&f, 50);
    rig.collect();
    // `db` is near its limit and so read in full each time: its files vanish one by one.
    for file in ["limits", "comm", "fd"] {
        f.process(20, "db", 60, "100");
        rig.collect();
        f.remove(&format!("proc/20/{file}"));
        let s = rig.collect();
        assert_eq!((s.ended().len(), s.error.as_str()), (2, ""), "{file}");
        assert_eq!(s.value("host_process_unreadable"), 0.0, "{file}");
    }
}

#[test]
fn unreadable_processes_are_counted_and_told_once() {
    let f = Fixture::healthy();
    // Root may read everything, so what cannot be read here is a file in place of the directory.
    f.remove("proc/20/fd");
    f.write("proc/20/fd", "");
    f.write("proc/20/cmdline", "/usr/bin/db\0");
    f.write("proc/2/fd", "");
    f.write("proc/2/cmdline", "");
    let mut rig = processes(&f, 50);
    for _ in 0..2 {
        let s = rig.collect();
        assert_eq!((s.value("host_process_unreadable"), s.error.as_str()), (1.0, ""));
        assert_eq!(used(&s, "init"), Some(3.0));
        assert_eq!(f.board.notices().len(), 1);
    }
    assert!(f.board.notices()[0].mend.contains("CAP_SYS_PTRACE"));
    f.process(20, "db", 60, "100");
    rig.collect();
    assert!(f.board.notices().is_empty());
}

#[test]
fn malformed_limits_cost_that_process_and_end_nothing() {
    for bad in ["", "Max open files", "Max open files   12", "Max open files  x y files\n"] {
        let f = Fixture::healthy();
        let mut rig = processes(&f, 50);
        rig.collect();
        f.write("proc/20/limits", bad);
        let s = rig.collect();
        assert!(s.error.contains("limits"), "{bad:?}");
        assert!(s.ended().is_empty(), "{bad:?}");
        assert_eq!((used(&s, "init"), used(&s, "db")), (Some(3.0), None), "{bad:?}");
    }
}

#[test]
fn those_far_from_their_limit_are_counted_in_turn() {
    let f = Fixture::healthy();
    let mut rig = processes(&f, 50);
    rig.collect();
    f.process(1, "init", 5, "1024");
    f.process(20, "db", 70, "100");
    let cycles: Vec<_> = (0..ROTATION)
        .map(|_| {
            let s = rig.collect();
            assert_eq!(used(&s, "db"), Some(70.0));
            used(&s, "init").unwrap()
        })
        .collect();
    assert_eq!((cycles[0], cycles[ROTATION as usize - 1]), (3.0, 5.0));
}

#[test]
fn a_new_name_takes_new_limits() {
    let f = Fixture::healthy();
    let mut rig = processes(&f, 50);
    rig.collect();
    f.process(1, "other", 3, "2048");
    let s = rig.collect();
    assert_eq!(limit(&s, "other"), Some(2048.0));
}

#[test]
fn names_may_be_empty_or_no_text() {
    let f = Fixture::healthy();
    f.process(30, "", 4, "100");
    f.process(31, "x", 4, "100");
    f.write("proc/31/comm", b"a\xff\x1bb\n");
    let s = processes(&f, 50).collect();
    assert_eq!((used(&s, "(none)"), used(&s, "a\u{fffd}\u{fffd}b")), (Some(4.0), Some(4.0)));
}

#[test]
fn hidden_processes_are_told() {
    let f = Fixture::healthy();
    f.remove("proc/1");
    processes(&f, 50).collect();
    assert!(f.board.notices()[0].message.contains("hidepid"));
}

#[test]
fn a_kernel_that_claims_a_count_and_lacks_it_is_not_believed() {
    let f = Fixture::healthy();
    let s = Rig::new(&f, Processes::new(50, "6.18.0", &f.tree())).collect();
    assert_eq!(used(&s, "db"), Some(60.0));
}

#[test]
fn the_kernel_decides_how_entries_are_counted() {
    for (release, by_size) in
        [("6.2.0", true), ("6.18.44-x", true), ("10.0", true), ("6.1.99", false), ("5.14.0", false), ("", false)]
    {
        assert_eq!(counts_by_size(release), by_size, "{release:?}");
    }
}
