use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::host::fixture::{Fixture, Seen, always_space};

fn collector(f: &Fixture) -> Collector {
    Collector::with_statvfs(&f.config(), Arc::clone(&f.board), always_space())
}

fn at_second(seconds: i64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

const IDENTITY: &str = r#"family="host",job="host",node="alpha""#;

fn errors(s: &Seen, part: &str) -> f64 {
    s.value(&format!(r#"host_collect_errors_total{{family="host",job="host",node="alpha",part="{part}"}}"#))
}

#[test]
fn a_healthy_host_has_every_part_and_the_labels_of_its_identity() {
    let f = Fixture::healthy();
    let mut c = collector(&f);
    let batch = c.collect(at_second(100));
    assert!(batch.series.iter().all(|s| s.samples[0].ts == at_second(100)));
    assert!(batch.series.iter().all(|s| s.labels.get("node") == Some("alpha")));
    assert!(batch.series.iter().all(|s| s.labels.get("job") == Some("host") && s.labels.get("family") == Some("host")));
    let s = Seen::of(&batch);
    assert_eq!(s.value(&format!("host_up{{{IDENTITY}}}")), 1.0);
    assert_eq!(s.value(&format!("host_collect_skipped_total{{{IDENTITY}}}")), 0.0);
    for part in &c.parts {
        assert_eq!(errors(&s, part.name()), 0.0, "{}", part.name());
    }
    assert_eq!((c.last_error(), c.node()), ("", "alpha"));
    assert_eq!(c.facts()["kernel"], "5.10.0-1-amd64");
    assert!(f.board.notices().is_empty());
}

#[test]
fn the_node_can_be_named() {
    let f = Fixture::healthy();
    let config = HostConfig { node: Some("n1".into()), family: "db".into(), ..f.config() };
    let batch = Collector::with_statvfs(&config, Arc::default(), always_space()).collect(at_second(1));
    let identity = |name| batch.series[0].labels.get(name);
    assert_eq!((identity("node"), identity("family")), (Some("n1"), Some("db")));
}

#[test]
fn each_series_is_written_once_per_cycle_with_the_same_labels() {
    let f = Fixture::healthy();
    let mut c = collector(&f);
    let names = |b: &Batch| b.series.iter().map(|s| s.labels.clone()).collect::<BTreeSet<_>>();
    let first = c.collect(at_second(1));
    let second = c.collect(at_second(11));
    assert_eq!(names(&first).len(), first.series.len());
    assert_eq!(names(&first), names(&second));
    assert!(stale_markers(&second).is_empty());
}

#[test]
fn a_broken_part_is_counted_and_the_others_go_on() {
    let files = [
        ("memory", "meminfo"),
        ("memory", "vmstat"),
        ("memory", "sys/vm/overcommit_memory"),
        ("pressure", "pressure/cpu"),
        ("descriptors", "sys/fs/file-nr"),
        ("pids", "sys/kernel/pid_max"),
        ("load", "uptime"),
        ("conntrack", "sys/net/netfilter/nf_conntrack_max"),
        ("disks", "self/mountinfo"),
    ];
    for (part, file) in files {
        for bad in [&b""[..], b"\n", b"\0\xff\xfe", b"one two three\n", b"99999999999999999999999\n"] {
            // A large number is an uptime, and no number of anything else.
            if file == "uptime" && bad.starts_with(b"9") {
                continue;
            }
            let f = Fixture::healthy();
            let mut c = collector(&f);
            let healthy = c.collect(at_second(1)).series.len();
            f.write(&format!("proc/{file}"), bad);
            let batch = c.collect(at_second(11));
            let s = Seen::of(&batch);
            assert_eq!(errors(&s, part), 1.0, "{file} {bad:?}");
            assert!(c.last_error().contains(file), "{file} {bad:?}: {}", c.last_error());
            assert!(stale_markers(&batch).is_empty(), "{file} {bad:?}");
            assert!(batch.series.len() + 16 > healthy, "{file} {bad:?}");
            for other in c.parts.iter().map(|p| p.name()).filter(|p| *p != part) {
                assert_eq!(errors(&s, other), 0.0, "{file} broke {other}");
            }
        }
    }
}

/// Files of which the collector reads more than one number.
const FILES: [&str; 16] = [
    "proc/meminfo",
    "proc/vmstat",
    "proc/spl/kstat/zfs/arcstats",
    "proc/pressure/memory",
    "proc/sys/fs/file-nr",
    "proc/loadavg",
    "proc/uptime",
    "proc/stat",
    "proc/self/mountinfo",
    "proc/20/comm",
    "proc/20/limits",
    "sys/fs/cgroup/app/memory.stat",
    "sys/fs/cgroup/app/memory.max",
    "sys/fs/cgroup/app/memory.events",
    "sys/fs/cgroup/app/pids.current",
    "sys/fs/cgroup/app/pids.events",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each file in turn is cut or has bytes in it that do not belong there: never a panic, and all values are finite.
    #[test]
    fn any_bytes_in_any_file_are_no_panic(
        cut in 0.0f64..1.0,
        noise in prop::collection::vec(any::<u8>(), 0..20),
        rest in any::<bool>(),
    ) {
        let f = Fixture::healthy();
        f.write("proc/spl/kstat/zfs/arcstats", "9 1 0x01\nname type data\nc_min 4 1024000\nsize 4 2048000\n");
        for file in FILES {
            let whole = f.read(file);
            let at = (cut * whole.len() as f64) as usize;
            let mut bytes = whole.as_bytes()[..at].to_vec();
            bytes.extend(&noise);
            if rest {
                bytes.extend(&whole.as_bytes()[at..]);
            }
            f.write(file, bytes);
            let batch = collector(&f).collect(at_second(1));
            prop_assert!(batch.series.iter().all(|s| s.samples[0].value.is_finite()), "{}", file);
            f.write(file, whole);
        }
    }
}

#[test]
fn an_empty_machine_is_no_panic() {
    let f = Fixture::empty();
    let s = Seen::of(&collector(&f).collect(at_second(1)));
    assert_eq!(s.having("host_up").len(), 1);
}

#[test]
fn a_skipped_cycle_is_counted_and_its_markers_go_out_with_the_next() {
    let f = Fixture::healthy();
    let mut c = collector(&f);
    c.collect(at_second(1));
    f.remove("sys/fs/cgroup/app");
    let lost = stale_markers(&c.collect(at_second(11)));
    assert_eq!(lost.len(), 8);
    c.skipped(lost.clone());
    let batch = c.collect(at_second(21));
    assert_eq!(stale_markers(&batch), lost);
    assert_eq!(Seen::of(&batch).value(&format!("host_collect_skipped_total{{{IDENTITY}}}")), 1.0);
    assert!(stale_markers(&c.collect(at_second(31))).is_empty());
}

/// `docs/metrics-host.md` names exactly the metrics that there are.
#[test]
fn the_documentation_names_every_metric() {
    let f = Fixture::healthy();
    f.write("proc/sys/vm/overcommit_memory", "2\n");
    f.write("proc/pressure/cpu", f.read("proc/pressure/io"));
    f.group("app", 1, "4000", "3000");
    let batch = collector(&f).collect(at_second(1));
    let written: BTreeSet<&str> = batch.series.iter().map(|s| s.labels.metric()).collect();
    let doc = include_str!("../../../../docs/metrics-host.md");
    let rows = doc.lines().filter_map(|l| l.strip_prefix("| `host_")?.split_once('`'));
    let documented: BTreeSet<String> = rows.map(|(name, _)| format!("host_{name}")).collect();
    assert_eq!(written, documented.iter().map(String::as_str).collect());
}
