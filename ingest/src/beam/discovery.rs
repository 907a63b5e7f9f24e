//! The collector's own task: which nodes are watched, one supervised task for each.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use erl_dist::node::NodeName;
use forewarn_schemas::Clock;
use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::config::BeamConfig;
use super::cookie::CookieSource;
use super::dial::Identity;
use super::epmd;
use super::node::{COLLECTOR, Node, Place, Shared, backoff};
use super::socket_owner::{self, Listener};
use crate::edge::Intake;
use crate::status::Board;

/// Discovered nodes watched at once; far more than one machine runs.
const DISCOVERED_MAX: usize = 256;

/// Watches nodes until `cancel` or until the log closes, one task for each, all of them ended when this returns.
///
/// Samples go to `intake`; `clock` stamps them; what is watched and what could not be done is written to `board`.
/// `config` is validated ([`BeamConfig::validate`]). Cancel safe: dropping the future ends the tasks.
pub async fn run(
    config: BeamConfig,
    intake: Arc<dyn Intake>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
    cancel: CancellationToken,
) {
    if !config.enabled {
        return;
    }
    let config = Arc::new(config);
    let claims = Arc::new(Mutex::new(config.nodes.iter().map(|n| n.name.clone()).collect::<HashSet<_>>()));
    let stop = cancel.child_token();
    let shared = Shared { config: Arc::clone(&config), intake, clock, board, claims, stop: stop.clone() };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    let mut watcher = Watcher {
        shared,
        creation: rand::random(),
        host: host.to_owned(),
        tasks: JoinSet::new(),
        local: HashMap::new(),
        looked: None,
        notices: BTreeMap::new(),
    };
    watcher.start_configured();
    let mut ticker = interval(config.interval);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticker.tick(), if config.discover_local => watcher.discover().await,
            Some(ended) = watcher.tasks.join_next() => watcher.ended(ended),
        }
    }
    // The tasks heard the same token, and each ends when its calls under way are answered, at most two seconds later.
    while watcher.tasks.join_next().await.is_some() {}
}

struct Watcher {
    shared: Shared,
    creation: u32,
    host: String,
    /// Each returns the key of `local`, `None` for a configured node.
    tasks: JoinSet<Option<String>>,
    /// Discovered nodes by the part of their name before the `@`, and where they listen.
    local: HashMap<String, watch::Sender<Option<SocketAddr>>>,
    /// What the last look found; `None` before the first.
    looked: Option<BTreeSet<String>>,
    /// Notices about nodes at the local epmd that are left alone, by the same key.
    notices: BTreeMap<String, String>,
}

/// What becomes of a node at the local epmd.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It is ours: watch it at this address.
    Ours(SocketAddr),
    /// It belongs to another uid.
    Foreign(u32),
    /// Nothing listens at the port that epmd named, as far as this process sees.
    Unseen,
}

impl Watcher {
    fn start_configured(&mut self) {
        let config = Arc::clone(&self.shared.config);
        for node in &config.nodes {
            let Ok(name) = node.name.parse::<NodeName>() else {
                warn!(node = node.name, "not a node name");
                continue;
            };
            let cookie = match (&node.cookie_file, &node.cookie_env) {
                (Some(path), _) => CookieSource::File(path.clone()),
                (None, Some(variable)) => CookieSource::Env(variable.clone()),
                (None, None) => self.default_cookie(),
            };
            let epmd_port = node.epmd_port.unwrap_or_else(|| config.epmd_port());
            let place = Place::Host { host: name.host().to_owned(), epmd_port };
            let us = self.identity(name.host().contains('.'));
            self.start(&node.name, place, cookie, us, None);
        }
    }

