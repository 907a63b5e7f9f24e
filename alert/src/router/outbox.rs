//! From groups to notifications and back: flush, attempt, result, settle.
//!
//! Each (group, integration) has one slot: what its receiver was last told ([`Sent`]) and at most one notification
//! that is to be told ([`Intent`]). An intent is written before the first attempt and holds no text: each attempt is
//! made from the group as it is then. So newer state replaces older while an attempt waits, and a beginning and an end
//! that wait together become nothing, unless the beginning may have arrived; then the end is told.

use std::collections::BTreeSet;
use std::time::Duration;

use forewarn_schemas::{AlertStatus, Fingerprint, Timestamp};
use xxhash_rust::xxh64::xxh64;

use super::record::{self, DeadLetter, DeliveryRecord, Intent, Sent, VERSION};
use super::timers::Wake;
use super::{Delivery, Router, group_record, put};
use crate::metrics::Outcome;
use crate::notification::{Cause, DeliveryId, GroupId, Notification, NotifiedAlert};
use crate::receiver::backoff;
use crate::receiver::{Reason, Retry, SendError};

/// A notification that says only that something is over is given up on after this long.
const RESOLVED_RETRY_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most dead letters that are kept; the oldest make room.
const DEAD_LETTERS_MAX: usize = 1000;
/// Most alerts that a dead letter names.
const DEAD_LETTER_ALERTS_MAX: usize = 20;

/// Which alerts of a group fire, and which are over.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sets {
    firing: BTreeSet<Fingerprint>,
    resolved: BTreeSet<Fingerprint>,
}

impl Router {
    /// Returns the notifications whose time has come, each written down as an intent. Each must be answered by one
    /// [`Router::sent`]; until then its group and integration get no other.
    pub fn due(&mut self, now: Timestamp) -> Vec<Notification> {
        let mut out = Vec::new();
        for wake in self.timers.take_due(now) {
            match wake {
                Wake::Group(id) => self.flush(now, &id, &mut out),
                Wake::Delivery(id) => {
                    out.extend(self.attempt(now, &id));
                    self.settle(now, &id.group);
                }
                Wake::Expire(fingerprint) => self.expire(now, fingerprint),
            }
        }
        self.commit(now);
        out
    }

    /// Takes the result of one attempt.
    pub fn sent(&mut self, now: Timestamp, notification: &Notification, result: Result<(), SendError>) {
        let id = &notification.delivery;
        let delivery = self.deliveries.get_mut(id);
        let Some(intent) =
            delivery.and_then(|d| d.intent.as_mut()).filter(|i| i.in_flight && i.dedup_key == notification.dedup_key)
        else {
            // The configuration dropped the group meanwhile.
            return;
        };
        intent.in_flight = false;
        let told =
            Sent { at: notification.at, firing: notification.firing.clone(), resolved: notification.resolved.clone() };
        match result {
            Ok(()) => {
                for a in &notification.alerts {
                    let fingerprint = a.alert.fingerprint();
                    if let Some(entry) = self.alerts.get_mut(&fingerprint) {
                        entry.notified_at = Some(notification.at);
                    }
                    self.write_alert(now, fingerprint);
                }
                self.close(id, Some(told), Outcome::Sent);
            }
            Err(e) => self.failed(now, notification, told, &e),
        }
        self.write_delivery(id);
        self.settle(now, &id.group);
        self.commit(now);
    }

