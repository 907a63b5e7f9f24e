//! One watched node: connect, ask, write, and when it is down say so until it is back.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forewarn_schemas::{Batch, Clock, Labels, Timestamp};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::config::BeamConfig;
use super::cookie::{Cookie, CookieSource};
use super::dial::{DialError, Identity, dial};
use super::epmd;
use super::link::Client;
use super::mailbox::{self, Watched};
use super::poll::{self, Session};
use super::series::{Base, Scope};
use crate::edge::{Intake, SubmitError, Urgency};
use crate::status::{Board, Health, Target};

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
}

/// Where a node is found.
#[derive(Debug)]
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
    stop: CancellationToken,
}

/// Why a connection is not there any more, or never was.
enum Outcome {
    /// Try again soon.
    Down(String),
    /// Somebody must mend something first; the cookie that was refused, when it was one.
    Refused { error: String, mend: String, cookie: Option<Cookie> },
    /// Another task watches this node.
    Duplicate,
    /// We are told to stop, or the log takes nothing any more.
    Stopped,
}

impl Node {
    /// Makes a node of the configuration (`name` is its full name) or of discovery (the part before the `@`).
    pub(super) fn new(
        shared: Shared,
        name: &str,
        place: Place,
        cookie: CookieSource,
        us: Identity,
        stop: CancellationToken,
    ) -> Self {
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
            stop,
        }
    }

    /// Watches the node until it is told to stop, the log closes or a discovered node has been gone for long.
    pub(super) async fn watch(mut self) {
        let stop = self.stop.clone();
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
            let forgotten = gone_since.is_some_and(|since: Instant| since.elapsed() >= self.shared.config.forget_after);
            if forgotten && matches!(self.place, Place::Local(_)) {
                self.forget().await;
                return;
            }
            let (wait, cookie, down) = match outcome {
                Outcome::Stopped => return,
                Outcome::Duplicate => (REFUSED_WAIT, None, false),
                Outcome::Down(error) => {
                    if attempt == 0 {
                        info!(node = self.label(), error, "beam node is down");
                    }
                    self.report(Health::Down, &error);
                    let unit = rand::random::<f64>();
                    let wait = backoff(attempt, unit);
                    attempt = attempt.saturating_add(1);
                    (wait, None, true)
                }
                Outcome::Refused { error, mend, cookie } => {
                    warn!(node = self.label(), error, mend, "beam node refused the collector");
                    self.report(Health::Refused, &error);
                    self.say(format!("node {} is not watched: {error}", self.label()), &mend);
                    attempt = 0;
                    (REFUSED_WAIT, cookie, true)
                }
            };
            if stop.run_until_cancelled(self.wait(wait, cookie, down)).await != Some(true) {
                return;
            }
        }
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
                return Outcome::Refused { error, mend, cookie: None };
            }
        };
        self.warn_of_exposure(&found.place, found.exposed);
        let config = Arc::clone(&self.shared.config);
        let frame_bytes_max = config.reply_bytes_max.bytes() as usize;
        let stop = self.stop.clone();
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
        // No more questions: the driver ends when those under way are answered, or a second later.
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

    /// Asks in two cycles until one of them cannot go on.
    async fn ask(&mut self, client: &Client, config: &BeamConfig) -> Outcome {
        let mut session = match Session::open(client).await {
            Ok(session) => session,
            Err(why) => return Outcome::Down(format!("the node does not answer: {why}")),
        };
        self.base.release = session.release.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
        self.base.family = session.release.as_ref().map_or_else(|| self.alive.clone(), |(name, _)| name.clone());
        info!(node = self.label(), "beam node is up");
        self.unsay();

        let watched = Mutex::new(Vec::<Watched>::new());
        let slow_facts = Mutex::new(BTreeMap::new());
        let slow = Arc::clone(&self.slow);
        let (shared, base) = (self.shared.clone(), self.base.clone());
        let fast = async {
            let mut ticker = interval(config.interval);
            ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticker.tick().await;
                if let Some(outcome) = self.poll_once(client, &mut session, &watched, &slow_facts).await {
                    return outcome;
                }
            }
        };
        let scanning = async {
            let mut ticker = interval(config.mailbox_interval);
            ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut cursor = 0;
            loop {
                ticker.tick().await;
                match mailbox::scan(client, config, &base.node, &mut cursor).await {
                    Ok(scan) => {
                        let seen = format!("{} of {}", scan.looked_at, scan.processes);
                        lock(&slow_facts).insert("mailboxes".to_owned(), seen);
                        let mut watched = lock(&watched);
                        *watched = mailbox::choose(&watched, scan, config.mailbox_watch_min);
                    }
                    Err(why) => debug!(node = base.node, error = %why, "no mailbox scan"),
                }
                let ts = shared.clock.now();
                let rows = poll::descriptors(client).await;
                let mut batch = Batch::default();
                let rows = rows.into_iter().filter_map(|(name, v)| Some((base.labels(name, "")?, v))).collect();
                lock(&slow).write(rows, false, ts, &mut batch);
                if !submit(&shared, batch).await {
                    return Outcome::Stopped;
                }
            }
        };
        tokio::select! { outcome = fast => outcome, outcome = scanning => outcome }
    }

    /// One poll, written; `Some` when the connection is of no use any more.
    async fn poll_once(
        &mut self,
        client: &Client,
        session: &mut Session,
        watched: &Mutex<Vec<Watched>>,
        slow_facts: &Mutex<BTreeMap<String, String>>,
    ) -> Option<Outcome> {
        let ts = self.shared.clock.now();
        let begun = Instant::now();
        let now_watched = lock(watched).clone();
        let (polled, looked) = tokio::join!(session.poll(client), mailbox::look(client, &now_watched));
        let (mut poll, looked) = match polled.and_then(|polled| Ok((polled, looked?))) {
            Ok(both) => both,
            Err(why) => return Some(Outcome::Down(format!("the node does not answer: {why}"))),
        };
        poll.rows.push(("beam_poll_duration_seconds", begun.elapsed().as_secs_f64()));
        let mailboxes_complete = looked.iter().all(|(_, length)| length.is_some());
        lock(watched).retain_mut(|w| {
            // What a scan added meanwhile was not looked at, and stays.
            let asked = now_watched.iter().any(|old| old.pid == w.pid);
            let found = looked.iter().find(|(seen, _)| seen.pid == w.pid);
            if let Some((_, Some(length))) = found {
                w.length = *length;
            }
            found.is_some() || !asked
        });
        let mut rows: Vec<(Labels, f64)> =
            poll.rows.iter().filter_map(|(name, v)| Some((self.base.labels(name, "")?, *v))).collect();
        let lengths = looked.into_iter().filter_map(|(w, length)| Some((w.name, length?)));
        for (process, messages) in mailbox::by_name(lengths) {
            let limit = self.shared.config.mailbox_limit as f64;
            for (name, value) in [("beam_mailbox_messages", messages as f64), ("beam_mailbox_limit_messages", limit)] {
                rows.extend(self.base.labels(name, &process).map(|labels| (labels, value)));
            }
        }
        let mut batch = Batch::default();
        self.polled.write(rows, poll.complete && mailboxes_complete, ts, &mut batch);
        self.write_up(1.0, ts, &mut batch);
        if !submit(&self.shared, batch).await {
            return Some(Outcome::Stopped);
        }
        self.last_poll = Some(ts);
        self.facts.extend(session.facts.clone());
        self.facts.extend(lock(slow_facts).clone());
        self.report(Health::Up, "");
        None
    }

    /// Adds `beam_up`; ends it under its former labels when those changed.
    fn write_up(&mut self, value: f64, ts: Timestamp, batch: &mut Batch) {
        let labels = self.base.labels("beam_up", "");
        if self.up != labels
            && let Some(former) = self.up.take()
        {
            batch.push(former, ts, forewarn_schemas::STALE_NAN);
        }
        if let Some(labels) = labels {
            batch.push(labels.clone(), ts, value);
            self.up = Some(labels);
        }
    }

    /// Writes that the node is down, and ends its other series; false when the log is closed.
    async fn write_down(&mut self) -> bool {
        if self.name.is_none() {
            // Never joined, so its full name is not known, nor whether it is any of our business.
            return true;
        }
        let ts = self.shared.clock.now();
        let mut batch = Batch::default();
        self.polled.end(ts, &mut batch);
        lock(&self.slow).end(ts, &mut batch);
        self.write_up(0.0, ts, &mut batch);
        submit(&self.shared, batch).await
    }

    /// Waits before the next attempt, while `beam_up` is written as 0 (when `down`) at every interval. Ends early when
    /// the node registers anew or when another cookie than `refused` is there. False when the log is closed.
    async fn wait(&mut self, wait: Duration, refused: Option<Cookie>, down: bool) -> bool {
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
            let mended = |refused: &Cookie| self.cookie.load().is_ok_and(|found| found.cookie != *refused);
            if refused.as_ref().is_some_and(mended) {
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
        let cookie = matches!(error, DialError::Cookie).then_some(cookie);
        Outcome::Refused { error: error.to_string(), mend, cookie }
    }

    fn warn_of_exposure(&self, place: &str, exposed: bool) {
        let message = format!("cookie file {place} can be read by others");
        if !exposed {
            self.shared.board.mended(COLLECTOR, &message);
        } else if self.shared.board.notice(COLLECTOR, &message, &format!("chmod 400 {place}")) {
            warn!(place, "cookie file can be read by others");
        }
    }

    fn say(&mut self, message: String, mend: &str) {
        if self.notice.as_ref() != Some(&message) {
            self.unsay();
        }
        self.shared.board.notice(COLLECTOR, &message, mend);
        self.notice = Some(message);
    }

    fn unsay(&mut self) {
        if let Some(message) = self.notice.take() {
            self.shared.board.mended(COLLECTOR, &message);
        }
    }

    fn report(&self, health: Health, error: &str) {
        self.shared.board.set(Target {
            node: self.label(),
            family: self.base.family.clone(),
            collector: COLLECTOR.into(),
            configured: self.base.discovered == "config",
            health,
            since: self.shared.clock.now(),
            last_poll: self.last_poll,
            error: error.to_owned(),
            facts: self.facts.clone(),
        });
    }

    /// The full name, or the best that is known.
    fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{}@{}", self.alive, self.us.name.host()))
    }

    /// Ends everything that was written under the present name and takes it off the board.
    async fn forget(&mut self) {
        let ts = self.shared.clock.now();
        let mut batch = Batch::default();
        self.polled.end(ts, &mut batch);
        lock(&self.slow).end(ts, &mut batch);
        if let Some(labels) = self.up.take() {
            batch.push(labels, ts, forewarn_schemas::STALE_NAN);
        }
        submit(&self.shared, batch).await;
        self.unsay();
        self.shared.board.forget(COLLECTOR, &self.label());
        if let Some(name) = self.name.take() {
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
                std::future::pending().await
            }
        }
    }
}

/// Hands a batch over; tries on for one interval while the log is behind. False when the log is closed.
async fn submit(shared: &Shared, batch: Batch) -> bool {
    if batch.series.is_empty() {
        return true;
    }
    let end = Instant::now() + shared.config.interval;
    loop {
        match shared.intake.submit(COLLECTOR, batch.clone(), Urgency::Lingering).await {
            Ok(accepted) => {
                if !accepted.refused.is_empty() {
                    debug!(refused = ?accepted.refused, "samples refused at the edge");
                }
                return true;
            }
            Err(SubmitError::Closed(why)) => {
                info!(why, "the log is closed, the beam collector ends");
                return false;
            }
            Err(SubmitError::Overloaded { reason, retry_after }) => {
                if Instant::now() + retry_after > end {
                    warn!(reason, samples = batch.samples(), "samples dropped, the log is behind");
                    return true;
                }
                sleep(retry_after).await;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Time before attempt `attempt`: doubling from a second to a minute, times 0.5 to 1 by `unit` in [0, 1), so that
/// nodes lost together do not come back together.
fn backoff(attempt: u32, unit: f64) -> Duration {
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