    fn start(&mut self, name: &str, place: Place, cookie: CookieSource, us: Identity, key: Option<String>) {
        let (shared, name) = (self.shared.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let watch = || Node::new(shared.clone(), &name, place.clone(), cookie.clone(), us.clone()).watch();
            let message = format!("the watch of node {name} failed and was begun anew");
            let failed = || {
                error!(node = name, "the watch of a beam node failed");
                shared.board.notice(COLLECTOR, &message, "this is a defect of forewarn: report what it logged");
            };
            begin_anew(watch, failed, &shared.stop).await;
            key
        });
    }

    fn ended(&mut self, ended: Result<Option<String>, tokio::task::JoinError>) {
        match ended {
            Ok(Some(key)) => {
                self.local.remove(&key);
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "the task of a beam node failed"),
        }
    }

    /// Looks at the local epmd: new nodes get a task, known ones their address.
    async fn discover(&mut self) {
        let epmd = SocketAddr::from((Ipv4Addr::LOCALHOST, self.shared.config.epmd_port()));
        let names = match epmd::names(epmd).await {
            Ok(names) => names,
            Err(error) => {
                // No epmd means no local nodes, on most machines for good.
                debug!(%epmd, %error, "no local epmd");
                Vec::new()
            }
        };
        let configured = self.configured_here();
        let uid = rustix::process::getuid().as_raw();
        let mut seen = BTreeSet::new();
        let first = self.looked.is_none();
        let before = self.looked.take().unwrap_or_default();
        for (alive, port) in names {
            if configured.contains(&alive) || self.shared.config.leaves_out(&alive) || !seen.insert(alive.clone()) {
                continue;
            }
            let listeners = socket_owner::listeners(port).unwrap_or_default();
            match judge(&listeners, port, uid) {
                Verdict::Ours(address) => {
                    self.unsay(&alive);
                    // What is there for a moment is a tool; at the start it is more likely what runs here.
                    self.place(&alive, address, first || before.contains(&alive));
                }
                verdict => {
                    let (message, mend) = left_alone(&alive, port, &verdict);
                    self.say(alive.clone(), message, &mend);
                    seen.remove(&alive);
                }
            }
        }
        for (alive, address) in &self.local {
            if !seen.contains(alive) {
                address.send_if_modified(|a| a.take().is_some());
            }
        }
        let gone: Vec<String> = self.notices.keys().filter(|alive| seen.contains(*alive)).cloned().collect();
        gone.iter().for_each(|alive| self.unsay(alive));
        self.looked = Some(seen);
    }

    /// Tells the task of a node where it listens; starts it when the node is to `join` and there is none.
    fn place(&mut self, alive: &str, address: SocketAddr, join: bool) {
        if let Some(known) = self.local.get(alive) {
            known.send_if_modified(|a| a.replace(address) != Some(address));
            return;
        }
        if !join {
            return;
        }
        if self.local.len() >= DISCOVERED_MAX {
            let message = format!("more than {DISCOVERED_MAX} nodes were discovered, and the rest is not watched");
            self.shared.board.notice(COLLECTOR, &message, "add those that matter under beam.nodes");
            return;
        }
        let (sender, receiver) = watch::channel(Some(address));
        self.local.insert(alive.to_owned(), sender);
        let (cookie, us) = (self.default_cookie(), self.identity(false));
        self.start(alive, Place::Local(receiver), cookie, us, Some(alive.to_owned()));
    }

    fn default_cookie(&self) -> CookieSource {
        self.shared.config.cookie_file.clone().map_or(CookieSource::Default, CookieSource::File)
    }

    /// Returns our name for nodes with long or short names; fixed for the life of the host name.
    fn identity(&self, long: bool) -> Identity {
        let configured = &self.shared.config.name;
        let short = self.host.split('.').next().unwrap_or("localhost");
        let host = if long { self.host.as_str() } else { short };
        let full = configured.parse().or_else(|_| NodeName::new(configured, host));
        let fallback = || NodeName::new("forewarn", "localhost").expect("both parts are there and short");
        Identity { name: full.unwrap_or_else(|_| fallback()), creation: self.creation }
    }

    /// Returns the short names of configured nodes that are on this machine, which discovery leaves alone.
    fn configured_here(&self) -> BTreeSet<String> {
        let short = self.host.split('.').next().unwrap_or_default();
        let here = [self.host.as_str(), short, "localhost", "127.0.0.1", "::1"];
        let names = self.shared.config.nodes.iter().filter_map(|n| n.name.split_once('@'));
        names.filter(|(_, host)| here.contains(host)).map(|(alive, _)| alive.to_owned()).collect()
    }

    fn say(&mut self, alive: String, message: String, mend: &str) {
        if self.notices.get(&alive) != Some(&message) {
            self.unsay(&alive);
            self.shared.board.notice(COLLECTOR, &message, mend);
            self.notices.insert(alive, message);
        }
    }

    fn unsay(&mut self, alive: &str) {
        if let Some(message) = self.notices.remove(alive) {
            self.shared.board.mended(COLLECTOR, &message);
        }
    }
}

