use super::*;

const MINE: &str = "
resources:
  - resource: connections
    unit: connections
    kind: hard
    used: pg_stat_activity_count
    limit: pg_settings_max_connections
    lead: 1h
    resets: rare
";

#[test]
fn builtin_pairs_names_of_every_source() {
    let c = Catalogue::builtin();
    for (metric, labels, resource) in [
        ("host_memory_used_bytes", &[][..], "memory"),
        ("beam_processes", &[], "processes"),
        ("node_memory_MemAvailable_bytes", &[], "memory"),
        ("container_memory_rss", &[("id", "/kubepods/x"), ("container", "app")], "cgroup_memory"),
        ("container_memory_rss", &[("id", "/docker/x"), ("name", "db")], "cgroup_memory"),
        ("rabbitmq_disk_space_available_bytes", &[], "disk"),
        ("erlang_vm_atom_count", &[], "atoms"),
    ] {
        let parts = c.parts_of(&Labels::series(metric, labels).unwrap());
        let used: Vec<_> = parts.iter().filter(|(_, p)| *p == Part::Used).collect();
        assert_eq!(used.len(), 1, "{metric}");
        assert_eq!(c.entries()[used[0].0 as usize].resource, resource);
    }
    let shared = c.parts_of(&Labels::series("beam_memory_limit_bytes", &[]).unwrap());
    assert_eq!(shared.len(), 2, "memory and ets_memory end at the same limit");
    assert!(c.parts_of(&Labels::series("http_requests_total", &[]).unwrap()).is_empty());
    for (metric, labels) in [
        ("node_filesystem_avail_bytes", &[("fstype", "squashfs")][..]),
        ("node_filesystem_avail_bytes", &[("fstype", "udf")]),
        ("node_filesystem_files_free", &[("fstype", "fuse.sshfs")]),
        ("node_filesystem_device_error", &[("fstype", "ext4")]),
        ("container_memory_rss", &[("id", "/system.slice/cron.service")]),
        ("container_memory_rss", &[("container", "POD"), ("pod", "p"), ("name", "k8s_POD_p")]),
        ("container_threads", &[("pod", "p"), ("id", "/kubepods/p")]),
    ] {
        assert!(c.parts_of(&Labels::series(metric, labels).unwrap()).is_empty(), "{metric} {labels:?}");
    }
    let fuse = Labels::series("node_filesystem_avail_bytes", &[("fstype", "fuseblk")]).unwrap();
    assert_eq!(c.parts_of(&fuse).len(), 1, "a local disk");
    let threads = c.parts_of(&Labels::series("node_processes_threads", &[]).unwrap());
    let ends: Vec<_> = threads.iter().map(|(i, _)| &c.entries()[*i as usize]).map(|e| e.resource.as_str()).collect();
    assert_eq!(ends, ["pids", "threads"], "both pid_max and threads-max end them");
}

#[test]
fn a_user_adds_replaces_and_drops() {
    let base = Catalogue::builtin();
    let n = base.entries().len();
    let more = base.extended(MINE).unwrap();
    assert_eq!(more.entries().len(), n + 1);
    assert_eq!(more.entries()[n].lead, Duration::from_secs(3600));
    assert_eq!((more.entries()[n].minor, more.entries()[n].major), (Some(0.70), Some(0.85)));
    let again = more.extended(&MINE.replace("1h", "2h")).unwrap();
    assert_eq!(again.entries().len(), n + 1);
    assert_eq!(again.entries()[n].lead, Duration::from_secs(7200));
    let gone = again.extended(&MINE.replace("lead: 1h", "enabled: false")).unwrap();
    assert_eq!(gone.entries().len(), n);
}

#[test]
fn every_mistake_is_found_with_its_line() {
    let text = "
resources:
  - resource: a
    unit: x
    kind: hard
    used: 'm{'
    limit: 0
    lead: soon
  - resource: b
    unit: x
    kind: soft
    used: m
  - resource: C
    unit: ''
    kind: hard
    used: m
    minor: 0.9
    major: 0.8
    on: [mount]
  - resource: d
    unit: x
    kind: bounded
    used: m
    limits: 5
  - resource: e
    unit: x
    kind: hard
    used: m3
    limit: 5
    full_for: long
";
    let Err(AnalyzeError::Catalogue(errors)) = Catalogue::parse(text) else { panic!("accepted") };
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    for expected in [
        "line 3: resource a: used:",
        "line 3: resource a: limit 0 cannot be reached",
        "line 3: resource a: lead:",
        "line 9: resource b: unknown variant `soft`",
        "line 13: resource C: its name may have",
        "line 13: resource C: unit is empty",
        "line 13: resource C: a hard or elastic resource needs a limit",
        "line 13: resource C: minor is above major",
        "line 13: resource C: on must hold node",
        "line 20: resource d: unknown field `limits`",
        "line 25: resource e: full_for:",
    ] {
        assert!(found.iter().any(|f| f.starts_with(expected)), "{expected} is not among {found:#?}");
    }
    let Err(AnalyzeError::Catalogue(errors)) = Catalogue::parse("resources:\n  - {a: [\n") else { panic!("accepted") };
    assert!(errors[0].line.is_some(), "{errors:?}");
    assert!(Catalogue::parse(&format!("{MINE}{}", &MINE[MINE.find("  -").unwrap()..])).is_err(), "twice");
}

#[test]
fn harm_and_restart_are_told_apart_by_name_or_by_word() {
    let c = Catalogue::parse(
        "
resources:
  - resource: a
    unit: x
    kind: bounded
    used: m
    harm: [kills_total, alarm, {counter: kills}, {gauge: refused_total}]
    restart: a_uptime_seconds
  - resource: b
    unit: x
    kind: bounded
    used: m2
    restart: {uptime: wallclock}
",
    )
    .unwrap();
    let counters: Vec<bool> = c.entries()[0].harm.iter().map(|h| matches!(h, Harm::Counter(_))).collect();
    assert_eq!(counters, [true, false, true, false]);
    for e in c.entries() {
        assert!(matches!(e.restart, Some(Restart::Uptime(_))));
    }
    assert_eq!(c.entries()[0].minor, None, "a bounded resource lives at its limit");
}
