//! The driver and the webhook receiver against a real HTTP server on loopback that answers as it is told.
//!
//! The router's clock stands still until the test moves it, so nothing depends on how long an answer takes; the one
//! time limit that does pass in real time is that of a server which never answers.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use common::{alert, config, ended, metrics};
use forewarn_alert::driver::{SENDS_MAX, Stopped};
use forewarn_alert::notification::{Integration, Notification};
use forewarn_alert::receiver::Reason;
use forewarn_alert::{
    AlertConfig, Handle, Input, MemoryStateLog, Notifier, Receivers, Router, RouterConfig, SendError, StateLog, run,
};
use forewarn_schemas::{Alert, AlertStatus, Clock, ManualClock, Timestamp};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
enum Answer {
    Status(u16, Option<&'static str>, &'static str),
    Hang,
}

struct Got {
    headers: HeaderMap,
    body: Value,
}

#[derive(Clone)]
struct Pager {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    got: mpsc::UnboundedSender<Got>,
}

async fn receive(State(pager): State<Pager>, headers: HeaderMap, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap();
    pager.got.send(Got { headers, body }).unwrap();
    let answer = pager.answers.lock().unwrap().pop_front();
    match answer {
        None => StatusCode::OK.into_response(),
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::Status(code, None, body)) => (StatusCode::from_u16(code).unwrap(), body).into_response(),
        Some(Answer::Status(code, Some(after), body)) => {
            (StatusCode::from_u16(code).unwrap(), [("retry-after", after), ("location", "/other")], body)
                .into_response()
        }
    }
}

/// A server that gives these answers in turn, and then 200.
struct Server {
    url: String,
    got: mpsc::UnboundedReceiver<Got>,
}

impl Server {
    async fn start(answers: &[Answer]) -> Self {
        let (sender, got) = mpsc::unbounded_channel();
        let pager = Pager { answers: Arc::new(Mutex::new(answers.iter().cloned().collect())), got: sender };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=hush", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(receive).with_state(pager);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, got }
    }

    async fn next(&mut self) -> Got {
        self.got.recv().await.unwrap()
    }

    fn is_quiet(&mut self) -> bool {
        self.got.try_recv().is_err()
    }
}

struct Running {
    handle: Handle,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Router>,
    clock: Arc<ManualClock>,
    registry: prometheus::Registry,
}

fn start(config: &AlertConfig, state: &Arc<dyn StateLog>) -> Running {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
    let registry = prometheus::Registry::new();
    let metrics = forewarn_alert::Metrics::new(&registry).unwrap();
    let router_config = RouterConfig::new(config, "http://fw", 1).unwrap();
    let router = Router::open(router_config, Arc::clone(state), metrics.clone(), clock.now()).unwrap();
    let as_clock: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    let receivers = Receivers::build(&config.resolved().1, &as_clock, &metrics).unwrap();
    let (handle, inputs) = Handle::new();
    let cancel = CancellationToken::new();
    let task = tokio::spawn(run(router, receivers, inputs, as_clock, cancel.clone()));
    Running { handle, cancel, task, clock, registry }
}

impl Running {
    fn count(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap();
        let has = |m: &&prometheus::proto::Metric| m.get_label().iter().any(|l| l.value() == label);
        family.get_metric().iter().filter(has).map(|m| m.get_counter().get_value()).sum()
    }

    /// Hands alerts in; when this returns the router has them.
    async fn apply(&self, alerts: Vec<Alert>) {
        self.handle.send(Input::Apply(alerts)).await.unwrap();
        self.handle.alerts().await.unwrap();
    }

    /// Moves the router's clock. When this returns, all that became due has been given out.
    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        // The first question wakes the driver, the second is answered after it has looked at the clock.
        self.handle.alerts().await.unwrap();
        self.handle.alerts().await.unwrap();
    }

    /// Waits until this many notifications have had this outcome.
    async fn reaches(&self, outcome: &str, count: f64) {
        while self.count("forewarn_alert_notifications_total", outcome) < count {
            self.handle.alerts().await.unwrap();
        }
        assert_eq!(self.count("forewarn_alert_notifications_total", outcome), count);
    }
}

