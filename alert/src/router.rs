//! The state machine between alerts and notifications. Time is passed in; the only I/O is the state log.
//!
//! [`Router::apply`] and [`Router::reconcile`] take alerts in; [`Router::due`] gives out the notifications whose time
//! has come; [`Router::sent`] takes their results; [`Router::next_due`] says when to ask again.
//!
//! # Semantics
//! Those of Alertmanager: a new group waits `group_wait`, tells of changes every `group_interval`, repeats after
//! `repeat_interval`; a receiver is told when alerts fire that it does not know of, when all are over, when some are
//! over (`send_resolved`), or to repeat; when all alerts of a group end before `group_wait` has passed nothing is sent.
//! Annotations are no part of an alert's identity, so a forecast that worsens to `exhausted` is told with the next
//! notification and causes none. Departures, each for the sake of who is paged:
//! - a group with a critical alert waits 10 s where no `group_wait` is configured;
//! - severity `info` is shown and never sent;
//! - a group that became empty after it was notified keeps its timer, so an alert that comes back is told at the next
//!   `group_interval`; from then on its end is held for `flap_hold` (see [`crate::AlertConfig::flap_hold`]);
//! - with `send_resolved: false` an alert that comes back is told, even if the group never was without alerts;
//! - a failed notification is tried again until it is through or pointless, always with the group's newest state;
//! - a permanent failure goes to the dead letters; while the group fires it is tried again every `group_interval`.
//!
//! # Durability
//! Alerts, timers, notification log and outbox are records of the [`StateLog`] (`docs/formats/state-log-v1.md`). All
//! changes of one call are one batch, durable before the call returns. When the state log refuses a write (a full
//! disk), the router goes on in memory, says so by a metric and an error in the log, and writes the difference as soon
//! as it can: silence would cost more than the repeat that a crash at that moment would cause. Of annotations that
//! only change their numbers, the record is at most a minute old.

mod intake;
mod outbox;
mod record;
mod regroup;
mod timers;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use forewarn_schemas::{Alert, AlertStatus, Fingerprint, Labels, ResourceKey, Severity, Timestamp};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::Value;

pub use record::DeadLetter;
pub use view::AlertView;

use crate::config::AlertConfig;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::notification::{DeliveryId, GroupId, Integration};
use crate::receiver::{self, IntegrationSpec};
use crate::route::{Route, RouteTree};
use crate::state_log::{Change, StateLog};
use record::{AlertRecord, DeliveryRecord, GroupRecord, GroupRef, Intent, Sent, VERSION};
use timers::Timers;

/// How long to wait before a refused write is tried again.
const WRITE_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// What a router needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    tree: RouteTree,
    receivers: BTreeMap<Arc<str>, Vec<IntegrationSpec>>,
    external_url: Arc<str>,
    flap_hold: Duration,
    seed: u64,
}

impl RouterConfig {
    /// Makes it of a validated configuration.
    ///
    /// - `external_url`: where forewarn's page is, for the payload; without a slash at the end.
    /// - `seed`: of the jitter between attempts.
    ///
    /// # Errors
    /// [`Error::Receiver`] with what [`AlertConfig::validate`] would have said of the route.
    pub fn new(config: &AlertConfig, external_url: &str, seed: u64) -> Result<Self, Error> {
        let (route, receivers) = config.resolved();
        let tree = RouteTree::new(&route).map_err(|why| Error::Receiver { receiver: "route".into(), why })?;
        let receivers = receivers.iter().map(|r| (r.name.as_str().into(), receiver::integrations(r))).collect();
        Ok(Self { tree, receivers, external_url: external_url.into(), flap_hold: config.flap_hold, seed })
    }
}

#[derive(Debug)]
struct Entry {
    alert: Alert,
    scope: Arc<str>,
    refired_at: Option<Timestamp>,
    notified_at: Option<Timestamp>,
    groups: BTreeSet<GroupId>,
    written_at: Timestamp,
}

