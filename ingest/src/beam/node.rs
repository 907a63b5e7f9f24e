//! One watched node: connect, ask, write, and when it is down say so until it is back.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forewarn_schemas::{Clock, Labels, Timestamp};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::config::BeamConfig;
use super::cookie::{Cookie, CookieSource};
use super::dial::{DialError, Identity, dial};
use super::epmd;
use super::series::{Base, Scope};
use crate::edge::Intake;
use crate::status::{Board, Health};

mod asking;
mod report;

/// Time without a try after the node refused us.
const REFUSED_WAIT: Duration = Duration::from_secs(300);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// The name of this collector on the board.
pub(super) const COLLECTOR: &str = "beam";

/// What all nodes share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) config: Arc<BeamConfig>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) board: Arc<Board>,
    /// Full names that are watched, so that a node which is configured and discovered is polled once.
    pub(super) claims: Arc<Mutex<HashSet<String>>>,
    /// Ends the collector: cancelled from outside, or here when the log is closed.
    pub(super) stop: CancellationToken,
}

/// Where a node is found.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Configured: on this host, at the port that epmd there says.
    Host {
        /// The host part of its name.
        host: String,
        /// Port of epmd.
        epmd_port: u16,
    },
    /// Discovered: at this address, or nowhere while it is not registered.
    Local(watch::Receiver<Option<SocketAddr>>),
}

/// One node to watch.
pub(super) struct Node {
    shared: Shared,
    /// The full name, once it is known: at once for a configured node.
    name: Option<String>,
    alive: String,
    place: Place,
    cookie: CookieSource,
    us: Identity,
    base: Base,
    /// The labels under which `beam_up` is written now.
    up: Option<Labels>,
    polled: Scope,
    /// Shared with the slow cycle, which may be dropped at any await when the connection ends.
    slow: Arc<Mutex<Scope>>,
    facts: BTreeMap<String, String>,
    notice: Option<String>,
    last_poll: Option<Timestamp>,
    /// The longest time that it was up, as far as polls have told; a restart takes nothing from it.
    age: Duration,
}

/// How often epmd is asked whether a node that was lost has left, and the pause between.
const LEAVING_LOOKS: u32 = 10;
const LEAVING_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection is not there any more, or never was.
enum Outcome {
    /// Try again soon.
    Down(String),
    /// Somebody must mend something first.
    Refused { error: String, mend: String, lacks: Lacks },
    /// Another task watches this node.
    Duplicate,
    /// We are told to stop, or the log takes nothing any more.
    Stopped,
}

/// What must be mended before a node lets us in.
enum Lacks {
    /// Another cookie than this one, or one at all.
    Cookie(Option<Cookie>),
    /// Something that only a new attempt can find out.
    Other,
}

impl Node {
    /// Makes a node of the configuration (`name` is its full name) or of discovery (the part before the `@`).
    pub(super) fn new(shared: Shared, name: &str, place: Place, cookie: CookieSource, us: Identity) -> Self {
        let alive = name.split('@').next().unwrap_or(name).to_owned();
        let full = name.contains('@').then(|| name.to_owned());
        let discovered = if matches!(place, Place::Host { .. }) { "config" } else { "local" };
        let base = Base { node: name.to_owned(), family: alive.clone(), release: String::new(), discovered };
        Self {
            shared,
            name: full,
            alive,
            place,
            cookie,
            us,
            base,
            up: None,
            polled: Scope::default(),
            slow: Arc::default(),
            facts: BTreeMap::new(),
            notice: None,
            last_poll: None,
            age: Duration::ZERO,
        }
    }

