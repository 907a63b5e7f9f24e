//! A state file of version 1 must open for ever, and mean the same.
//!
//! `FOREWARN_BLESS=1` writes it anew, which is right only until version 1 is released.

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{alert, ended, metrics, router_config};
use forewarn_alert::receiver::{Reason, Retry, SendError};
use forewarn_alert::{EmbeddedStateLog, Error, MemoryStateLog, Router, StateLog};
use forewarn_schemas::{AlertStatus, Timestamp};
use serde_json::{Value, json};

const CONFIG: &str = r#"
route: {receiver: ops/night, group_by: [alertname], group_wait: 10s, group_interval: 1m}
receivers: [{name: ops/night, webhook_configs: [{url: "http://x"}]}]
"#;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")).join(name)
}

fn open(state: Arc<dyn StateLog>, now: Timestamp) -> Router {
    Router::open(router_config(CONFIG), state, metrics(), now).unwrap()
}

/// Leaves a record of every kind: told, over, flapping, never answered, waiting, dead.
fn write(state: &Arc<dyn StateLog>) {
    let mut router = open(Arc::clone(state), START);
    let critical = |name: &str, now| alert(name, &[("severity", "critical"), ("node", "n")], now);
    for name in ["Told", "Over", "Waiting", "Dead", "Hanging"] {
        router.reconcile(START, name, vec![critical(name, START)], &[]);
    }
    router.apply(START, vec![alert("Shown", &[("severity", "info")], START)]);
    for n in router.due(at(10)) {
        let fail = |retry, reason| Err(SendError::new(retry, reason, "scripted"));
        match n.group_labels.get("alertname").unwrap() {
            "Waiting" => router.sent(at(10), &n, fail(Retry::After(Duration::from_secs(600)), Reason::RateLimited)),
            "Dead" => router.sent(at(10), &n, fail(Retry::Never, Reason::Rejected)),
            "Hanging" => {}
            _ => router.sent(at(10), &n, Ok(())),
        }
    }
    router.apply(at(20), vec![ended(critical("Over", START), at(20))]);
    router.apply(at(25), vec![critical("Over", at(25))]);
    router.apply(at(30), vec![ended(critical("Over", at(25)), at(30))]);
}

#[test]
fn a_state_file_of_version_1_opens() {
    let golden = fixture("state-v1.redb");
    if std::env::var_os("FOREWARN_BLESS").is_some() {
        let _ = std::fs::remove_file(&golden);
        let state: Arc<dyn StateLog> = Arc::new(EmbeddedStateLog::open(&golden).unwrap());
        write(&state);
        let lines: Vec<String> =
            state.scan("").unwrap().iter().map(|(k, v)| json!({"key": k, "value": v}).to_string()).collect();
        std::fs::write(fixture("state-v1.jsonl"), lines.join("\n") + "\n").unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("state.redb");
    std::fs::copy(&golden, &copy).unwrap();
    let state = Arc::new(EmbeddedStateLog::open(&copy).unwrap());

    // The same records stand beside it as text, for other readers.
    let text = std::fs::read_to_string(fixture("state-v1.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let records: Vec<Value> = state.scan("").unwrap().iter().map(|(k, v)| json!({"key": k, "value": v})).collect();
    assert_eq!(records, lines);

    let mut router = open(state, at(40));
    let mut views: Vec<(String, AlertStatus, Option<Timestamp>)> = router
        .alerts(at(40))
        .into_iter()
        .map(|v| (v.alert.labels.get("alertname").unwrap().to_owned(), v.status, v.last_notified))
        .collect();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    let firing = AlertStatus::Firing;
    assert_eq!(
        views,
        [
            ("Dead".into(), firing, None),
            ("Hanging".into(), firing, None),
            ("Over".into(), firing, Some(at(10))),
            ("Shown".into(), firing, None),
            ("Told".into(), firing, Some(at(10))),
            ("Waiting".into(), firing, None),
        ],
        "Over is flapping, so its end is held"
    );
    assert_eq!(router.dead_letters()[0].reason, "rejected");
    let due = router.due(at(40));
    assert_eq!(due, [], "the receiver asked for ten minutes");
    let due: Vec<String> =
        router.due(at(611)).iter().map(|n| n.group_labels.get("alertname").unwrap().to_owned()).collect();
    assert_eq!(due.len(), 3, "what is dead, hanging and waiting: {due:?}");
}

#[test]
fn what_is_written_today_is_what_the_fixture_has() {
    let state: Arc<dyn StateLog> = Arc::new(MemoryStateLog::new());
    write(&state);
    let text = std::fs::read_to_string(fixture("state-v1.jsonl")).unwrap();
    let records: Vec<String> =
        state.scan("").unwrap().iter().map(|(k, v)| json!({"key": k, "value": v}).to_string()).collect();
    assert_eq!(records, text.lines().collect::<Vec<_>>());
}

#[test]
fn a_newer_record_stops_the_start_and_a_damaged_one_does_not() {
    let state = Arc::new(MemoryStateLog::new());
    write(&(Arc::clone(&state) as Arc<dyn StateLog>));
    let registry = prometheus::Registry::new();
    let metrics = forewarn_alert::Metrics::new(&registry).unwrap();
    for (key, bad) in [("alert/x1", json!(null)), ("alert/x2", json!({"v": 1})), ("group/x", json!({"v": 0}))] {
        state.put(key, bad).unwrap();
    }
    let router = Router::open(router_config(CONFIG), Arc::clone(&state) as Arc<dyn StateLog>, metrics, at(40)).unwrap();
    assert_eq!(router.alerts(at(40)).len(), 6);
    let family = registry.gather().into_iter().find(|f| f.name() == "forewarn_alert_state_damaged_total").unwrap();
    assert_eq!(family.get_metric()[0].get_counter().get_value(), 3.0);
    assert_eq!(state.scan("alert/x1").unwrap().len(), 1, "left alone, for a person to look at");
    drop(router);

    state.put("delivery/x", json!({"v": 2})).unwrap();
    let before = state.scan("").unwrap();
    let again = Router::open(router_config(CONFIG), Arc::clone(&state) as Arc<dyn StateLog>, common::metrics(), at(40));
    assert!(matches!(again, Err(Error::NewerRecord { found: 2, .. })));
    assert_eq!(state.scan("").unwrap(), before);
}
