//! Alerts as they come in: known or new, firing, over, back again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use forewarn_schemas::{Alert, AlertStatus, Fingerprint, Severity, Timestamp};

use super::record::{self, AlertRecord, GroupRef, VERSION};
use super::timers::Wake;
use super::{Entry, Group, Router, group_of, group_record, is_sent, put};
use crate::notification::bound_annotations;

/// An alert that is over is remembered, shown as resolved and known as flapping when it comes back, for this long.
const RESOLVED_KEPT: Duration = Duration::from_secs(3600);
/// Annotations that only change their numbers are written at most this often.
const ANNOTATIONS_WRITE_INTERVAL: Duration = Duration::from_secs(60);

impl Router {
    pub(super) fn upsert(&mut self, now: Timestamp, scope: &Arc<str>, mut alert: Alert) {
        if alert.labels.is_empty() {
            self.metrics.alerts_refused.inc();
            return;
        }
        bound_annotations(&mut alert.annotations);
        let fingerprint = alert.fingerprint();
        if let (AlertStatus::Resolved, Some(end)) = (alert.status(now), alert.ends_at) {
            self.end(now, fingerprint, end);
            return;
        }
        let held = self.alerts.get(&fingerprint).is_some_and(|e| self.status(e, now) == AlertStatus::Firing);
        let Some(entry) = self.alerts.get_mut(&fingerprint) else {
            let entry = Entry {
                alert,
                scope: Arc::clone(scope),
                refired_at: None,
                notified_at: None,
                groups: BTreeSet::new(),
                written_at: now,
            };
            self.alerts.insert(fingerprint, entry);
            self.join(now, fingerprint);
            return;
        };
        let ended = entry.alert.ends_at.filter(|end| *end <= now);
        if held {
            alert.starts_at = alert.starts_at.min(entry.alert.starts_at);
        }
        let changed = entry.scope != *scope
            || entry.alert.ends_at != alert.ends_at
            || entry.alert.annotations.get("state") != alert.annotations.get("state");
        let stale = entry.alert != alert && now.since(entry.written_at) >= ANNOTATIONS_WRITE_INTERVAL;
        entry.alert = alert;
        entry.scope = Arc::clone(scope);
        if let Some(end) = ended {
            // What nobody was told of has not cried wolf.
            if now.since(end) < RESOLVED_KEPT && entry.notified_at.is_some() {
                entry.refired_at = Some(now);
                self.metrics.flaps.inc();
            }
            self.join(now, fingerprint);
        } else if changed || stale {
            self.write_alert(now, fingerprint);
        }
        self.arm_expiry(fingerprint);
    }

    /// Ends an alert that is known and firing.
    pub(super) fn end(&mut self, now: Timestamp, fingerprint: Fingerprint, end: Timestamp) {
        let Some(entry) = self.alerts.get_mut(&fingerprint) else { return };
        if entry.alert.status(now) == AlertStatus::Firing {
            entry.alert.ends_at = Some(end.max(entry.alert.starts_at).min(now));
            entry.alert.updated_at = now;
            self.write_alert(now, fingerprint);
            self.arm_expiry(fingerprint);
        }
    }

    /// Says whether an alert counts as over: an end of a flapping alert has to last.
    pub(super) fn status(&self, entry: &Entry, now: Timestamp) -> AlertStatus {
        let Some(end) = entry.alert.ends_at else { return AlertStatus::Firing };
        let flapping = entry.refired_at.is_some_and(|refired| end.since(refired) < RESOLVED_KEPT);
        let hold = if flapping { self.config.flap_hold } else { Duration::ZERO };
        if end + hold <= now { AlertStatus::Resolved } else { AlertStatus::Firing }
    }

    /// Puts a firing alert into the groups that its labels lead to.
    pub(super) fn join(&mut self, now: Timestamp, fingerprint: Fingerprint) {
        let Some(entry) = self.alerts.get_mut(&fingerprint) else { return };
        entry.groups.clear();
        if is_sent(&entry.alert) {
            let critical = entry.alert.severity() == Severity::Critical;
            for route in self.config.tree.matching(&entry.alert.labels) {
                let (id, labels) = group_of(route, &entry.alert.labels);
                let wait = route.wait(critical);
                let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(route, labels, now + wait));
                group.members.insert(fingerprint);
                if !group.flushed {
                    // An alert that has gone on for longer than that has waited enough.
                    let waited = entry.alert.starts_at + wait < now;
                    group.next_flush = group.next_flush.min(if waited { now } else { now + wait });
                }
                self.timers.set(Wake::Group(id.clone()), group.next_flush);
                put(&mut self.unwritten, record::group_key(&id), &group_record(&id, group));
                entry.groups.insert(id);
            }
        }
        self.write_alert(now, fingerprint);
    }

    pub(super) fn arm_expiry(&mut self, fingerprint: Fingerprint) {
        match self.alerts.get(&fingerprint).and_then(|e| e.alert.ends_at) {
            Some(end) => self.timers.set(Wake::Expire(fingerprint), end + RESOLVED_KEPT.max(self.config.flap_hold)),
            None => self.timers.clear(&Wake::Expire(fingerprint)),
        }
    }

    /// Forgets an alert that is over, unless a receiver has yet to be told.
    pub(super) fn expire(&mut self, now: Timestamp, fingerprint: Fingerprint) {
        let Some(entry) = self.alerts.get(&fingerprint) else { return };
        if entry.groups.is_empty() && self.status(entry, now) == AlertStatus::Resolved {
            self.alerts.remove(&fingerprint);
            self.unwritten.insert(record::alert_key(fingerprint), None);
        } else {
            self.timers.set(Wake::Expire(fingerprint), now + RESOLVED_KEPT);
        }
    }

    pub(super) fn write_alert(&mut self, now: Timestamp, fingerprint: Fingerprint) {
        let Some(entry) = self.alerts.get_mut(&fingerprint) else { return };
        entry.written_at = now;
        let record = AlertRecord {
            v: VERSION,
            scope: entry.scope.to_string(),
            alert: entry.alert.clone(),
            refired_at: entry.refired_at,
            notified_at: entry.notified_at,
            groups: entry.groups.iter().map(GroupRef::from).collect(),
        };
        put(&mut self.unwritten, record::alert_key(fingerprint), &record);
    }
}
