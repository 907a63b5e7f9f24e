//! A node that goes down and comes back, and one that refuses us.

#[path = "beam_support/erlang.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod erlang;
#[path = "beam_support/watching.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod watching;

use std::time::Duration;

use erlang::{Epmd, signal};
use forewarn_ingest::beam::{BeamConfig, NodeConfig};
use forewarn_ingest::status::Health;
use forewarn_schemas::Timestamp;
use watching::{Seen, Watching, config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_killed_node_is_down_until_it_is_back() {
    let epmd = Epmd::start();
    let node = epmd.node(&["-sname", "phoenix"]);
    let watching = Watching::start(config(epmd.port, epmd.cookie_file("c", "COOKIE")));
    let first = watching.sample("beam_start_time_seconds", Timestamp::MIN, |_| true).await;
    watching.sample("beam_fds", Timestamp::MIN, |_| true).await;
    watching.health(Health::Up).await;
    drop(node);
    let down = watching.sample("beam_up", first.ts, |s| s.value == 0.0).await;
    // Every other series has ended, in the same moment or before.
    let ended = |metric: &'static str| {
        move |seen: &[Seen]| seen.iter().rfind(|s| s.is(metric)).filter(|s| s.is_end()).map(|s| s.ts)
    };
    for metric in ["beam_processes", "beam_memory_used_bytes", "beam_uptime_seconds", "beam_fds"] {
        let at = watching.until(metric, ended(metric)).await;
        assert!(at <= down.ts, "{metric}");
    }
    let target = watching.health(Health::Down).await;
    assert!(!target.error.is_empty());
    // It keeps being written as down.
    let again = watching.sample("beam_up", down.ts, |s| s.value == 0.0).await;

    let _node = epmd.node(&["-sname", "phoenix"]);
    let up = watching.sample("beam_up", again.ts, |s| s.value == 1.0).await;
    let second = watching.sample("beam_start_time_seconds", again.ts, |s| !s.is_end()).await;
    assert!(second.value > first.value, "the restart shows: {} then {}", first.value, second.value);
    assert_eq!((up.labels, second.labels), (down.labels, first.labels), "the same series go on");
    watching.health(Health::Up).await;
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_hung_node_is_down_and_its_neighbour_is_not() {
    let epmd = Epmd::start();
    let hung = epmd.node(&["-sname", "hung"]);
    let _well = epmd.node(&["-sname", "well"]);
    let cookie = epmd.cookie_file("c", "COOKIE");
    let call_timeout = Duration::from_millis(500);
    let watching = Watching::start(BeamConfig { call_timeout, ..config(epmd.port, cookie) });
    let of = |family: &'static str, value| move |s: &Seen| s.labels.get("family") == Some(family) && s.value == value;
    watching.sample("beam_up", Timestamp::MIN, of("well", 1.0)).await;
    let up = watching.sample("beam_up", Timestamp::MIN, of("hung", 1.0)).await;
    signal(hung.pid(), "STOP");
    let down = watching.sample("beam_up", up.ts, of("hung", 0.0)).await;
    watching.sample("beam_up", down.ts + Duration::from_secs(1), of("well", 1.0)).await;
    let well_down = watching.all().into_iter().any(|s| s.is("beam_up") && of("well", 0.0)(&s));
    assert!(!well_down, "the neighbour was never down");
    signal(hung.pid(), "CONT");
    watching.sample("beam_up", down.ts, of("hung", 1.0)).await;
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_node_of_another_uid_is_left_alone() {
    let root = rustix::process::getuid().is_root();
    if !root {
        eprintln!("SKIP a_node_of_another_uid_is_left_alone: only root can start a node under another uid");
        return;
    }
    let epmd = Epmd::start();
    let _ours = epmd.node(&["-sname", "ours"]);
    let _theirs = epmd.node_of(Some(65_534), &["-sname", "theirs"]);
    let watching = Watching::start(config(epmd.port, epmd.cookie_file("c", "COOKIE")));
    let up = watching.sample("beam_up", Timestamp::MIN, |s| s.value == 1.0).await;
    watching.sample("beam_up", up.ts + Duration::from_secs(1), |_| true).await;
    assert!(watching.all().iter().all(|s| s.labels.get("family") == Some("ours")));
    let notices = watching.board.notices();
    assert!(notices.len() == 1 && notices[0].message.contains("theirs") && notices[0].message.contains("65534"));
    assert!(notices[0].mend.contains("beam.nodes"), "{notices:?}");
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_wrong_cookie_is_not_tried_again_until_it_is_mended() {
    let epmd = Epmd::start();
    let node = epmd.node(&["-sname", "shut"]);
    let _open = epmd.node(&["-sname", "open", "-setcookie", "OTHER"]);
    let cookie = epmd.cookie_file("c", "OTHER");
    let watching = Watching::start(config(epmd.port, cookie.clone()));
    let refused = watching.health(Health::Refused).await;
    assert_eq!(refused.error, "the cookie is wrong");
    let notice = watching.board.notices().into_iter().find(|n| n.message.contains("shut")).unwrap();
    assert!(notice.mend.contains("cookie") && !format!("{notice:?}{refused:?}").contains("OTHER"), "{notice:?}");

    // Twenty more rounds of the other node, at which this one could have been tried, and was not: it logs each try.
    let ups = |seen: &[Seen]| seen.iter().filter(|s| s.is("beam_up") && s.value == 1.0).count();
    let so_far = ups(&watching.all());
    watching.until("polls of the other node", |seen| (ups(seen) >= so_far + 20).then_some(())).await;
    let printed = node.printed().join("\n");
    let tries = printed.matches("Connection attempt from node").count();
    assert!(tries <= 1, "{tries} tries: {printed}");
    assert!(watching.all().iter().all(|s| s.labels.get("family") == Some("open")), "nothing of a node not joined");

    // Mended: the file has another cookie, which is noticed long before five minutes have passed.
    epmd.cookie_file("c", "COOKIE");
    let mine = |s: &Seen| s.value == 1.0 && s.labels.get("family") == Some("shut");
    watching.sample("beam_up", Timestamp::MIN, mine).await;
    assert!(watching.board.notices().is_empty(), "{:?}", watching.board.notices());
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_discovered_node_that_stays_away_is_forgotten() {
    let epmd = Epmd::start();
    let node = epmd.node(&["-sname", "guest"]);
    let forget_after = Duration::from_millis(300);
    let cookie = epmd.cookie_file("c", "COOKIE");
    let watching = Watching::start(BeamConfig { forget_after, ..config(epmd.port, cookie) });
    let up = watching.sample("beam_up", Timestamp::MIN, |s| s.value == 1.0).await;
    drop(node);
    let end = watching.sample("beam_up", up.ts, Seen::is_end).await;
    let downs = watching.all().iter().filter(|s| s.is("beam_up") && s.ts < end.ts && s.value == 0.0).count();
    assert!(downs > 0, "it was down before it was forgotten");
    assert_eq!(watching.board.targets(), []);
    // The same name is watched anew.
    let _node = epmd.node(&["-sname", "guest"]);
    watching.sample("beam_up", end.ts, |s| s.value == 1.0).await;
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_young_node_that_leaves_is_forgotten_without_being_down() {
    let epmd = Epmd::start();
    let _stays = epmd.node(&["-sname", "stays"]);
    let cookie = epmd.cookie_file("c", "COOKIE");
    let passing_max = BeamConfig::default().passing_max;
    let watching = Watching::start(BeamConfig { passing_max, ..config(epmd.port, cookie) });
    let stays = watching.sample("beam_up", Timestamp::MIN, |s| s.value == 1.0).await;
    // Not there at the start: joined when it is seen again.
    let of_tool = |s: &Seen| s.labels.get("family") == Some("tool");
    let _left_out = epmd.node(&["-sname", "remsh1"]);
    let node = epmd.node(&["-sname", "tool"]);
    let up = watching.sample("beam_up", stays.ts, |s| of_tool(s) && s.value == 1.0).await;
    drop(node);
    let end = watching.sample("beam_up", up.ts, |s| of_tool(s) && s.is_end()).await;
    watching.sample("beam_up", end.ts + Duration::from_secs(1), |_| true).await;
    assert!(watching.all().iter().all(|s| !s.is("beam_up") || s.value != 0.0), "it was never down");
    let targets = watching.board.targets();
    assert!(targets.len() == 1 && targets[0].node.starts_with("stays@"), "{targets:?}");
    // The same name comes back and is watched anew.
    let _node = epmd.node(&["-sname", "tool"]);
    watching.sample("beam_up", end.ts, |s| of_tool(s) && s.value == 1.0).await;
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_configured_node_that_refuses_us_is_not_called_down() {
    let epmd = Epmd::start();
    let _open = epmd.node(&["-sname", "open", "-setcookie", "OTHER"]);
    let _shut = epmd.node(&["-name", "shut@127.0.0.1"]);
    let cookie = epmd.cookie_file("c", "OTHER");
    let node = NodeConfig { name: "shut@127.0.0.1".into(), cookie_file: None, cookie_env: None, epmd_port: None };
    let watching = Watching::start(BeamConfig { nodes: vec![node], ..config(epmd.port, cookie) });
    watching.health(Health::Refused).await;
    let ups = |seen: &[Seen]| seen.iter().filter(|s| s.is("beam_up") && s.value == 1.0).count();
    let so_far = ups(&watching.all());
    watching.until("polls of the other node", |seen| (ups(seen) >= so_far + 10).then_some(())).await;
    assert!(watching.all().iter().all(|s| s.labels.get("family") == Some("open")), "nothing of the one that refuses");
    assert!(watching.board.notices().iter().any(|n| n.message.contains("shut@127.0.0.1")));
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_cookie_that_others_can_read_is_told_of() {
    use std::os::unix::fs::PermissionsExt;
    let epmd = Epmd::start();
    let _node = epmd.node(&["-sname", "careless"]);
    let cookie = epmd.cookie_file("c", "COOKIE");
    std::fs::set_permissions(&cookie, std::fs::Permissions::from_mode(0o444)).unwrap();
    let watching = Watching::start(config(epmd.port, cookie));
    watching.sample("beam_up", Timestamp::MIN, |s| s.value == 1.0).await;
    let notices = watching.board.notices();
    assert!(notices.len() == 1 && notices[0].mend.starts_with("chmod 400 "), "{notices:?}");
    watching.stop().await;
}
