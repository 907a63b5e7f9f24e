//! What stays and what goes when the configuration changes, live or over a restart; and what is held.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{alert, metrics, router_config};
use forewarn_alert::{MemoryStateLog, Router, StateLog};
use forewarn_schemas::{AlertStatus, ResourceKey, Timestamp};

const BEFORE: &str = r#"
route:
  receiver: a
  group_by: [alertname]
  routes: [{receiver: b, matchers: ['team="b"']}]
receivers:
  - {name: a, webhook_configs: [{url: "http://x"}]}
  - {name: b, webhook_configs: [{url: "http://x"}]}
"#;
/// The same without receiver b, and with a second integration for a.
const AFTER: &str = r#"
route: {receiver: a, group_by: [alertname], group_interval: 1m}
receivers: [{name: a, webhook_configs: [{url: "http://x"}, {url: "http://y"}]}]
"#;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn open(config: &str, state: &Arc<dyn StateLog>, now: Timestamp) -> Router {
    Router::open(router_config(config), Arc::clone(state), metrics(), now).unwrap()
}

/// Answers all that is due with success; returns it as `receiver/integration alertname`.
fn told(router: &mut Router, now: Timestamp) -> Vec<String> {
    let due = router.due(now);
    for n in &due {
        router.sent(now, n, Ok(()));
    }
    let name = |n: &forewarn_alert::notification::Notification| {
        let (receiver, integration) = (&n.delivery.group.receiver, &n.delivery.integration);
        format!("{receiver}/{integration} {}", n.group_labels.get("alertname").unwrap())
    };
    due.iter().map(name).collect()
}

fn begin(state: &Arc<dyn StateLog>) -> Router {
    let mut router = open(BEFORE, state, START);
    let one = alert("One", &[("severity", "critical")], START);
    let two = alert("Two", &[("severity", "critical"), ("team", "b")], START);
    router.apply(START, vec![one, two]);
    assert_eq!(told(&mut router, at(10)), ["a/webhook[0] One", "b/webhook[0] Two"]);
    router
}

fn goes_on(router: &mut Router, state: &Arc<dyn StateLog>) {
    // The alert of the receiver that is gone goes to the one there is, after the wait of a new group; it has gone on
    // for longer than that, so at once. What a was told it is not told again; the new integration knows nothing yet.
    assert_eq!(told(router, at(100)), ["a/webhook[0] Two", "a/webhook[1] Two"]);
    assert_eq!(told(router, at(310)), ["a/webhook[1] One"]);
    assert_eq!(told(router, at(3000)), [""; 0]);
    let keys: Vec<String> = state.scan("").unwrap().into_iter().map(|(k, _)| k).collect();
    assert!(!keys.iter().any(|k| k.contains("/b/")), "nothing is left of receiver b: {keys:#?}");
}

#[test]
fn a_live_change() {
    let state: Arc<dyn StateLog> = Arc::new(MemoryStateLog::new());
    let mut router = begin(&state);
    router.reconfigure(at(100), router_config(AFTER));
    goes_on(&mut router, &state);
}

#[test]
fn a_change_over_a_restart() {
    let state: Arc<dyn StateLog> = Arc::new(MemoryStateLog::new());
    drop(begin(&state));
    goes_on(&mut open(AFTER, &state, at(100)), &state);
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    let state: Arc<dyn StateLog> = Arc::new(MemoryStateLog::new());
    let mut router = begin(&state);
    let before = state.scan("").unwrap();
    router.reconfigure(at(20), router_config(BEFORE));
    drop(router);
    let mut router = open(BEFORE, &state, at(30));
    assert_eq!(state.scan("").unwrap(), before);
    assert_eq!(told(&mut router, at(309)), [""; 0]);
}

#[test]
fn the_answer_of_a_receiver_that_is_gone_is_ignored() {
    let state: Arc<dyn StateLog> = Arc::new(MemoryStateLog::new());
    let mut router = open(BEFORE, &state, START);
    router.apply(START, vec![alert("Two", &[("severity", "critical"), ("team", "b")], START)]);
    let due = router.due(at(10));
    router.reconfigure(at(11), router_config(AFTER));
    router.sent(at(12), &due[0], Ok(()));
    assert_eq!(told(&mut router, at(30)), ["a/webhook[0] Two", "a/webhook[1] Two"]);
}

#[test]
fn what_is_held_does_not_end_and_the_rest_does() {
    let state: Arc<dyn StateLog> = Arc::new(MemoryStateLog::new());
    let mut router = open(BEFORE, &state, START);
    let of = |resource, object| {
        let labels = [("severity", "critical"), ("node", "n"), ("resource", resource), ("object", object)];
        alert("ResourceExhaustion", &labels, START)
    };
    let all = vec![of("disk", "/"), of("disk", "/var"), of("memory", "")];
    router.reconcile(START, "p0", all, &[]);
    let held = ResourceKey { node: "n".into(), resource: "disk".into(), object: "/var".into() };
    router.reconcile(at(5), "p0", vec![], &[held]);
    let views = router.alerts(at(5));
    let firing: Vec<_> = views.iter().filter(|v| v.status == AlertStatus::Firing).collect();
    assert_eq!(firing.len(), 1);
    assert_eq!(firing[0].alert.labels.get("object"), Some("/var"));
    assert_eq!((firing[0].scope.as_str(), &firing[0].receivers[..]), ("p0", &["a".to_owned()][..]));
}

#[test]
fn annotations_alone_cause_neither_a_notification_nor_many_writes() {
    let state: Arc<dyn StateLog> = Arc::new(MemoryStateLog::new());
    let mut router = begin(&state);
    let mut watch = state.watch("");
    for second in 11..311 {
        let mut changed = alert("One", &[("severity", "critical")], at(second));
        changed.annotations.insert("value".into(), second.to_string());
        router.apply(at(second), vec![changed]);
        assert_eq!(router.alerts(at(second)).iter().filter(|v| v.alert.starts_at == START).count(), 2);
    }
    let mut writes = 0;
    while watch.try_next().unwrap().is_some() {
        writes += 1;
    }
    assert_eq!(writes, 5, "one a minute");
    assert_eq!(told(&mut router, at(311)), [""; 0]);
}

#[test]
fn a_clock_that_was_set_back_puts_nothing_off() {
    let state: Arc<dyn StateLog> = Arc::new(MemoryStateLog::new());
    drop(begin(&state));
    let yesterday = START - Duration::from_secs(86_400);
    let mut router = open(BEFORE, &state, yesterday);
    router.apply(yesterday, vec![alert("One", &[("severity", "critical"), ("more", "x")], yesterday)]);
    assert_eq!(told(&mut router, yesterday + Duration::from_secs(300)), ["a/webhook[0] One"]);
}