/// Returns an address at which nobody listens, and what keeps it so.
fn refusing() -> (tokio::net::TcpSocket, std::net::SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn to(url: &str, more: &str) -> AlertConfig {
    config(&format!(
        "route: {{receiver: pager, group_by: [alertname], group_wait: 1s, group_interval: 10m}}\n\
         receivers: [{{name: pager, webhook_configs: [{{url: '{url}'{more}}}]}}]"
    ))
}

fn memory() -> Arc<dyn StateLog> {
    Arc::new(MemoryStateLog::new())
}

#[tokio::test]
async fn a_receiver_that_fails_in_every_way_gets_it_once_it_can() {
    let answers = [
        Answer::Status(429, Some("30"), "slow down"),
        Answer::Status(500, None, "boom"),
        Answer::Status(503, Some("Fri, 15 Jan 2027 09:00:00 GMT"), ""),
    ];
    let mut server = Server::start(&answers).await;
    let running = start(&to(&server.url, ""), &memory());
    let began = running.clock.now();
    running.apply(vec![alert("A", &[("severity", "critical")], began)]).await;
    running.advance(secs(1)).await;

    let first = server.next().await;
    let key = first.headers["idempotency-key"].clone();
    running.reaches("retry", 1.0).await;
    running.advance(secs(29)).await;
    assert!(server.is_quiet(), "it asked for 30 seconds");
    running.advance(secs(1)).await;
    let mut attempts = vec![server.next().await];
    running.reaches("retry", 2.0).await;
    running.advance(secs(60)).await; // the longest backoff
    attempts.push(server.next().await);
    running.reaches("retry", 3.0).await;
    let date = Timestamp::parse_rfc3339("2027-01-15T09:00:00Z").unwrap();
    running.advance(date.since(running.clock.now()) - secs(1)).await;
    assert!(server.is_quiet(), "it named a date");
    running.advance(secs(1)).await;
    attempts.push(server.next().await);
    running.reaches("sent", 1.0).await;
    for attempt in attempts {
        assert_eq!(attempt.headers["idempotency-key"], key, "every attempt has the same key");
        assert_eq!(attempt.body, first.body);
    }
    for (reason, count) in [("rate_limited", 1.0), ("server", 2.0), ("timeout", 0.0)] {
        assert_eq!(running.count("forewarn_alert_notification_failures_total", reason), count, "{reason}");
    }
    assert_eq!(running.handle.dead_letters().await.unwrap(), []);

    // Its end is one more notification under another key.
    let now = running.clock.now();
    running.apply(vec![ended(alert("A", &[("severity", "critical")], began), now)]).await;
    running.advance(secs(600)).await;
    let last = server.next().await;
    assert_eq!(last.body["status"], "resolved");
    assert_eq!(last.body["groupKey"], first.body["groupKey"]);
    assert_ne!(last.headers["idempotency-key"], key);
}

#[tokio::test]
async fn no_answer_in_time_may_mean_that_it_arrived() {
    let mut server = Server::start(&[Answer::Hang]).await;
    let running = start(&to(&server.url, ", timeout: 100ms"), &memory());
    let began = running.clock.now();
    running.apply(vec![alert("A", &[("severity", "critical")], began)]).await;
    running.advance(secs(1)).await;
    assert_eq!(server.next().await.body["status"], "firing");
    running.reaches("retry", 1.0).await;
    assert_eq!(running.count("forewarn_alert_notification_failures_total", "timeout"), 1.0);
    running.apply(vec![ended(alert("A", &[("severity", "critical")], began), running.clock.now())]).await;
    running.advance(secs(60)).await;
    assert_eq!(server.next().await.body["status"], "resolved", "so its end is told");
}

#[tokio::test]
async fn a_permanent_failure_is_a_dead_letter_without_secrets() {
    let long = Box::leak("no such service \u{1b}[31m".repeat(100).into_boxed_str());
    let mut server = Server::start(&[Answer::Status(400, None, long), Answer::Status(307, Some("0"), "")]).await;
    let running = start(&to(&server.url, ""), &memory());
    running.apply(vec![alert("A", &[("severity", "critical")], running.clock.now())]).await;
    running.advance(secs(1)).await;
    server.next().await;
    running.reaches("dead", 1.0).await;
    let dead = running.handle.dead_letters().await.unwrap();
    assert_eq!((dead.len(), dead[0].reason.as_str(), dead[0].count), (1, "rejected", 1));
    assert!(dead[0].detail.starts_with("answered 400 Bad Request: no such service"), "{}", dead[0].detail);
    assert!(dead[0].detail.chars().count() <= 201 && !dead[0].detail.contains(char::is_control));

    // A redirect is refused, not followed: the next request is that of the next interval.
    running.advance(secs(600)).await;
    server.next().await;
    running.reaches("dead", 2.0).await;
    let dead = running.handle.dead_letters().await.unwrap();
    assert_eq!((dead[0].reason.as_str(), dead[0].count), ("redirect", 2));
    assert!(server.is_quiet());
    running.advance(secs(600)).await;
    server.next().await;
    running.reaches("sent", 1.0).await;
    assert_eq!(running.handle.dead_letters().await.unwrap(), []);
}

#[tokio::test]
async fn nobody_listens() {
    let (_reserved, address) = refusing();
    let url = format!("http://{address}/?token=hush");
    let running = start(&to(&url, ""), &memory());
    let began = running.clock.now();
    running.apply(vec![alert("A", &[("severity", "critical")], began)]).await;
    running.advance(secs(1)).await;
    running.reaches("retry", 1.0).await;
    running.advance(secs(60)).await;
    running.reaches("retry", 2.0).await;
    assert_eq!(running.count("forewarn_alert_notification_failures_total", "connect"), 2.0);

    // What ends while it never arrived is never told.
    running.apply(vec![ended(alert("A", &[("severity", "critical")], began), running.clock.now())]).await;
    running.advance(secs(60)).await;
    running.reaches("collapsed", 1.0).await;
    let views = running.handle.alerts().await.unwrap();
    assert_eq!((views[0].status, views[0].last_notified), (AlertStatus::Resolved, None));
}

#[tokio::test]
async fn a_failure_never_shows_the_url() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
    let server = Server::start(&[]).await;
    let reachable = to(&server.url, "");
    let mut router =
        Router::open(RouterConfig::new(&reachable, "", 1).unwrap(), memory(), metrics(), clock.now()).unwrap();
    router.apply(clock.now(), vec![alert("A", &[("severity", "critical")], clock.now())]);
    let n = router.due(clock.now() + secs(1)).remove(0);
    let (_reserved, nobody) = refusing();
    for url in [format!("http://{nobody}/?token=hush"), format!("https://{nobody}/?token=hush")] {
        let config = to(&url, "");
        let receivers = Receivers::build(&config.receivers, &clock, &metrics()).unwrap();
        let error = receivers.get(&n.delivery).unwrap().notify(&n).await.unwrap_err();
        assert_eq!(error.reason, Reason::Connect, "{error}");
        assert!(!format!("{error} {error:?} {receivers:?} {config:?}").contains("hush"), "{error}");
    }
}