    /// Watches the node until it is told to stop, the log closes or a discovered node has been gone for long.
    pub(super) async fn watch(mut self) {
        let stop = self.shared.stop.clone();
        let mut attempt = 0;
        let mut gone_since = None;
        loop {
            let polled_before = self.last_poll;
            let Some(address) = stop.run_until_cancelled(self.address()).await else { return };
            let outcome = match address {
                Ok(Some(address)) => {
                    gone_since = None;
                    self.connected(address).await
                }
                Ok(None) => {
                    gone_since.get_or_insert_with(Instant::now);
                    Outcome::Down("not registered at epmd".into())
                }
                Err(error) => Outcome::Down(error),
            };
            if self.last_poll != polled_before {
                attempt = 0;
            }
            let passed_by = matches!(outcome, Outcome::Down(_)) && self.has_passed_by().await;
            let forgotten = gone_since.is_some_and(|since: Instant| since.elapsed() >= self.shared.config.forget_after);
            if passed_by || forgotten && matches!(self.place, Place::Local(_)) {
                self.forget().await;
                return;
            }
            let (wait, lacks, down) = match outcome {
                Outcome::Stopped => return,
                Outcome::Duplicate => (REFUSED_WAIT, Lacks::Other, false),
                Outcome::Down(error) => {
                    if attempt == 0 {
                        info!(node = self.label(), error, "beam node is down");
                    }
                    self.report(Health::Down, &error);
                    let unit = rand::random::<f64>();
                    let wait = backoff(attempt, unit);
                    attempt = attempt.saturating_add(1);
                    (wait, Lacks::Other, true)
                }
                Outcome::Refused { error, mend, lacks } => {
                    warn!(node = self.label(), error, mend, "beam node refused the collector");
                    self.say(format!("node {} is not watched: {error}", self.label()), &mend);
                    self.report(Health::Refused, &error);
                    attempt = 0;
                    // It is up, for it refused: `beam_up` would be wrong either way.
                    self.end().await;
                    (REFUSED_WAIT, lacks, false)
                }
            };
            if stop.run_until_cancelled(self.wait(wait, &lacks, down)).await != Some(true) {
                return;
            }
        }
    }

    /// Says whether a discovered node was there for a short time only and has left: a tool, not a service that fell.
    async fn has_passed_by(&self) -> bool {
        if matches!(self.place, Place::Host { .. }) || self.age >= self.shared.config.passing_max {
            return false;
        }
        let epmd = SocketAddr::from((Ipv4Addr::LOCALHOST, self.shared.config.epmd_port()));
        // epmd may hear of the end a moment after us.
        for _ in 0..LEAVING_LOOKS {
            match epmd::port(epmd, &self.alive).await {
                Ok(None) => return true,
                Ok(Some(_)) => tokio::time::sleep(LEAVING_PAUSE).await,
                // No answer is no word on the node: epmd may have gone with everything else.
                Err(_) => return false,
            }
        }
        false
    }

    /// Says where the node listens; `None` when epmd does not know it.
    async fn address(&mut self) -> Result<Option<SocketAddr>, String> {
        match &mut self.place {
            Place::Local(address) => Ok(*address.borrow_and_update()),
            Place::Host { host, epmd_port } => {
                let lookup = tokio::net::lookup_host((host.as_str(), *epmd_port));
                let mut found = lookup.await.map_err(|e| format!("host {host}: {e}"))?;
                let epmd = found.next().ok_or_else(|| format!("host {host} has no address"))?;
                let port = epmd::port(epmd, &self.alive).await.map_err(|e| format!("epmd at {epmd}: {e}"))?;
                Ok(port.map(|port| SocketAddr::new(epmd.ip(), port)))
            }
        }
    }

    /// Connects and stays as long as the connection does.
    async fn connected(&mut self, address: SocketAddr) -> Outcome {
        let found = match self.cookie.load() {
            Ok(found) => found,
            Err(error) => {
                let mend = format!("put the node's cookie into {} with mode 0400", self.cookie.place());
                return Outcome::Refused { error, mend, lacks: Lacks::Cookie(None) };
            }
        };
        self.warn_of_exposure(&found.place, found.exposed);
        let config = Arc::clone(&self.shared.config);
        let frame_bytes_max = config.reply_bytes_max.bytes() as usize;
        let stop = self.shared.stop.clone();
        let dialled = dial(address, &self.us, &found.cookie, frame_bytes_max, config.call_timeout);
        let (driver, client, name) = match stop.run_until_cancelled(dialled).await {
            None => return Outcome::Stopped,
            Some(Ok(connection)) => connection,
            Some(Err(error)) => return self.refusal(&error, found.cookie, &found.place),
        };
        let expected = self.name.as_ref().filter(|_| self.base.discovered == "config");
        if expected.is_some_and(|n| *n != name) || name.split('@').next() != Some(&self.alive) {
            return Outcome::Down(format!("the node at {address} calls itself {name:?}"));
        }
        if !self.rename(name).await {
            return Outcome::Duplicate;
        }
        self.facts = BTreeMap::from([("address".to_owned(), address.to_string())]);
        let mut driving = std::pin::pin!(driver.run());
        let outcome = tokio::select! {
            why = &mut driving => return Outcome::Down(why.to_string()),
            outcome = self.ask(&client, &config) => outcome,
            () = stop.cancelled() => Outcome::Stopped,
        };
        // No more questions: the driver ends when those under way are answered, or two seconds later.
        drop(client);
        driving.await;
        outcome
    }

