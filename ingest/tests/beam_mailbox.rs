//! Mailboxes that grow, and the moment in which the process table is full.

#[path = "beam_support/erlang.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod erlang;
#[path = "beam_support/watching.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod watching;

use erlang::{Epmd, ErlNode};
use forewarn_ingest::beam::BeamConfig;
use forewarn_ingest::status::Health;
use forewarn_schemas::Timestamp;
use watching::{Seen, Watching, config};

fn of(process: &'static str, least: f64) -> impl Fn(&Seen) -> bool {
    move |s| s.labels.get("process") == Some(process) && s.value >= least
}

/// Starts a process that reads nothing but `stop`, registered under `name`, and leaves its id in `get(name)`.
fn deaf(node: &mut ErlNode, name: &str, register: bool) {
    let register = if register { format!("register({name}, P)") } else { "ok".into() };
    node.eval(&format!("begin P = spawn(fun() -> receive stop -> ok end end), {register}, put({name}, P), ok end"));
}

fn fill(node: &mut ErlNode, name: &str, messages: u32) {
    node.eval(&format!("begin [get({name}) ! I || I <- lists:seq(1, {messages})], ok end"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_growth_is_seen_and_the_end_too() {
    let epmd = Epmd::start();
    let mut node = epmd.node(&["-sname", "post"]);
    deaf(&mut node, "box", true);
    deaf(&mut node, "small", true);
    deaf(&mut node, "nameless", false);
    fill(&mut node, "box", 1500);
    fill(&mut node, "small", 999);
    fill(&mut node, "nameless", 2500);
    let watching = Watching::start(config(epmd.port, epmd.cookie_file("c", "COOKIE")));
    let metric = "beam_mailbox_messages";
    let first = watching.sample(metric, Timestamp::MIN, of("box", 1500.0)).await;
    assert_eq!(first.value, 1500.0);
    let nameless = watching.sample(metric, Timestamp::MIN, of("unregistered", 1.0)).await;
    assert_eq!(nameless.value, 2500.0);
    fill(&mut node, "box", 30_000);
    let grown = watching.sample(metric, first.ts, of("box", 31_500.0)).await;
    let limit = watching.sample("beam_mailbox_limit_messages", Timestamp::MIN, of("box", 0.0)).await;
    assert_eq!(limit.value, 20_000.0);
    assert!(watching.all().iter().all(|s| s.labels.get("process") != Some("small")), "below the least length");

    node.eval("exit(whereis(box), kill)");
    let end = watching.sample(metric, grown.ts, |s| s.labels.get("process") == Some("box") && s.is_end()).await;
    node.eval("exit(get(nameless), kill)");
    watching.sample(metric, end.ts, |s| s.labels.get("process") == Some("unregistered") && s.is_end()).await;
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_sample_finds_what_is_long_in_the_end() {
    let epmd = Epmd::start();
    let mut node = epmd.node(&["-sname", "crowd"]);
    node.eval("begin [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, 5000)], ok end");
    deaf(&mut node, "lost", false);
    deaf(&mut node, "known", true);
    node.eval("begin [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, 5000)], ok end");
    fill(&mut node, "lost", 3000);
    fill(&mut node, "known", 4000);
    let cookie = epmd.cookie_file("c", "COOKIE");
    let watching = Watching::start(BeamConfig { scan_processes_max: 2000, ..config(epmd.port, cookie) });
    let known = watching.sample("beam_mailbox_messages", Timestamp::MIN, of("known", 4000.0)).await;
    let lost = watching.sample("beam_mailbox_messages", Timestamp::MIN, of("unregistered", 3000.0)).await;
    assert!(known.ts <= lost.ts, "registered processes are in every scan");
    let seen = watching.health(Health::Up).await.facts["mailboxes"].clone();
    assert!(seen.ends_with(|c: char| c.is_ascii_digit()) && seen.contains(" of 10"), "{seen}");
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_erlang_a_full_process_table_is_at_its_limit_and_the_node_is_up() {
    let epmd = Epmd::start();
    let mut node = epmd.node(&["-sname", "full", "+P", "1024"]);
    let watching = Watching::start(config(epmd.port, epmd.cookie_file("c", "COOKIE")));
    let first = watching.sample("beam_processes", Timestamp::MIN, |_| true).await;
    let limit = watching.sample("beam_processes_limit", Timestamp::MIN, |_| true).await.value;
    assert!(limit >= 1024.0);
    node.eval(
        "begin put(filler, spawn(fun() -> F = fun G() -> \
            try spawn(fun() -> receive stop -> ok end end) of _ -> ok catch _:_ -> erlang:yield() end, G() end, F() end)), ok end",
    );
    let full = watching.sample("beam_processes", first.ts, |s| s.value == limit).await;
    let later = watching.sample("beam_up", full.ts, |_| true).await;
    assert_eq!(later.value, 1.0, "a node that is full still lives");
    let ended = watching.all().iter().any(|s| s.is("beam_atoms") && s.is_end());
    assert!(!ended, "what cannot be asked for now is not gone");
    watching.stop().await;
}
