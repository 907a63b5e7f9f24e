//! The process ends at any write of the state log: no page is lost, and at most one is repeated, under the same key.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use common::{alert, ended, metrics, router_config};
use forewarn_alert::state_log::{Change, Watch};
use forewarn_alert::{Error, MemoryStateLog, Router, StateLog};
use forewarn_schemas::{Alert, Timestamp};
use proptest::prelude::*;
use serde_json::Value;

/// Stands for the end of the process.
struct Killed;

/// A state log that kills the process at its `left`th write: before it if `before`, else after.
#[derive(Debug)]
struct Deadly {
    inner: Arc<MemoryStateLog>,
    left: AtomicU64,
    before: bool,
}

impl StateLog for Deadly {
    fn write(&self, changes: &[Change]) -> Result<(), Error> {
        let last = self.left.fetch_sub(1, SeqCst) == 1;
        if !(last && self.before) {
            self.inner.write(changes)?;
        }
        if last {
            panic_any(Killed);
        }
        Ok(())
    }
    fn scan(&self, prefix: &str) -> Result<Vec<(String, Value)>, Error> {
        self.inner.scan(prefix)
    }
    fn watch(&self, prefix: &str) -> Watch {
        self.inner.watch(prefix)
    }
}

const CONFIG: &str = r#"
route: {receiver: pager, group_by: [node], group_wait: 10s, group_interval: 1m, repeat_interval: 1h}
flap_hold: 0s
receivers: [{name: pager, webhook_configs: [{url: "http://x"}]}]
"#;

/// One step of the source, which, like analyze, sends its full set again and again.
#[derive(Debug, Clone)]
struct Step {
    seconds: u64,
    firing: BTreeSet<u8>,
}

fn set(step: &Step, now: Timestamp) -> Vec<Alert> {
    let name = |n: &u8| format!("A{n}");
    step.firing
        .iter()
        .map(|n| alert(&name(n), &[("severity", "critical"), ("node", &format!("n{}", n % 2))], now))
        .collect()
}

/// Runs the steps with kills; returns what the receiver got, as (dedup key, firing, resolved), in order.
fn run(steps: &[Step], kills: &[(u64, bool)]) -> (Vec<(String, String)>, usize) {
    let inner = Arc::new(MemoryStateLog::new());
    let start = Timestamp::from_secs(1_800_000_000);
    let (mut now, mut kills, mut killed) = (start, kills.iter(), 0);
    let mut got: Vec<(String, String)> = Vec::new();
    let mut open = |now, killed: &mut usize| loop {
        let (left, before) = kills.next().copied().unwrap_or((u64::MAX, false));
        let state = Arc::new(Deadly { inner: Arc::clone(&inner), left: left.into(), before });
        match catch_unwind(|| Router::open(router_config(CONFIG), state, metrics(), now).unwrap()) {
            Ok(router) => return router,
            Err(_) => *killed += 1,
        }
    };
    let mut router = open(now, &mut killed);
    for step in steps {
        let end = now + Duration::from_secs(step.seconds);
        loop {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                router.reconcile(now, "p0", set(step, now), &[]);
                while let Some(due) = router.next_due().filter(|d| *d <= end) {
                    now = now.max(due);
                    for n in router.due(now) {
                        let p = n.webhook_payload(0);
                        let names: Vec<String> =
                            p.alerts.iter().map(|a| format!("{:?} {}", a.status, a.labels)).collect();
                        got.push((n.dedup_key.clone(), names.join(",")));
                        router.sent(now, &n, Ok(()));
                    }
                }
            }));
            match outcome {
                Ok(()) => break,
                Err(e) => {
                    assert!(e.is::<Killed>(), "only the scripted death is expected");
                    killed += 1;
                    router = open(now, &mut killed);
                }
            }
        }
        now = end;
    }
    (got, killed)
}

/// What the receiver believes to be firing after all it got.
fn belief(got: &[(String, String)]) -> BTreeMap<String, bool> {
    let mut out = BTreeMap::new();
    for (_, content) in got {
        for alert in content.split(',').filter(|a| !a.is_empty()) {
            // Labels have commas too: only the first word and the alert's name matter here.
            if let Some((status, labels)) = alert.split_once(' ') {
                out.insert(labels.to_owned(), status == "Firing");
            }
        }
    }
    out
}

fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        if !info.payload().is::<Killed>() {
            eprintln!("{info}");
        }
    }));
}

fn steps() -> Vec<Step> {
    let step = |seconds, firing: &[u8]| Step { seconds, firing: firing.iter().copied().collect() };
    vec![
        step(5, &[1]),
        step(90, &[1, 2]),
        step(90, &[1, 2, 3]),
        step(200, &[2, 3]),
        step(4000, &[2]),
        step(300, &[]),
        step(300, &[1]),
        step(300, &[]),
    ]
}

#[test]
fn killed_at_every_write() {
    quiet_panics();
    let (expected, _) = run(&steps(), &[]);
    assert!(expected.len() >= 8, "{expected:#?}");
    let mut kill_at = 1;
    loop {
        let mut reached = false;
        for before in [true, false] {
            let (got, killed) = run(&steps(), &[(kill_at, before)]);
            reached |= killed > 0;
            check(&expected, &got, killed);
        }
        if !reached {
            break;
        }
        kill_at += 1;
    }
    assert!(kill_at > 20, "there were writes to be killed at");
}