    fn failed(&mut self, now: Timestamp, notification: &Notification, told: Sent, e: &SendError) {
        let id = &notification.delivery;
        let Some(intent) = self.deliveries.get_mut(id).and_then(|d| d.intent.as_mut()) else { return };
        intent.attempts = intent.attempts.saturating_add(1);
        intent.may_have_arrived |= e.reason.may_have_arrived();
        let over = notification.firing.is_empty();
        let too_late = over && now.since(intent.made_at) >= RESOLVED_RETRY_MAX;
        let wait = backoff::wait(e.retry, intent.attempts, &mut self.rng).filter(|_| !too_late);
        let attempts = intent.attempts;
        if let Some(wait) = wait {
            intent.not_before = now + wait;
            intent.asked = matches!(e.retry, Retry::After(_));
            self.timers.set(Wake::Delivery(id.clone()), now + wait);
            if intent.asked {
                let key = (std::sync::Arc::clone(&id.group.receiver), id.integration.clone());
                self.paused.insert(key, now + wait);
            }
            self.metrics.count_outcome(&id.integration.kind, Outcome::Retry);
            tracing::warn!(receiver = %id.group.receiver, integration = %id.integration, attempts, error = %e,
                retry_seconds = wait.as_secs_f64(), "notification failed and is tried again");
            return;
        }
        tracing::error!(receiver = %id.group.receiver, integration = %id.integration, attempts, error = %e,
            "notification is given up on");
        self.bury(now, notification, e.reason, &e.detail);
        // That something is over is not worth another attempt; that something fires is, at the next interval.
        self.close(id, over.then_some(told), Outcome::Dead);
    }

    /// Empties a slot's outbox.
    fn close(&mut self, id: &DeliveryId, told: Option<Sent>, outcome: Outcome) {
        if let Some(delivery) = self.deliveries.get_mut(id) {
            delivery.intent = None;
            delivery.sent = told.or(delivery.sent.take());
        }
        if outcome == Outcome::Sent && self.dead.remove(id).is_some() {
            self.unwritten.insert(record::dead_key(id), None);
        }
        self.timers.clear(&Wake::Delivery(id.clone()));
        self.metrics.count_outcome(&id.integration.kind, outcome);
        self.write_delivery(id);
    }

