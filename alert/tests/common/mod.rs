//! What the router's tests share: a router on a state log that can be reopened, driven by a script.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forewarn_alert::notification::Notification;
use forewarn_alert::receiver::{Reason, Retry, SendError};
use forewarn_alert::{AlertConfig, MemoryStateLog, Metrics, Router, RouterConfig, StateLog};
use forewarn_schemas::units::{format_duration, parse_duration};
use forewarn_schemas::{Alert, AlertStatus, Labels, Timestamp};

pub fn metrics() -> Metrics {
    Metrics::new(&prometheus::Registry::new()).unwrap()
}

pub fn config(yaml: &str) -> AlertConfig {
    let config: AlertConfig = serde_saphyr::from_str(yaml).unwrap();
    assert_eq!(config.validate(), []);
    config
}

pub fn router_config(yaml: &str) -> RouterConfig {
    RouterConfig::new(&config(yaml), "http://fw", 1).unwrap()
}

/// An alert that fires since `at`.
pub fn alert(name: &str, labels: &[(&str, &str)], at: Timestamp) -> Alert {
    let name = [("alertname", name)];
    Alert {
        labels: Labels::from_pairs(name.iter().chain(labels).copied()).unwrap(),
        annotations: BTreeMap::from([("summary".into(), format!("{} fires", name[0].1))]),
        starts_at: at,
        ends_at: None,
        updated_at: at,
        generator_url: "http://fw/".into(),
    }
}

pub fn ended(mut alert: Alert, at: Timestamp) -> Alert {
    alert.ends_at = Some(at);
    alert
}

/// Runs a script: a configuration, `---`, and lines of `<time> <command>`. See `tests/scenarios/README.md`.
pub struct Script {
    pub router: Option<Router>,
    pub state: Arc<dyn StateLog>,
    config: RouterConfig,
    start: Timestamp,
    now: Timestamp,
    restart_always: bool,
    alerts: BTreeMap<String, Alert>,
    answers: BTreeMap<String, Answer>,
    told: Vec<String>,
    keys: BTreeMap<String, String>,
}

#[derive(Clone)]
enum Answer {
    Fail(SendError),
    Hang,
}

impl Script {
    /// Runs `text`; with `restart_always` the router is opened anew before every line and every flush.
    pub fn check(text: &str, restart_always: bool) {
        let (yaml, lines) = text.split_once("\n---\n").expect("a script has a configuration, ---, and lines");
        let start = Timestamp::from_secs(1_800_000_000);
        let mut script = Self {
            router: None,
            state: Arc::new(MemoryStateLog::new()),
            config: router_config(yaml),
            start,
            now: start,
            restart_always,
            alerts: BTreeMap::new(),
            answers: BTreeMap::new(),
            told: Vec::new(),
            keys: BTreeMap::new(),
        };
        script.open();
        for line in lines.lines().map(|l| l.split('#').next().unwrap_or_default().trim()).filter(|l| !l.is_empty()) {
            let mut words = line.split_whitespace();
            let at = script.start + parse_duration(words.next().unwrap()).unwrap();
            script.advance(at);
            if restart_always {
                script.open();
            }
            let words: Vec<&str> = words.collect();
            script.run(words[0], &words[1..], line);
        }
        assert!(script.told.is_empty(), "told without being expected: {:#?}", script.told);
        assert!(script.router().is_durable());
    }

    fn open(&mut self) {
        self.router = None;
        let state = Arc::clone(&self.state);
        self.router = Some(Router::open(self.config.clone(), state, metrics(), self.now).unwrap());
    }

    fn router(&mut self) -> &mut Router {
        self.router.as_mut().unwrap()
    }

    fn advance(&mut self, to: Timestamp) {
        while let Some(at) = self.router().next_due().filter(|at| *at <= to) {
            self.now = self.now.max(at);
            if self.restart_always {
                self.open();
            }
            self.flush();
        }
        self.now = to;
    }

    fn flush(&mut self) {
        let now = self.now;
        for n in self.router().due(now) {
            let receiver = n.delivery.group.receiver.to_string();
            match self.answers.get(&receiver).cloned() {
                Some(Answer::Hang) => {
                    self.tell(&n, "hang ");
                }
                Some(Answer::Fail(e)) => {
                    self.tell(&n, "fail ");
                    self.router().sent(now, &n, Err(e));
                }
                None => {
                    self.tell(&n, "");
                    self.router().sent(now, &n, Ok(()));
                }
            }
        }
    }

