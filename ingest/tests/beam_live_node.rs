//! A real node is found at its epmd, watched, and not changed.

#[path = "beam_support/erlang.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod erlang;
#[path = "beam_support/watching.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod watching;

use std::time::Duration;

use erlang::Epmd;
use forewarn_ingest::beam::{BeamConfig, NodeConfig};
use forewarn_ingest::status::Health;
use forewarn_schemas::Timestamp;
use watching::{Watching, config, now};

const ALL: [&str; 36] = [
    "beam_up",
    "beam_memory_used_bytes",
    "beam_memory_limit_bytes",
    "beam_memory_rss_bytes",
    "beam_memory_total_bytes",
    "beam_memory_processes_bytes",
    "beam_memory_processes_used_bytes",
    "beam_memory_system_bytes",
    "beam_memory_atom_bytes",
    "beam_memory_atom_used_bytes",
    "beam_memory_binary_bytes",
    "beam_memory_code_bytes",
    "beam_memory_ets_bytes",
    "beam_processes",
    "beam_processes_limit",
    "beam_ports",
    "beam_ports_limit",
    "beam_atoms",
    "beam_atoms_limit",
    "beam_ets_tables",
    "beam_ets_tables_limit",
    "beam_fds",
    "beam_fds_limit",
    "beam_run_queue_length",
    "beam_run_queues_length",
    "beam_active_tasks",
    "beam_reductions_total",
    "beam_gc_total",
    "beam_gc_words_reclaimed_total",
    "beam_io_input_bytes_total",
    "beam_io_output_bytes_total",
    "beam_context_switches_total",
    "beam_uptime_seconds",
    "beam_start_time_seconds",
    "beam_schedulers_online",
    "beam_poll_duration_seconds",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_everything_is_written_and_plausible() {
    let epmd = Epmd::start();
    let mut node = epmd.node(&["-name", "x@127.0.0.1", "+P", "4096", "+t", "100000", "+Q", "2048"]);
    let watching = Watching::start(config(epmd.port, epmd.cookie_file("c", "COOKIE")));
    watching.until("all metrics", |seen| ALL.iter().all(|m| seen.iter().any(|s| s.is(m))).then_some(())).await;
    let latest = watching.latest();
    let of = |name: &str| latest[name];

    // Limits are the node's own, read live.
    assert_eq!(of("beam_processes_limit"), node.number("erlang:system_info(process_limit)"));
    assert!(of("beam_processes_limit") >= 4096.0 && of("beam_processes_limit") < 262_144.0);
    assert_eq!(of("beam_atoms_limit"), node.number("erlang:system_info(atom_limit)"));
    assert!(of("beam_atoms_limit") >= 100_000.0 && of("beam_atoms_limit") < 1_048_576.0);
    assert_eq!(of("beam_ports_limit"), node.number("erlang:system_info(port_limit)"));
    assert_eq!(of("beam_ets_tables_limit"), node.number("erlang:system_info(ets_limit)"));
    // The resident set as this machine sees it, within what a living node moves.
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    let rss: f64 = rss.trim().trim_end_matches("kB").trim().parse().unwrap();
    let ratio = of("beam_memory_rss_bytes") / (rss * 1024.0);
    assert!((0.5..2.0).contains(&ratio), "{} against {rss} kB", of("beam_memory_rss_bytes"));
    assert!(of("beam_memory_used_bytes") < of("beam_memory_limit_bytes"));
    let sum = of("beam_memory_processes_bytes") + of("beam_memory_system_bytes");
    assert_eq!(of("beam_memory_total_bytes"), sum);
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count() as f64;
    assert!((of("beam_fds") - open).abs() <= 3.0, "{} against {open}", of("beam_fds"));
    let start = node.number("(erlang:system_info(start_time) + erlang:time_offset()) div 1000000000");
    assert!((of("beam_start_time_seconds") - start).abs() <= 1.0);
    let age = now().as_secs_f64() - of("beam_start_time_seconds") - of("beam_uptime_seconds");
    assert!((-1.0..30.0).contains(&age), "{age}");
    for whole in ["beam_processes", "beam_atoms", "beam_reductions_total", "beam_memory_rss_bytes"] {
        assert!(of(whole) > 0.0 && of(whole).fract() == 0.0, "{whole} {}", of(whole));
    }

    let up = watching.sample("beam_up", Timestamp::MIN, |_| true).await;
    let expected = r#"beam_up{discovered="local",family="x",job="beam",node="x@127.0.0.1"}"#;
    assert_eq!((up.labels.to_string().as_str(), up.value), (expected, 1.0));
    let target = watching.health(Health::Up).await;
    assert_eq!((target.node.as_str(), target.family.as_str(), target.configured), ("x@127.0.0.1", "x", false));
    assert_eq!(format!("{:?}", target.facts["otp_release"]), node.eval("erlang:system_info(otp_release)"));
    assert!(watching.board.notices().is_empty(), "{:?}", watching.board.notices());
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_the_node_is_not_changed() {
    let epmd = Epmd::start();
    let mut node = epmd.node(&["-sname", "quiet"]);
    // In the mesh, but not at this epmd under a name that the collector would watch with the right cookie.
    let mut peer = epmd.node(&["-sname", "peer"]);
    let name = node.eval("node()");
    peer.eval(&format!("net_kernel:connect_node({name})"));
    let modules = "length(code:all_loaded())";
    let atoms = "erlang:system_info(atom_count)";
    let questions = [modules, "nodes()", "global:registered_names()"];
    let new = "[{P, erlang:process_info(P)} || P <- erlang:processes() -- get(before)]";
    let wait = "(fun Wait() -> case nodes(hidden) of [] -> ok; _ -> erlang:yield(), Wait() end end)()";
    // Whoever is the first to call erlang:memory() in the life of an emulator makes it name its allocators, some three
    // hundred atoms, and the names of these items are not there until somebody asks. Neither comes with a connection.
    let usual = "[erlang:memory() | [erlang:system_info(I) || I <- [ets_count, ets_limit, atom_limit, start_time]]]";
    node.eval("begin put(before, []), ok end");
    for _ in 0..2 {
        // The first round loads and names what the questions of this test need.
        questions.iter().chain([&atoms, &"nodes(hidden)", &usual, &new, &wait]).for_each(|q| drop(node.eval(q)));
    }
    let before = questions.map(|q| node.eval(q));
    node.eval("begin put(before, erlang:processes()), ok end");
    let atoms_before = node.number(atoms);

    let cookie = epmd.cookie_file("c", "COOKIE");
    for round in 0..50 {
        let watching = Watching::start(config(epmd.port, cookie.clone()));
        let mine = |s: &watching::Seen| s.value == 1.0 && s.labels.get("node") == Some(name.trim_matches('\''));
        let up = watching.sample("beam_up", Timestamp::MIN, mine).await;
        if round == 49 {
            // Polls and scans go on while we look.
            let scans = |seen: &[watching::Seen]| seen.iter().filter(|s| s.is("beam_fds")).count();
            watching.until("scans", |seen| (scans(seen) >= 6).then_some(())).await;
            watching.sample("beam_up", up.ts + Duration::from_secs(1), |s| s.value == 1.0).await;
            assert_eq!(before[1], node.eval("nodes()"), "the mesh has changed");
            let hidden = node.eval("nodes(hidden)");
            assert!(hidden.contains("forewarn@") && !hidden.contains(','), "{hidden}");
        }
        watching.stop().await;
    }
    // The node's end of the connection is a process too, and goes when the node has noticed.
    node.eval(wait);
    let left = (0..1000).map(|_| node.eval(new)).find(|new| new == "[]");
    assert_eq!(left.as_deref(), Some("[]"), "left behind: {}", node.eval(new));
    assert_eq!(before, questions.map(|q| node.eval(q)));
    let growth = node.number(atoms) - atoms_before;
    eprintln!("atoms after 50 connections: +{growth}");
    assert!(growth <= 2.0, "{growth} new atoms");
    assert_eq!(node.printed(), Vec::<String>::new(), "the node printed something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_configured_node_is_watched_once() {
    let epmd = Epmd::start();
    let _node = epmd.node(&["-name", "conf@127.0.0.1"]);
    let _other = epmd.node(&["-name", "disc@127.0.0.1"]);
    let conf = NodeConfig {
        name: "conf@127.0.0.1".into(),
        cookie_file: Some(epmd.cookie_file("own", "COOKIE")),
        cookie_env: None,
        epmd_port: None,
    };
    let absent = NodeConfig { name: "absent@127.0.0.1".into(), ..conf.clone() };
    let config = BeamConfig { nodes: vec![conf, absent], ..config(epmd.port, epmd.cookie_file("c", "COOKIE")) };
    let watching = Watching::start(config);
    let up = |node: &'static str, value: f64| {
        move |seen: &[watching::Seen]| {
            let of = seen.iter().filter(move |s| s.is("beam_up") && s.labels.get("node") == Some(node));
            (of.filter(|s| s.value == value).count() >= 3).then_some(())
        }
    };
    watching.until("configured", up("conf@127.0.0.1", 1.0)).await;
    watching.until("discovered", up("disc@127.0.0.1", 1.0)).await;
    watching.until("absent", up("absent@127.0.0.1", 0.0)).await;
    for seen in watching.all() {
        let by = if seen.labels.get("node") == Some("disc@127.0.0.1") { "local" } else { "config" };
        assert_eq!(seen.labels.get("discovered"), Some(by), "{}", seen.labels);
    }
    let health: Vec<(String, Health)> = watching.board.targets().into_iter().map(|t| (t.node, t.health)).collect();
    let expected = [("absent", Health::Down), ("conf", Health::Up), ("disc", Health::Up)];
    assert_eq!(health, expected.map(|(n, h)| (format!("{n}@127.0.0.1"), h)));
    watching.stop().await;
}