    fn bury(&mut self, now: Timestamp, notification: &Notification, reason: Reason, detail: &str) {
        let id = &notification.delivery;
        if self.dead.len() >= DEAD_LETTERS_MAX && !self.dead.contains_key(id) {
            let oldest = self.dead.iter().min_by_key(|(_, d)| d.last_at).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                self.dead.remove(&oldest);
                self.unwritten.insert(record::dead_key(&oldest), None);
            }
        }
        let before = self.dead.get(id);
        let named = notification.alerts.iter().take(DEAD_LETTER_ALERTS_MAX);
        let letter = DeadLetter {
            v: VERSION,
            receiver: id.group.receiver.to_string(),
            group_key: id.group.key.to_string(),
            integration: id.integration.kind.to_string(),
            index: id.integration.index,
            first_at: before.map_or(now, |d| d.first_at),
            last_at: now,
            count: before.map_or(0, |d| d.count) + 1,
            reason: reason.as_str().into(),
            detail: detail.into(),
            alerts: named.map(|a| a.alert.labels.clone()).collect(),
        };
        put(&mut self.unwritten, record::dead_key(id), &letter);
        self.dead.insert(id.clone(), letter);
    }

    /// Does what a group's timer is for.
    fn flush(&mut self, now: Timestamp, id: &GroupId, out: &mut Vec<Notification>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if group.members.is_empty() {
            self.forget(id);
            return;
        }
        group.flushed = true;
        group.next_flush = now + group.interval;
        self.timers.set(Wake::Group(id.clone()), group.next_flush);
        put(&mut self.unwritten, record::group_key(id), &group_record(id, group));
        for spec in self.config.receivers.get(&id.receiver).cloned().unwrap_or_default() {
            let id = DeliveryId { group: id.clone(), integration: spec.id };
            if self.deliveries.get(&id).is_none_or(|d| d.intent.is_none()) {
                out.extend(self.attempt(now, &id));
            }
        }
        self.settle(now, id);
    }

    /// Makes the next attempt of a slot from the group as it is now, if there is still something to tell.
    fn attempt(&mut self, now: Timestamp, id: &DeliveryId) -> Option<Notification> {
        let specs = self.config.receivers.get(&id.group.receiver);
        let send_resolved = specs?.iter().find(|s| s.id == id.integration)?.send_resolved;
        let repeat = self.groups.get(&id.group)?.repeat;
        let sets = self.sets(now, &id.group);
        let delivery = self.deliveries.entry(id.clone()).or_default();
        let needed = needs(delivery.sent.as_ref(), &sets, send_resolved, repeat, now);
        let pending = delivery.intent.take();
        if pending.as_ref().is_some_and(|i| i.in_flight) {
            delivery.intent = pending;
            return None;
        }
        let unsure = pending.as_ref().is_some_and(|i| i.may_have_arrived);
        let attempts = pending.as_ref().map_or(0, |i| i.attempts);
        let cause = match needed {
            Some(cause) => cause,
            // The receiver may know of a beginning that the notification log lacks: its end has to be told.
            None if unsure && sets.firing.is_empty() => Cause::AllResolved,
            None if unsure => Cause::Firing,
            None => {
                if pending.is_some() {
                    self.close(id, None, Outcome::Collapsed);
                }
                return None;
            }
        };
        if sets.firing.is_empty() && !send_resolved {
            let told = Sent { at: now, firing: sets.firing, resolved: sets.resolved };
            let delivery = self.deliveries.get_mut(id)?;
            delivery.sent = Some(told);
            self.write_delivery(id);
            return None;
        }
        let key = (std::sync::Arc::clone(&id.group.receiver), id.integration.clone());
        let paused = self.paused.get(&key).copied().filter(|until| *until > now);
        let same = pending.filter(|i| i.firing == sets.firing && i.resolved == sets.resolved);
        let intent = Intent {
            dedup_key: same.as_ref().map_or_else(|| dedup_key(id, now), |i| i.dedup_key.clone()),
            made_at: same.as_ref().map_or(now, |i| i.made_at),
            firing: sets.firing.clone(),
            resolved: sets.resolved.clone(),
            attempts,
            in_flight: paused.is_none(),
            not_before: paused.unwrap_or(now),
            asked: paused.is_some(),
            may_have_arrived: unsure,
        };
        let notification = paused.is_none().then(|| self.compose(id, &intent, &sets, send_resolved, cause, now));
        if let Some(until) = paused {
            self.timers.set(Wake::Delivery(id.clone()), until);
        }
        self.deliveries.entry(id.clone()).or_default().intent = Some(intent);
        self.write_delivery(id);
        notification.flatten()
    }

    fn compose(
        &self,
        id: &DeliveryId,
        intent: &Intent,
        sets: &Sets,
        send_resolved: bool,
        cause: Cause,
        now: Timestamp,
    ) -> Option<Notification> {
        let pick = |set: &BTreeSet<Fingerprint>, status| -> Vec<NotifiedAlert> {
            let known = set.iter().filter_map(|f| self.alerts.get(f));
            known.map(|e| NotifiedAlert { alert: e.alert.clone(), status }).collect()
        };
        let mut alerts = pick(&sets.firing, AlertStatus::Firing);
        if send_resolved {
            alerts.extend(pick(&sets.resolved, AlertStatus::Resolved));
        }
        alerts.sort_by(|a, b| {
            let rank = |n: &NotifiedAlert| (n.status == AlertStatus::Resolved, std::cmp::Reverse(n.alert.severity()));
            let order = rank(a).cmp(&rank(b)).then(a.alert.starts_at.cmp(&b.alert.starts_at));
            order.then_with(|| a.alert.labels.cmp(&b.alert.labels))
        });
        Some(Notification {
            delivery: id.clone(),
            dedup_key: intent.dedup_key.clone(),
            group_labels: self.groups.get(&id.group)?.labels.clone(),
            alerts,
            external_url: std::sync::Arc::clone(&self.config.external_url),
            cause,
            attempts: intent.attempts,
            at: now,
            firing: sets.firing.clone(),
            resolved: sets.resolved.clone(),
        })
    }

    fn sets(&self, now: Timestamp, id: &GroupId) -> Sets {
        let mut sets = Sets::default();
        for fingerprint in self.groups.get(id).map(|g| &g.members).into_iter().flatten() {
            let Some(entry) = self.alerts.get(fingerprint) else { continue };
            match self.status(entry, now) {
                AlertStatus::Firing => sets.firing.insert(*fingerprint),
                AlertStatus::Resolved => sets.resolved.insert(*fingerprint),
            };
        }
        sets
    }

    /// Takes the alerts that are over out of a group once nobody has to be told any more.
    fn settle(&mut self, now: Timestamp, id: &GroupId) {
        let Some(group) = self.groups.get(id) else { return };
        let sets = self.sets(now, id);
        let specs = self.config.receivers.get(&id.receiver).cloned().unwrap_or_default();
        let slot = |integration| DeliveryId { group: id.clone(), integration };
        let open = specs.iter().any(|spec| {
            let delivery = self.deliveries.get(&slot(spec.id.clone()));
            let sent = delivery.and_then(|d| d.sent.as_ref());
            delivery.is_some_and(|d| d.intent.is_some())
                || needs(sent, &sets, spec.send_resolved, group.repeat, now).is_some()
        });
        if open || sets.resolved.is_empty() {
            return;
        }
        for spec in &specs {
            let id = slot(spec.id.clone());
            if let Some(sent) = self.deliveries.get_mut(&id).and_then(|d| d.sent.as_mut()) {
                // What comes back after this is news again.
                sent.firing.retain(|f| !sets.resolved.contains(f));
                sent.resolved.retain(|f| !sets.resolved.contains(f));
                self.write_delivery(&id);
            }
        }
        for fingerprint in &sets.resolved {
            self.groups.get_mut(id).map(|g| g.members.remove(fingerprint));
            if let Some(entry) = self.alerts.get_mut(fingerprint) {
                entry.groups.remove(id);
            }
            self.write_alert(now, *fingerprint);
        }
        let told = specs.iter().any(|s| self.deliveries.get(&slot(s.id.clone())).is_some_and(|d| d.sent.is_some()));
        if sets.firing.is_empty() && !told {
            self.forget(id);
        }
    }

    /// Removes an empty group with its slots.
    fn forget(&mut self, id: &GroupId) {
        self.groups.remove(id);
        self.timers.clear(&Wake::Group(id.clone()));
        self.unwritten.insert(record::group_key(id), None);
        for spec in self.config.receivers.get(&id.receiver).cloned().unwrap_or_default() {
            let id = DeliveryId { group: id.clone(), integration: spec.id };
            if self.deliveries.remove(&id).is_some() {
                self.timers.clear(&Wake::Delivery(id.clone()));
                self.unwritten.insert(record::delivery_key(&id), None);
            }
        }
    }

    fn write_delivery(&mut self, id: &DeliveryId) {
        let Some(Delivery { sent, intent }) = self.deliveries.get(id) else { return };
        let record = DeliveryRecord {
            v: VERSION,
            group: (&id.group).into(),
            integration: id.integration.kind.to_string(),
            index: id.integration.index,
            sent: sent.clone(),
            intent: intent.clone(),
        };
        put(&mut self.unwritten, record::delivery_key(id), &record);
    }
}

/// Says why a receiver has to be told, if it has to be.
///
/// # Source
/// Alertmanager's deduplication stage: news is a firing alert that the last notification lacked, the end of all, the
/// end of some if wanted, and the repeat interval.
fn needs(sent: Option<&Sent>, sets: &Sets, send_resolved: bool, repeat: Duration, now: Timestamp) -> Option<Cause> {
    let Some(sent) = sent else { return (!sets.firing.is_empty()).then_some(Cause::Firing) };
    if !sets.firing.is_subset(&sent.firing) {
        return Some(Cause::Firing);
    }
    if sets.firing.is_empty() {
        return (!sent.firing.is_empty()).then_some(Cause::AllResolved);
    }
    if send_resolved && !sets.resolved.is_subset(&sent.resolved) {
        return Some(Cause::Resolved);
    }
    (sent.at + repeat <= now).then_some(Cause::Repeat)
}

/// The same place and time of decision give the same key; no two decisions of one place share a time.
fn dedup_key(id: &DeliveryId, now: Timestamp) -> String {
    let place = format!("{}\n{}\n{}", id.group.receiver, id.integration, id.group.key);
    format!("{:016x}{:016x}", xxh64(place.as_bytes(), 0), now.as_millis())
}