#[tokio::test]
async fn a_slow_receiver_holds_up_nobody_else() {
    let mut slow = Server::start(&vec![Answer::Hang; 100]).await;
    let mut fast = Server::start(&[]).await;
    let config = config(&format!(
        r#"
route: {{receiver: both, group_by: ['...'], group_wait: 0s}}
receivers: [{{name: both, webhook_configs: [{{url: '{}', timeout: 1h}}, {{url: '{}'}}]}}]
"#,
        slow.url, fast.url
    ));
    let state = memory();
    let running = start(&config, &state);
    for i in 0..20 {
        let a = alert(&format!("A{i}"), &[("severity", "critical")], running.clock.now());
        running.apply(vec![a]).await;
    }
    for _ in 0..20 {
        fast.next().await;
    }
    for _ in 0..SENDS_MAX {
        slow.next().await;
    }
    assert!(slow.is_quiet(), "no more at once");
    running.reaches("sent", 20.0).await;
    assert_eq!(running.handle.alerts().await.unwrap().len(), 20, "and questions are answered");

    // A shutdown does not wait for ever; what has no result is sent again by the next process.
    tokio::time::pause();
    running.cancel.cancel();
    let router = running.task.await.unwrap();
    assert_eq!(router.alerts(running.clock.now()).len(), 20);
    assert_eq!(running.handle.alerts().await, Err(Stopped));
    drop(router);
    let config = RouterConfig::new(&config, "http://fw", 1).unwrap();
    let mut router = Router::open(config, state, metrics(), running.clock.now()).unwrap();
    let due = router.due(running.clock.now());
    assert_eq!(due.len(), 20);
    assert!(due.iter().all(|n| n.delivery.integration.to_string() == "webhook[0]"));
}

