use super::*;
use crate::host::fixture::{Fixture, Rig};

fn series(metric: &str, group: &str) -> String {
    format!("{metric}{{cgroup=\"{group}\"}}")
}

#[test]
fn groups_with_a_limit_are_reported() {
    let f = Fixture::healthy();
    f.write("sys/fs/cgroup/free/memory.max", "max\n");
    f.write("sys/fs/cgroup/free/memory.high", "max\n");
    f.write("sys/fs/cgroup/free/pids.max", "max\n");
    let s = f.collect_part(Cgroups::new(10));
    assert_eq!(s.error, "");
    for (metric, value) in [
        ("host_cgroup_memory_used_bytes", 1000.0),
        ("host_cgroup_memory_limit_bytes", 4000.0),
        ("host_cgroup_memory_oom_kill_total", 1.0),
        ("host_cgroup_memory_max_total", 5.0),
        ("host_cgroup_memory_high_total", 4.0),
        ("host_cgroup_pids_used", 2.0),
        ("host_cgroup_pids_limit", 10.0),
        ("host_cgroup_pids_max_total", 6.0),
    ] {
        assert_eq!(s.value(&series(metric, "/app")), value, "{metric}");
    }
    assert_eq!(s.len(), 8);
}

#[test]
fn harm_to_groups_below_is_not_told_again() {
    let f = Fixture::healthy();
    f.group("app/worker", 10, "2000\n", "max\n");
    f.write("sys/fs/cgroup/app/memory.events.local", "low 0\nhigh 0\nmax 2\noom 0\noom_kill 0\n");
    let s = f.collect_part(Cgroups::new(10));
    let kills = |group| s.value(&series("host_cgroup_memory_oom_kill_total", group));
    assert_eq!((kills("/app"), kills("/app/worker")), (0.0, 1.0));
    assert_eq!(s.value(&series("host_cgroup_memory_max_total", "/app")), 2.0);
}

#[test]
fn the_smallest_limit_on_the_way_up_counts() {
    let f = Fixture::healthy();
    f.group("slice", 10, "3000\n", "max\n");
    f.group("slice/free", 10, "max\n", "max\n");
    f.group("slice/free/app", 10, "9000\n", "max\n");
    f.group("slice/tight", 10, "500\n", "max\n");
    let s = f.collect_part(Cgroups::new(10));
    let limit = |group| s.get(&series("host_cgroup_memory_limit_bytes", group));
    assert_eq!(limit("/slice"), Some(3000.0));
    assert_eq!(limit("/slice/free"), None);
    assert_eq!(limit("/slice/free/app"), Some(3000.0));
    assert_eq!(limit("/slice/tight"), Some(500.0));
}

#[test]
fn a_high_limit_alone_is_reported_with_its_pressure() {
    let f = Fixture::healthy();
    f.group("app", 1000, "max\n", "2000\n");
    let s = f.collect_part(Cgroups::new(10));
    assert_eq!(s.value(&series("host_cgroup_memory_high_bytes", "/app")), 2000.0);
    assert_eq!(s.value(&series("host_cgroup_memory_pressure_full_avg10_ratio", "/app")), 0.01);
    assert_eq!(s.get(&series("host_cgroup_memory_limit_bytes", "/app")), None);
}

#[test]
fn only_the_nearest_are_reported_when_there_are_many() {
    let f = Fixture::healthy();
    for (group, used) in [("a", 100), ("b", 3900), ("c", 2000)] {
        f.group(group, used, "4000\n", "max\n");
        f.write(&format!("sys/fs/cgroup/{group}/pids.max"), "max\n");
    }
    let s = f.collect_part(Cgroups::new(2));
    let mut used = s.having("host_cgroup_memory_used_bytes");
    used.sort_unstable();
    assert_eq!(used, [series("host_cgroup_memory_used_bytes", "/b"), series("host_cgroup_memory_used_bytes", "/c")]);
}

#[test]
fn a_group_that_is_gone_ends_and_costs_nothing() {
    let f = Fixture::healthy();
    f.group("other", 1, "4000\n", "max\n");
    let mut rig = Rig::new(&f, Cgroups::new(10));
    assert_eq!(rig.collect().len(), 16);
    f.remove("sys/fs/cgroup/app");
    let s = rig.collect();
    assert_eq!((s.ended().len(), s.len(), s.error.as_str()), (8, 16, ""));

    // Listed, then gone before it is read: each file of it missing, one after the other.
    for file in ["memory.stat", "memory.events", "pids.current", "pids.events", "memory.max", "memory.high", "pids.max"]
    {
        f.remove(&format!("sys/fs/cgroup/other/{file}"));
        assert_eq!(rig.collect().error, "", "{file}");
    }
}

#[test]
fn a_malformed_group_is_counted_and_the_others_go_on() {
    for (file, bad) in [
        ("memory.stat", ""),
        ("memory.stat", "anon 100\nshmem"),
        ("memory.max", "lots\n"),
        ("memory.high", ""),
        ("pids.max", "-1\n"),
        ("pids.current", ""),
        ("pids.events", "x\n"),
    ] {
        let f = Fixture::healthy();
        f.group("bad", 1, "4000\n", "max\n");
        let mut rig = Rig::new(&f, Cgroups::new(10));
        rig.collect();
        f.write(&format!("sys/fs/cgroup/bad/{file}"), bad);
        let s = rig.collect();
        assert!(s.error.contains(file), "{file} {bad:?}: {}", s.error);
        assert_eq!(s.having("cgroup=\"/app\"").len(), 8, "{file} {bad:?}");
        assert!(s.ended().is_empty(), "{file} {bad:?}: {:?}", s.ended());
    }
}

#[test]
fn files_of_v1_and_of_a_hybrid() {
    let f = Fixture::empty();
    for (file, text) in [
        ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/docker/memory.limit_in_bytes", "5000\n"),
        ("memory/docker/memory.failcnt", "3\n"),
        ("memory/docker/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        (
            "memory/docker/memory.stat",
            "cache 9\ntotal_cache 9000\ntotal_rss 700\ntotal_shmem 50\ntotal_unevictable 1\n",
        ),
        ("pids/docker/pids.max", "100\n"),
        ("pids/docker/pids.current", "99\n"),
        ("unified/cgroup.controllers", "\n"),
    ] {
        f.write(&format!("sys/fs/cgroup/{file}"), text);
    }
    let s = f.collect_part(Cgroups::new(10));
    assert_eq!(s.error, "");
    for (metric, value) in [
        ("host_cgroup_memory_used_bytes", 751.0),
        ("host_cgroup_memory_limit_bytes", 5000.0),
        ("host_cgroup_memory_max_total", 3.0),
        ("host_cgroup_memory_oom_kill_total", 2.0),
        ("host_cgroup_pids_used", 99.0),
        ("host_cgroup_pids_limit", 100.0),
    ] {
        assert_eq!(s.value(&series(metric, "/docker")), value, "{metric}");
    }
    assert_eq!(s.len(), 6);
}

#[test]
fn a_host_without_cgroups_reports_none() {
    let s = Fixture::empty().collect_part(Cgroups::new(10));
    assert_eq!((s.len(), s.error.as_str()), (0, ""));
}