    /// Takes the name that the node gave itself; false when another task watches that node.
    async fn rename(&mut self, name: String) -> bool {
        if self.name.as_ref() == Some(&name) {
            return true;
        }
        if !self.claims().insert(name.clone()) {
            return false;
        }
        if self.name.is_some() {
            // The same short name came back on another host name: another node for everyone who looks.
            self.forget().await;
        } else {
            self.shared.board.forget(COLLECTOR, &self.label());
        }
        self.base.node.clone_from(&name);
        self.name = Some(name);
        true
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.shared.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits before the next attempt, while `beam_up` is written as 0 (when `down`) at every interval. Ends early when
    /// the node registers anew or the cookie that it `lacks` is there. False when the log is closed.
    async fn wait(&mut self, wait: Duration, lacks: &Lacks, down: bool) -> bool {
        let end = Instant::now() + wait;
        let mut ticker = interval(self.shared.config.interval);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = sleep_until(end) => return true,
                () = moved(&mut self.place) => return true,
                _ = ticker.tick() => {}
            }
            if down && !self.write_down().await {
                return false;
            }
            if let Lacks::Cookie(refused) = lacks
                && self.cookie.load().is_ok_and(|found| Some(&found.cookie) != refused.as_ref())
            {
                return true;
            }
        }
    }

    fn refusal(&self, error: &DialError, cookie: Cookie, place: &str) -> Outcome {
        let mend = match error {
            DialError::Cookie => {
                format!("put the node's own cookie into {place}, or give the node a cookie_file under beam.nodes")
            }
            DialError::NotAllowed(name) => {
                format!("allow the collector on the node: net_kernel:allow(['{name}'])")
            }
            DialError::TooOld => "run the node on OTP 23 or later".into(),
            DialError::NameTaken(_) => {
                // A connection that broke without a word is noticed by the node within its net_ticktime, so try on.
                return Outcome::Down(format!("{error}; if that is another collector, set beam.name"));
            }
            _ => return Outcome::Down(error.to_string()),
        };
        let lacks = if matches!(error, DialError::Cookie) { Lacks::Cookie(Some(cookie)) } else { Lacks::Other };
        Outcome::Refused { error: error.to_string(), mend, lacks }
    }
}

impl Drop for Node {
    /// Whatever ended the task, a panic too: a node that was discovered may be watched by another one now.
    fn drop(&mut self) {
        if let (Place::Local(_), Some(name)) = (&self.place, self.name.take()) {
            self.claims().remove(&name);
        }
    }
}

/// Ends when a discovered node is registered at another address than last looked at; never for a configured one.
async fn moved(place: &mut Place) {
    match place {
        Place::Host { .. } => std::future::pending().await,
        Place::Local(address) => {
            if address.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Time before attempt `attempt`: doubling from a second to a minute, times 0.5 to 1 by `unit` in [0, 1), so that
/// nodes lost together do not come back together.
pub(super) fn backoff(attempt: u32, unit: f64) -> Duration {
    let whole = Duration::from_secs(1 << attempt.min(6)).min(BACKOFF_MAX);
    whole.mul_f64(0.5 + unit / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_a_minute() {
        let whole: Vec<u64> = (0..9).map(|n| backoff(n, 1.0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff(3, 0.0), Duration::from_secs(4));
        assert_eq!(backoff(u32::MAX, 0.0), Duration::from_secs(30));
    }
}
