//! While a node is connected: the two cycles of questions, and what is written of their answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forewarn_schemas::{Batch, Labels};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info};

use super::report::submit;
use super::{Node, Outcome, lock};
use crate::beam::config::BeamConfig;
use crate::beam::link::Client;
use crate::beam::mailbox::{self, Watched};
use crate::beam::poll::{self, Session};
use crate::status::Health;

impl Node {
    /// Asks in two cycles until one of them cannot go on.
    pub(super) async fn ask(&mut self, client: &Client, config: &BeamConfig) -> Outcome {
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
        let uptime = poll.rows.iter().find(|(name, _)| *name == "beam_uptime_seconds").map(|(_, v)| *v);
        let uptime = uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        self.age = self.age.max(uptime.unwrap_or_default());
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
}
