//! Real Erlang nodes that leak until they are full: each must be called in time, with the right time, in words, once.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Erlang, Forewarn, Hook, Process, eventually, progress};

/// One leak: what the node does, and what must be said about it.
struct Leak {
    node: &'static str,
    resource: &'static str,
    object: &'static str,
    /// The resource that is full in the end: for ETS tables the memory of the whole node.
    ends: &'static str,
    /// The share of its limit at which the test takes it for full.
    full: f64,
    flags: &'static [&'static str],
    /// Erlang that leaks for ever and survives the limit.
    code: &'static str,
}

const PROCESSES: Leak = Leak {
    node: "processes",
    resource: "processes",
    object: "",
    ends: "processes",
    full: 0.985,
    flags: &["+P", "16384"],
    code: "L = fun L() -> catch [spawn(fun() -> receive never -> ok end end) || _ <- lists:seq(1, 16)], timer:sleep(100), L() end, L().",
};

const ATOMS: Leak = Leak {
    node: "atoms",
    resource: "atoms",
    object: "",
    ends: "atoms",
    full: 0.985,
    flags: &["+t", "40000"],
    // It stops short of the limit, where the emulator would abort: the limit is reached in effect.
    code: "N = fun() -> erlang:system_info(atom_limit) - erlang:system_info(atom_count) end, \
           L = fun L(I) -> K = case N() > 40 of true -> 25; false -> 0 end, \
           [list_to_atom(\"leak\" ++ integer_to_list(I * 100 + J)) || J <- lists:seq(1, K)], timer:sleep(100), L(I + 1) end, L(0).",
};

const MAILBOX: Leak = Leak {
    node: "mailbox",
    resource: "mailbox",
    object: "drowning",
    ends: "mailbox",
    full: 0.985,
    flags: &[],
    code: "register(drowning, spawn(fun() -> receive never -> ok end end)), \
           L = fun L() -> [drowning ! hello || _ <- lists:seq(1, 20)], timer:sleep(100), L() end, L().",
};

/// In a cgroup of [`ETS_LIMIT`] bytes; it stops just short of where the kernel would kill the node.
const ETS: Leak = Leak {
    node: "ets",
    resource: "ets_memory",
    object: "",
    ends: "memory",
    full: 0.975,
    flags: &["+S", "1"],
    code: "T = ets:new(leak, [public]), \
           Anonymous = fun() -> {ok, B} = file:read_file(\"/proc/self/status\"), \
           {match, [N]} = re:run(B, \"RssAnon:\\\\s+(\\\\d+)\", [{capture, [1], list}]), list_to_integer(N) * 1024 end, \
           L = fun L(I) -> case Anonymous() < 1054000000 of true -> \
           ets:insert(T, {I, lists:duplicate(52000, I)}); false -> ok end, timer:sleep(100), L(I + 1) end, L(0).",
};
const ETS_LIMIT: u64 = 1 << 30;

const CONFIG: &str = "
forecast: {step: 1s}
collectors:
  host: {enabled: false}
  beam: {interval: 1s, mailbox_interval: 5s}
route:
  receiver: quiet
  routes:
    - {receiver: hook, matchers: ['severity=\"critical\"'], group_by: [node, resource, object], group_wait: 1s, group_interval: 5s}
receivers:
  - {name: quiet}
  - name: hook
    webhook_configs: [{url: HOOK}]
";

/// What a watched leak showed.
struct Seen {
    began: Instant,
    states: Vec<String>,
    called: Option<(f64, f64)>,
    ended: bool,
}

#[test]
fn needs_erlang_leaks_are_called_in_time_once_and_end_with_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let hook = Hook::start();
    let erlang = Erlang::start(temp.path());
    let forewarn = Forewarn::start_with(temp.path(), &CONFIG.replace("HOOK", &hook.url), &erlang.env());
    let cgroup = Cgroup::with_memory(ETS_LIMIT);
    let mut leaks = vec![PROCESSES, ATOMS, MAILBOX];
    if cgroup.is_some() {
        leaks.push(ETS);
    } else {
        progress("SKIPPED: ETS, since no memory cgroup can be made here");
    }
    let start = |leak: &Leak, code: &str| {
        let inside = cgroup.as_ref().filter(|_| leak.node == "ets").map(|c| c.0.as_path());
        erlang.node(leak.node, leak.flags, code, inside)
    };
    let mut nodes: Vec<Process> = leaks.iter().map(|l| start(l, l.code)).collect();
    let mut seen: Vec<Seen> =
        leaks.iter().map(|_| Seen { began: Instant::now(), states: vec![], called: None, ended: false }).collect();

    eventually("every leak is exhausted", Duration::from_secs(300), || {
        for (leak, seen) in leaks.iter().zip(&mut seen) {
            watch(&forewarn, leak, seen);
        }
        seen.iter().all(|s| s.ended).then_some(())
    });
    for (leak, seen) in leaks.iter().zip(&seen) {
        judge(&forewarn, leak, seen);
    }
    for leak in &leaks {
        let node = format!("{}@127.0.0.1", leak.node);
        let firing: Vec<Value> = hook.of(&node, leak.resource);
        assert_eq!(firing.len(), 1, "{}: one notification while it lasts: {firing:#?}", leak.node);
        assert_eq!(firing[0]["status"], "firing");
        let text = firing[0]["alerts"][0]["annotations"]["summary"].as_str().expect("a summary");
        assert!(text.contains(&node) && text.contains("in about"), "{text}");
        progress(&format!("{}: {text}", leak.node));
    }

    // Restarted clean, each resolves.
    drop(std::mem::take(&mut nodes));
    nodes = leaks.iter().map(|l| start(l, "ok.")).collect();
    for leak in &leaks {
        let node = format!("{}@127.0.0.1", leak.node);
        let resolved = eventually("the restart resolves it", Duration::from_secs(60), || {
            hook.of(&node, leak.resource).into_iter().find(|p| p["status"] == "resolved")
        });
        assert_eq!(resolved["alerts"][0]["status"], "resolved");
    }
    drop(nodes);
    assert!(forewarn.terminate().success());
}