    fn tell(&mut self, n: &Notification, how: &str) {
        let names = |status| {
            let of = n.alerts.iter().filter(|a| a.status == status);
            let names: BTreeSet<&str> = of.filter_map(|a| a.alert.labels.get("alertname")).collect();
            names.into_iter().collect::<Vec<_>>().join(",")
        };
        let at = format_duration(n.at.since(self.start));
        let (firing, resolved) = (names(AlertStatus::Firing), names(AlertStatus::Resolved));
        let line = format!("{how}{} {at} firing={firing} resolved={resolved}", n.delivery.group.receiver);
        // A dedup key stands for one content.
        let content = format!("{:?} {firing} {resolved}", n.delivery);
        let before = self.keys.entry(n.dedup_key.clone()).or_insert_with(|| content.clone());
        assert_eq!(before, &content, "one key for two contents");
        self.told.push(line);
    }

    fn run(&mut self, command: &str, args: &[&str], line: &str) {
        let now = self.now;
        match command {
            "fire" => {
                let labels: Vec<(&str, &str)> = args[1..].iter().filter_map(|l| l.split_once('=')).collect();
                let mut fired = self.alerts.get(args[0]).cloned().unwrap_or_else(|| alert(args[0], &labels, now));
                (fired.starts_at, fired.updated_at) = (now, now);
                if let Some((_, state)) = labels.iter().find(|(n, _)| *n == "@state") {
                    fired.annotations.insert("state".into(), (*state).into());
                    fired.labels = fired.labels.with("@state", "").unwrap();
                }
                if let Some((_, ago)) = labels.iter().find(|(n, _)| *n == "@since") {
                    fired.starts_at = now - parse_duration(ago).unwrap();
                    fired.labels = fired.labels.with("@since", "").unwrap();
                }
                if let Some((_, ttl)) = labels.iter().find(|(n, _)| *n == "@ttl") {
                    fired.ends_at = Some(now + parse_duration(ttl).unwrap());
                    fired.labels = fired.labels.with("@ttl", "").unwrap();
                }
                self.alerts.insert(args[0].into(), fired.clone());
                self.router().apply(now, vec![fired]);
            }
            "resolve" => {
                let alert = ended(self.alerts[args[0]].clone(), now);
                self.router().apply(now, vec![alert]);
            }
            "reconcile" => {
                let all: Vec<Alert> =
                    args[1..].iter().map(|n| alert(n, &[("severity", "critical"), ("node", n)], now)).collect();
                self.router().reconcile(now, args[0], all, &[]);
            }
            "answer" => {
                let fail = |retry, reason| Some(Answer::Fail(SendError::new(retry, reason, "scripted")));
                let answer = match args[1] {
                    "ok" => None,
                    "never" => fail(Retry::Never, Reason::Rejected),
                    "hang" => Some(Answer::Hang),
                    text => {
                        let (reason, after) = text.split_once(':').unwrap();
                        let reason = Reason::ALL.into_iter().find(|r| r.as_str() == reason).unwrap();
                        fail(Retry::After(parse_duration(after).unwrap()), reason)
                    }
                };
                match answer {
                    Some(a) => self.answers.insert(args[0].into(), a),
                    None => self.answers.remove(args[0]),
                };
            }
            "restart" => {
                self.open();
                self.flush();
            }
            "told" => {
                let first = if self.told.is_empty() { "nothing".into() } else { self.told.remove(0) };
                assert_eq!(first, args.join(" "), "in line {line:?}; then {:#?}", self.told);
            }
            "dead" => {
                let dead: Vec<String> =
                    self.router().dead_letters().iter().map(|d| format!("{}*{}", d.receiver, d.count)).collect();
                assert_eq!(dead, args, "in line {line:?}");
            }
            "status" => {
                let views = self.router().alerts(now);
                let view = views.iter().find(|v| v.alert.labels.get("alertname") == Some(args[0]));
                let status = view.map_or("unknown", |v| match v.status {
                    AlertStatus::Firing => "firing",
                    AlertStatus::Resolved => "resolved",
                });
                let receivers = view.map(|v| v.receivers.join(",")).unwrap_or_default();
                assert_eq!(format!("{status} {receivers}").trim(), args[1..].join(" "), "in line {line:?}");
            }
            other => panic!("unknown command {other:?} in {line:?}"),
        }
    }
}