/// Runs what `watch` makes until it ends by itself; when it panics, calls `failed` and makes it anew, each time later.
async fn begin_anew<F: Future<Output = ()>>(watch: impl Fn() -> F, failed: impl Fn(), stop: &CancellationToken) {
    let mut failures = 0;
    // What a panic may leave half done is shared behind locks only, whose holders leave it whole.
    while AssertUnwindSafe(watch()).catch_unwind().await.is_err() {
        failed();
        if stop.run_until_cancelled(sleep(backoff(failures, 1.0))).await.is_none() {
            return;
        }
        failures = failures.saturating_add(1);
    }
}

/// A node is ours when every socket that listens on its port is: a stranger's beside it could take our connection.
fn judge(listeners: &[Listener], port: u16, uid: u32) -> Verdict {
    if let Some(stranger) = listeners.iter().find(|l| l.uid != uid) {
        return Verdict::Foreign(stranger.uid);
    }
    listeners.first().map_or(Verdict::Unseen, |l| Verdict::Ours(SocketAddr::new(l.reachable_at(), port)))
}

fn left_alone(alive: &str, port: u16, verdict: &Verdict) -> (String, String) {
    let mend = format!("to watch it, add {alive}@<its host> under beam.nodes, with its cookie_file");
    match verdict {
        Verdict::Foreign(uid) => {
            (format!("node {alive} at the local epmd belongs to uid {uid}, not to ours, and is not watched"), mend)
        }
        _ => (format!("node {alive} at the local epmd says port {port}, where we see nothing listen"), mend),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_nodes_of_our_own_uid_are_ours() {
        let listener = |address: [u8; 4], uid| Listener { address: IpAddr::from(address), uid };
        let ours = Verdict::Ours(SocketAddr::from(([127, 0, 0, 1], 9)));
        assert_eq!(judge(&[listener([0, 0, 0, 0], 5)], 9, 5), ours);
        assert_eq!(judge(&[listener([10, 0, 0, 1], 5)], 9, 5), Verdict::Ours(SocketAddr::from(([10, 0, 0, 1], 9))));
        assert_eq!(judge(&[listener([0, 0, 0, 0], 6)], 9, 5), Verdict::Foreign(6));
        assert_eq!(judge(&[listener([127, 0, 0, 1], 5), listener([0, 0, 0, 0], 6)], 9, 5), Verdict::Foreign(6));
        assert_eq!(judge(&[], 9, 5), Verdict::Unseen);
        assert_eq!(judge(&[listener([0, 0, 0, 0], 0)], 9, 5), Verdict::Foreign(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_panics_is_begun_anew_and_later_each_time() {
        let (begun, failed) = (AtomicU32::new(0), AtomicU32::new(0));
        let start = tokio::time::Instant::now();
        let watch = || {
            let nth = begun.fetch_add(1, Ordering::SeqCst);
            async move { assert!(nth >= 3, "a defect") }
        };
        let count = || _ = failed.fetch_add(1, Ordering::SeqCst);
        begin_anew(watch, count, &CancellationToken::new()).await;
        assert_eq!((begun.load(Ordering::SeqCst), failed.load(Ordering::SeqCst)), (4, 3));
        assert_eq!(start.elapsed().as_secs(), 1 + 2 + 4);

        // Told to stop, it does not come again.
        let stopped = CancellationToken::new();
        stopped.cancel();
        let start = tokio::time::Instant::now();
        begin_anew(|| async { panic!("a defect") }, || {}, &stopped).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[test]
    fn notices_say_what_to_do() {
        let (message, mend) = left_alone("rabbit", 25672, &Verdict::Foreign(104));
        assert!(message.contains("uid 104") && mend.contains("beam.nodes") && mend.contains("cookie_file"));
    }
}