fn watch(forewarn: &Forewarn, leak: &Leak, seen: &mut Seen) {
    let node = format!("{}@127.0.0.1", leak.node);
    // Above its share the kernel would kill the node of the ETS leak before anybody could look.
    let is_full = |f: &Value| leak.ends != leak.resource && f["used_ratio"].as_f64().is_some_and(|r| r >= leak.full);
    let end = forewarn.forecast(&node, leak.ends, leak.object);
    seen.ended |= end.is_some_and(|f| f["state"] == "exhausted" || is_full(&f));
    let Some(f) = forewarn.forecast(&node, leak.resource, leak.object) else { return };
    let state = f["state"].as_str().expect("a state").to_owned();
    if seen.states.last() != Some(&state) {
        let elapsed = seen.began.elapsed().as_secs_f64();
        progress(&format!(
            "{:>9} {:>6.1} s {state:<9} {}",
            leak.node,
            elapsed,
            f["sentence"].as_str().unwrap_or_default()
        ));
        seen.states.push(state.clone());
    }
    if state == "critical" && seen.called.is_none() {
        let at = f["at"].as_f64().expect("a time") / 1000.0;
        seen.called = Some((at, f["time_to_exhaustion"]["p50"].as_f64().expect("a median")));
    }
}

/// Called before half of the time was over, with a time within 20 % of the real one.
fn judge(forewarn: &Forewarn, leak: &Leak, seen: &Seen) {
    let (called, predicted) = seen.called.unwrap_or_else(|| panic!("{}: never critical: {:?}", leak.node, seen.states));
    let order: Vec<&str> = seen.states.iter().map(String::as_str).collect();
    let wanted: &[&str] = if leak.ends == leak.resource { &["critical", "exhausted"] } else { &["critical"] };
    assert!(order.ends_with(wanted), "{}: once called it is not taken back: {order:?}", leak.node);
    let (metric, limit) = match leak.ends {
        "processes" => ("beam_processes", "beam_processes_limit"),
        "atoms" => ("beam_atoms", "beam_atoms_limit"),
        "mailbox" => ("beam_mailbox_messages", "beam_mailbox_limit_messages"),
        _ => ("beam_memory_used_bytes", "beam_memory_limit_bytes"),
    };
    let node = format!("{}@127.0.0.1", leak.node);
    let object =
        if leak.object.is_empty() { String::new() } else { format!(" AND labels['process'] = '{}'", leak.object) };
    let value = |query: String| forewarn.sql(&query).first().map(|r| r[0].clone()).unwrap_or_default();
    // The comparison leaves stale markers out.
    let limit =
        format!("SELECT max(value) FROM samples WHERE metric = '{limit}' AND node = '{node}' AND value < 1e300");
    let limit = value(limit);
    let limit = limit.as_f64().unwrap_or_else(|| panic!("{}: no limit in the history", leak.node));
    let of = format!("FROM samples WHERE metric = '{metric}' AND node = '{node}'{object}");
    let seconds = |v: Value| v.as_f64().or(v.as_i64().map(|i| i as f64)).expect("a time") / 1000.0;
    let began = seconds(value(format!("SELECT CAST(min(ts) AS BIGINT) {of}")));
    let full = seconds(value(format!("SELECT CAST(min(ts) AS BIGINT) {of} AND value >= {}", limit * leak.full)));
    progress(&format!(
        "{:>9}: called {:.0} s after the first sample, full after {:.0} s, predicted {:.0} s",
        leak.node,
        called - began,
        full - began,
        called + predicted - began
    ));
    assert!(called - began < (full - began) / 2.0, "{}: called too late", leak.node);
    let error = (called + predicted - full).abs() / (full - called);
    assert!(error < 0.2, "{}: the predicted time is {:.0} % off", leak.node, error * 100.0);
}

/// A memory cgroup of the test's own, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn with_memory(limit: u64) -> Option<Self> {
        let name = format!("forewarn-test-{}", std::process::id());
        let v1 = PathBuf::from("/sys/fs/cgroup/memory").join(&name);
        let v2 = PathBuf::from("/sys/fs/cgroup").join(&name);
        for (dir, file) in [(v1, "memory.limit_in_bytes"), (v2, "memory.max")] {
            if std::fs::create_dir(&dir).is_ok() {
                if std::fs::write(dir.join(file), limit.to_string()).is_ok() {
                    return Some(Self(dir));
                }
                let _ = std::fs::remove_dir(&dir);
            }
        }
        None
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes have just been killed; the kernel lets go of them a moment later.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
