use super::*;

fn session() -> Session {
    Session {
        release: None,
        facts: BTreeMap::new(),
        start: Some((-1_000_000_000, 1e9)),
        start_time: Some(1.5),
        page_bytes: 4096,
        cgroup: None,
        pids: None,
        process_limit: None,
    }
}

fn rows(call: &Call, answer: &Term) -> Vec<Row> {
    let mut rows = Vec::new();
    session().rows(call, answer, &mut rows);
    rows
}

fn group(binding: Option<usize>) -> MemoryCgroup {
    MemoryCgroup {
        levels: host_text::cgroups("0::/a/b").unified,
        version: MemoryFiles::V2,
        limit_file: ControllerFile::MemoryMax,
        oom_file: ControllerFile::MemoryEventsLocal,
        binding,
    }
}

fn files(list: &[(HostFile, &str)]) -> BTreeMap<HostFile, String> {
    list.iter().map(|(file, text)| (file.clone(), (*text).to_owned())).collect()
}

#[test]
fn answers_become_rows() {
    let int = Term::Int;
    assert_eq!(
        rows(&Call::MonotonicTime, &int(500_000_000)),
        [("beam_uptime_seconds", 1.5), ("beam_start_time_seconds", 1.5)]
    );
    assert_eq!(rows(&Call::SystemInfo(SystemInfo::EtsLimit), &int(8192)), [("beam_ets_tables_limit", 8192.0)]);
    let pair = |key, value| Term::Tuple(vec![Term::atom(key), int(value)]);
    let io = Term::Tuple(vec![pair("input", 7), pair("output", 8)]);
    assert_eq!(
        rows(&Call::Statistics(Statistics::Io), &io),
        [("beam_io_input_bytes_total", 7.0), ("beam_io_output_bytes_total", 8.0)]
    );
    let memory = Term::List(vec![pair("ets", 3), pair("not_known", 4)]);
    assert_eq!(rows(&Call::Memory, &memory), [("beam_memory_ets_bytes", 3.0)]);
}

#[test]
fn answers_of_another_form_give_nothing() {
    let odd = [Term::Int(1), Term::atom("undefined"), Term::List(vec![]), Term::Tuple(vec![]), Term::Binary(vec![])];
    let mut calls = session().calls();
    calls.extend([Call::Processes, Call::OpenFds]);
    for call in &calls {
        for answer in &odd {
            let single_number_is_fine = matches!(answer, Term::Int(_));
            assert!(rows(call, answer).is_empty() || single_number_is_fine, "{call:?} {answer:?}");
        }
    }
    assert_eq!(text_of(&Term::Tuple(vec![Term::atom("error"), Term::atom("enoent")])), None);
}

#[test]
fn memory_is_the_resident_set_against_ram_without_a_cgroup_limit() {
    let mut session = session();
    session.cgroup = Some(group(None));
    let mut rows = Vec::new();
    let dir = session.cgroup.as_ref().unwrap().levels[0].clone();
    let texts = [
        (HostFile::Statm, "100 10"),
        (HostFile::Meminfo, "MemTotal: 1000 kB"),
        (HostFile::Controller(dir, ControllerFile::MemoryMax), "max"),
    ];
    session.memory(&files(&texts), &mut rows);
    assert_eq!(
        rows,
        [
            ("beam_memory_rss_bytes", 40960.0),
            ("beam_memory_used_bytes", 40960.0),
            ("beam_memory_limit_bytes", 1_024_000.0)
        ]
    );
}

#[test]
fn memory_is_the_use_of_the_cgroup_whose_limit_binds() {
    let mut session = session();
    session.cgroup = Some(group(Some(1)));
    let at = |level: usize, file| HostFile::Controller(group(None).levels[level].clone(), file);
    let texts = [
        (HostFile::Statm, "100 10"),
        (HostFile::Meminfo, "MemTotal: 1000 kB"),
        (at(0, ControllerFile::MemoryMax), "900000"),
        (at(1, ControllerFile::MemoryMax), "500000"),
        // Page cache, on the active list or not, is no use.
        (
            at(1, ControllerFile::MemoryStat),
            "anon 200000\nfile 90000\nactive_file 80000\nkernel 40000\nshmem 7000\nunevictable 3000\n",
        ),
        (at(0, ControllerFile::MemoryEventsLocal), "oom 1\noom_kill 2\n"),
        (at(1, ControllerFile::MemoryEventsLocal), "oom 1\noom_kill 9\n"),
    ];
    let asked = session.cgroup.as_ref().unwrap().files();
    assert!(
        asked.contains(&at(1, ControllerFile::MemoryStat)) && asked.contains(&at(0, ControllerFile::MemoryEventsLocal))
    );
    let mut rows = Vec::new();
    session.memory(&files(&texts), &mut rows);
    assert_eq!(
        rows,
        [
            ("beam_memory_rss_bytes", 40960.0),
            ("beam_cgroup_oom_kills_total", 2.0),
            ("beam_memory_used_bytes", 250_000.0),
            ("beam_memory_limit_bytes", 500_000.0)
        ]
    );
    // The limit moves to another level: its use is not known until the next poll, and nothing wrong is said.
    let mut moved = files(&texts);
    moved.insert(at(0, ControllerFile::MemoryMax), "400000".into());
    let mut rows = Vec::new();
    session.memory(&moved, &mut rows);
    assert_eq!(rows, [("beam_memory_rss_bytes", 40960.0), ("beam_cgroup_oom_kills_total", 2.0)]);
    assert_eq!(session.cgroup.unwrap().binding, Some(0));
}

#[test]
fn releases_of_erlang_itself_are_none() {
    let id = |name: &str| Term::Tuple(vec![Term::Text(name.into()), Term::Text(b"1.2".to_vec())]);
    assert_eq!(release_of(&id("Erlang/OTP")), None);
    assert_eq!(release_of(&id("start_clean")), None);
    assert_eq!(release_of(&id("a\nb")), None);
    assert_eq!(release_of(&id("emqx")), Some(("emqx".into(), "1.2".into())));
    assert_eq!(release_of(&Term::Int(1)), None);
}