/// Every page is there, and each repeat is one of the same key for one death.
fn check(expected: &[(String, String)], got: &[(String, String)], killed: usize) {
    let mut unique = got.to_vec();
    unique.dedup_by_key(|n| n.0.clone());
    let repeats = got.len() - unique.len();
    assert!(repeats <= killed, "{repeats} repeats for {killed} deaths: {got:#?}");
    let content = |l: &[(String, String)]| l.iter().map(|n| n.1.clone()).collect::<Vec<_>>();
    assert_eq!(content(&unique), content(expected), "with {killed} deaths");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn killed_anywhere_any_number_of_times(
        steps in proptest::collection::vec(
            (1..400u64, proptest::collection::btree_set(0..6u8, 0..5)).prop_map(|(seconds, firing)| Step { seconds, firing }),
            1..10,
        ),
        kills in proptest::collection::vec((1..12u64, any::<bool>()), 0..8),
    ) {
        quiet_panics();
        let (expected, _) = run(&steps, &[]);
        let (got, killed) = run(&steps, &kills);
        let mut unique = got.clone();
        unique.dedup_by_key(|n| n.0.clone());
        prop_assert!(got.len() - unique.len() <= killed);
        prop_assert_eq!(belief(&got), belief(&expected));
        let pages = |l: &[(String, String)]| l.iter().filter(|n| n.1.contains("Firing")).count();
        prop_assert!(pages(&unique) <= pages(&expected) + killed);
    }

    /// A square wave never pages more than four times in an hour.
    #[test]
    fn flapping_pages_at_most_four_times_an_hour(on in 1..1500u64, off in 1..1500u64, interval in 1..600u64) {
        let config = format!(
            "route: {{receiver: pager, group_wait: 1s, group_interval: {interval}s, repeat_interval: 100h}}\n\
             receivers: [{{name: pager, webhook_configs: [{{url: 'http://x'}}]}}]"
        );
        let start = Timestamp::from_secs(1_800_000_000);
        let mut router =
            Router::open(router_config(&config), Arc::new(MemoryStateLog::new()), metrics(), start).unwrap();
        let mut pages = Vec::new();
        let mut now = start;
        let mut firing = false;
        while now < start + Duration::from_secs(6 * 3600) {
            let a = alert("A", &[("severity", "critical")], now);
            router.apply(now, vec![if firing { ended(a, now) } else { a }]);
            firing = !firing;
            now = now + Duration::from_secs(if firing { on } else { off });
            while let Some(due) = router.next_due().filter(|d| *d <= now) {
                for n in router.due(due) {
                    if n.status() == forewarn_schemas::AlertStatus::Firing {
                        pages.push(due);
                    }
                    router.sent(due, &n, Ok(()));
                }
            }
        }
        for (i, first) in pages.iter().enumerate() {
            let within = pages[i..].iter().filter(|p| p.since(*first) < Duration::from_secs(3600)).count();
            prop_assert!(within <= 4, "{within} pages within an hour of {first}: {pages:?}");
        }
    }
}

/// A state log that refuses everything while it is told to.
#[derive(Debug, Default)]
struct Full(MemoryStateLog, std::sync::atomic::AtomicBool);

impl StateLog for Full {
    fn write(&self, changes: &[Change]) -> Result<(), Error> {
        if self.1.load(SeqCst) {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull).into();
            return Err(Error::Storage { path: "scripted".into(), source });
        }
        self.0.write(changes)
    }
    fn scan(&self, prefix: &str) -> Result<Vec<(String, Value)>, Error> {
        self.0.scan(prefix)
    }
    fn watch(&self, prefix: &str) -> Watch {
        self.0.watch(prefix)
    }
}

#[test]
fn a_full_disk_does_not_silence_the_pager() {
    let state = Arc::new(Full::default());
    let start = Timestamp::from_secs(1_800_000_000);
    let open =
        |at| Router::open(router_config(CONFIG), Arc::clone(&state) as Arc<dyn StateLog>, metrics(), at).unwrap();
    let mut router = open(start);
    state.1.store(true, SeqCst);
    router.apply(start, vec![alert("A", &[("severity", "critical")], start)]);
    assert!(!router.is_durable());
    let at = start + Duration::from_secs(10);
    let due = router.due(at);
    assert_eq!(due.len(), 1, "the page goes out");
    router.sent(at, &due[0], Ok(()));

    // When there is space again, all of it is written without anything else happening.
    state.1.store(false, SeqCst);
    let again = router.next_due().unwrap();
    assert!(again <= at + Duration::from_secs(10));
    assert_eq!(router.due(again), []);
    assert!(router.is_durable());
    let mut router = open(again);
    let later = again + Duration::from_secs(1800);
    assert_eq!(router.due(later), [], "what was sent is known after a restart");
    assert_eq!(router.alerts(later)[0].last_notified, Some(at));
}