#[derive(Debug)]
struct Group {
    route_key: Arc<str>,
    labels: Labels,
    interval: Duration,
    repeat: Duration,
    members: BTreeSet<Fingerprint>,
    next_flush: Timestamp,
    flushed: bool,
}

#[derive(Debug, Default)]
struct Delivery {
    sent: Option<Sent>,
    intent: Option<Intent>,
}

/// The alert router's state.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    state: Arc<dyn StateLog>,
    metrics: Metrics,
    alerts: BTreeMap<Fingerprint, Entry>,
    groups: BTreeMap<GroupId, Group>,
    deliveries: BTreeMap<DeliveryId, Delivery>,
    dead: BTreeMap<DeliveryId, DeadLetter>,
    /// Integrations that asked to be left alone until a time.
    paused: BTreeMap<(Arc<str>, Integration), Timestamp>,
    timers: Timers,
    /// Changes that are not durable yet; empty between calls unless the state log refuses.
    unwritten: BTreeMap<String, Option<Value>>,
    write_again_at: Option<Timestamp>,
    rng: SmallRng,
}

impl Router {
    /// Opens the router on its state. Nothing is sent before all of it is loaded; a notification whose result is
    /// unknown is due at once, with the same dedup key.
    ///
    /// # Errors
    /// [`Error::NewerRecord`] for a record of a newer program; [`Error::Storage`] when the state cannot be read. A
    /// record that makes no sense is left out, counted and logged.
    pub fn open(
        config: RouterConfig,
        state: Arc<dyn StateLog>,
        metrics: Metrics,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let alerts: Vec<AlertRecord> = record::load(&*state, record::ALERT, &metrics)?;
        let groups: Vec<GroupRecord> = record::load(&*state, record::GROUP, &metrics)?;
        let deliveries: Vec<DeliveryRecord> = record::load(&*state, record::DELIVERY, &metrics)?;
        let dead: Vec<DeadLetter> = record::load(&*state, record::DEAD, &metrics)?;
        let rng = SmallRng::seed_from_u64(config.seed);
        let mut router = Self {
            config,
            state,
            metrics,
            alerts: BTreeMap::new(),
            groups: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            dead: dead.into_iter().map(|d| (d.id(), d)).collect(),
            paused: BTreeMap::new(),
            timers: Timers::default(),
            unwritten: BTreeMap::new(),
            write_again_at: None,
            rng,
        };
        for a in alerts {
            let groups = a.groups.iter().map(GroupRef::id).collect();
            let entry = Entry {
                alert: a.alert,
                scope: a.scope.into(),
                refired_at: a.refired_at,
                notified_at: a.notified_at,
                groups,
                written_at: now,
            };
            router.alerts.insert(entry.alert.fingerprint(), entry);
        }
        for mut d in deliveries {
            if let Some(intent) = d.intent.as_mut().filter(|i| i.in_flight) {
                // The process ended between the intent and its result.
                intent.in_flight = false;
                intent.may_have_arrived = true;
                intent.not_before = now;
                intent.asked = false;
            }
            if let Some(intent) = d.intent.as_ref().filter(|i| i.asked) {
                let id = d.id();
                let asked = intent.not_before.min(now + receiver::backoff::ASKED_MAX);
                let until = router.paused.entry((id.group.receiver, id.integration)).or_insert(asked);
                *until = asked.max(*until);
            }
            router.deliveries.insert(d.id(), Delivery { sent: d.sent, intent: d.intent });
        }
        router.regroup(now, groups);
        router.commit(now);
        router.show(now);
        Ok(router)
    }

    /// Takes a new configuration. Groups that it still has keep their timers and what was told; the others are
    /// forgotten and their alerts grouped anew.
    pub fn reconfigure(&mut self, now: Timestamp, config: RouterConfig) {
        self.config = config;
        let records = std::mem::take(&mut self.groups).iter().map(|(id, g)| group_record(id, g)).collect();
        self.paused.clear();
        self.regroup(now, records);
        self.commit(now);
    }