#[tokio::test]
async fn the_worst_goes_first_and_a_panic_is_a_failure() {
    /// Says what it got and waits to be let on; panics at the name `Panic`.
    #[derive(Debug)]
    struct Gate(mpsc::UnboundedSender<String>, tokio::sync::Semaphore);
    #[async_trait::async_trait]
    impl Notifier for Gate {
        async fn notify(&self, n: &Notification) -> Result<(), SendError> {
            let name = n.group_labels.get("alertname").unwrap().to_owned();
            assert_ne!(name, "Panic");
            self.0.send(name).unwrap();
            self.1.acquire().await.unwrap().forget();
            Ok(())
        }
    }
    let config = to("http://unused", "");
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
    let registry = prometheus::Registry::new();
    let metrics = forewarn_alert::Metrics::new(&registry).unwrap();
    let router = Router::open(RouterConfig::new(&config, "", 1).unwrap(), memory(), metrics, clock.now()).unwrap();
    let (sender, mut names) = mpsc::unbounded_channel();
    let gate = Arc::new(Gate(sender, tokio::sync::Semaphore::new(0)));
    let mut receivers = Receivers::default();
    let integration = Integration { kind: "webhook".into(), index: 0 };
    receivers.insert("pager", integration, Arc::clone(&gate) as Arc<dyn Notifier>);
    let (handle, inputs) = Handle::new();
    let cancel = CancellationToken::new();
    let as_clock: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    let task = tokio::spawn(run(router, receivers, inputs, as_clock, cancel.clone()));
    let running = Running { handle, cancel, task, clock, registry };

    let now = running.clock.now();
    let warning = |i: u64| alert(&format!("W{i}"), &[("severity", "warning")], now);
    let mut all: Vec<Alert> = (0..SENDS_MAX as u64 + 2).map(warning).collect();
    all.push(alert("ZCritical", &[("severity", "critical")], now));
    // The groups of the warnings come first; the critical one has to overtake two of them.
    running.apply(all).await;
    running.advance(secs(1)).await;
    for _ in 0..SENDS_MAX {
        assert!(names.recv().await.unwrap().starts_with('W'));
    }
    gate.1.add_permits(1);
    assert_eq!(names.recv().await.unwrap(), "ZCritical");
    gate.1.add_permits(1000);
    running.reaches("sent", SENDS_MAX as f64 + 3.0).await;

    running.apply(vec![alert("Panic", &[("severity", "critical")], now)]).await;
    running.advance(secs(2)).await;
    running.reaches("retry", 1.0).await;
}

#[tokio::test]
async fn credentials_and_url_come_from_files_that_may_change() {
    let mut server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let (url_file, token_file) = (dir.path().join("url"), dir.path().join("token"));
    let config = config(&format!(
        r#"
receivers:
  - name: pager
    webhook_configs:
      - {{url_file: {}, http_config: {{authorization: {{credentials_file: {}}}}}}}
      - {{url: '{}', http_config: {{basic_auth: {{username: me, password: you}}}}, max_alerts: 1}}
"#,
        url_file.display(),
        token_file.display(),
        server.url
    ));
    let running = start(&config, &memory());
    let now = running.clock.now();
    let two = ["a", "b"].map(|n| alert("A", &[("severity", "critical"), ("node", n)], now)).to_vec();
    running.handle.send(Input::Reconcile { scope: "p0".into(), alerts: two, held: vec![] }).await.unwrap();
    running.handle.alerts().await.unwrap();
    running.advance(secs(10)).await;
    let basic = server.next().await;
    assert_eq!(basic.headers["authorization"], "Basic bWU6eW91");
    assert_eq!((basic.body["alerts"].as_array().unwrap().len(), &basic.body["truncatedAlerts"]), (1, &1.into()));
    running.reaches("retry", 1.0).await;
    assert_eq!(running.count("forewarn_alert_notification_failures_total", "config"), 1.0);

    std::fs::write(&url_file, format!("{}\n", server.url)).unwrap();
    std::fs::write(&token_file, "t0ken\n").unwrap();
    running.advance(secs(60)).await;
    let bearer = server.next().await;
    assert_eq!(bearer.headers["authorization"], "Bearer t0ken");
    assert_eq!(bearer.headers["content-type"], "application/json");
    assert_eq!(bearer.body["alerts"].as_array().unwrap().len(), 2);
}