    /// Takes alerts in: new ones, changes of known ones, and with an `ends_at` that is not after `now` their end.
    pub fn apply(&mut self, now: Timestamp, alerts: Vec<Alert>) {
        let scope: Arc<str> = "".into();
        for alert in alerts {
            self.upsert(now, &scope, alert);
        }
        self.commit(now);
    }

    /// Takes in the full set of firing alerts of one scope (`p0`, `nodes`): those of the scope that are not in it
    /// have ended at `now`, except the alerts of the resources in `held`, which stay as they are.
    pub fn reconcile(&mut self, now: Timestamp, scope: &str, alerts: Vec<Alert>, held: &[ResourceKey]) {
        let present: BTreeSet<Fingerprint> = alerts.iter().map(Alert::fingerprint).collect();
        let gone: Vec<Fingerprint> = self
            .alerts
            .iter()
            .filter(|(f, e)| &*e.scope == scope && !present.contains(f) && e.alert.status(now) == AlertStatus::Firing)
            .filter(|(_, e)| !held.iter().any(|key| is_about(&e.alert.labels, key)))
            .map(|(f, _)| *f)
            .collect();
        for fingerprint in gone {
            self.end(now, fingerprint, now);
        }
        let scope: Arc<str> = scope.into();
        for alert in alerts {
            self.upsert(now, &scope, alert);
        }
        self.commit(now);
    }

    /// Returns when [`Router::due`] has something to do; `None` while nothing is under way.
    pub fn next_due(&self) -> Option<Timestamp> {
        [self.timers.next(), self.write_again_at].into_iter().flatten().min()
    }

    /// Says whether all that the router knows is durable.
    pub fn is_durable(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Makes the changes of a call durable.
    fn commit(&mut self, now: Timestamp) {
        if self.unwritten.is_empty() {
            return;
        }
        let change = |(key, value): (&String, &Option<Value>)| match value {
            Some(value) => Change::Put { key: key.clone(), value: value.clone() },
            None => Change::Delete { key: key.clone() },
        };
        let changes: Vec<Change> = self.unwritten.iter().map(change).collect();
        match self.state.write(&changes) {
            Ok(()) => {
                self.unwritten.clear();
                self.write_again_at = None;
            }
            Err(e) => {
                self.metrics.state_errors.inc();
                tracing::error!(error = %e, records = changes.len(), "alert state is not durable");
                self.write_again_at = Some(now + WRITE_RETRY_INTERVAL);
            }
        }
        self.show(now);
    }
}

impl Group {
    fn new(route: &Route, labels: Labels, next_flush: Timestamp) -> Self {
        Self {
            route_key: Arc::clone(&route.key),
            labels,
            interval: route.group_interval,
            repeat: route.repeat_interval,
            members: BTreeSet::new(),
            next_flush,
            flushed: false,
        }
    }
}

/// Info is for the page; nobody is told of it.
fn is_sent(alert: &Alert) -> bool {
    alert.severity() != Severity::Info
}

fn is_about(labels: &Labels, key: &ResourceKey) -> bool {
    let has = |name, value: &str| labels.get(name).unwrap_or_default() == value;
    has("node", &key.node) && has("resource", &key.resource) && has("object", &key.object)
}

fn group_of(route: &Route, labels: &Labels) -> (GroupId, Labels) {
    let labels = route.group_labels(labels);
    let key = format!("{}:{labels}", route.key).into();
    (GroupId { receiver: Arc::clone(&route.receiver), key }, labels)
}

fn group_record(id: &GroupId, group: &Group) -> GroupRecord {
    GroupRecord {
        v: VERSION,
        group: id.into(),
        route_key: group.route_key.to_string(),
        labels: group.labels.clone(),
        next_flush: group.next_flush,
        flushed: group.flushed,
    }
}

fn put(unwritten: &mut BTreeMap<String, Option<Value>>, key: String, record: &impl serde::Serialize) {
    let value = serde_json::to_value(record).expect("records have string keys and no floats that JSON lacks");
    unwritten.insert(key, Some(value));
}
