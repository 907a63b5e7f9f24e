//! The groups built anew, at start and when the configuration changes.

use std::collections::BTreeSet;

use forewarn_schemas::{AlertStatus, Timestamp};

use super::record::{self, GroupRecord};
use super::timers::{Timers, Wake};
use super::{Group, Router, group_of, is_sent};
use crate::notification::{DeliveryId, GroupId};
use crate::receiver::backoff;

impl Router {
    /// Builds the groups anew: from the alerts, the routes, and what is remembered of the groups' timers.
    pub(super) fn regroup(&mut self, now: Timestamp, remembered: Vec<GroupRecord>) {
        self.groups.clear();
        self.timers = Timers::default();
        for r in remembered {
            let id = r.group.id();
            let Some(route) = self.config.tree.find(&r.route_key, &id.receiver) else {
                self.unwritten.insert(record::group_key(&id), None);
                continue;
            };
            // A clock that was set back must not put off what is due.
            let longest = if r.flushed { route.group_interval } else { route.wait(false) };
            let next_flush = r.next_flush.min(now + longest);
            let group = Group { flushed: r.flushed, ..Group::new(route, r.labels, next_flush) };
            self.timers.set(Wake::Group(id.clone()), group.next_flush);
            self.groups.insert(id, group);
        }
        for fingerprint in self.alerts.keys().copied().collect::<Vec<_>>() {
            let Some(entry) = self.alerts.get_mut(&fingerprint) else { continue };
            if entry.alert.status(now) == AlertStatus::Firing {
                let before = entry.groups.clone();
                let sent = is_sent(&entry.alert);
                let routes = self.config.tree.matching(&entry.alert.labels);
                let after: BTreeSet<GroupId> =
                    routes.iter().filter(|_| sent).map(|r| group_of(r, &entry.alert.labels).0).collect();
                if before == after && after.iter().all(|id| self.groups.contains_key(id)) {
                    for id in &after {
                        self.groups.get_mut(id).map(|g| g.members.insert(fingerprint));
                    }
                } else {
                    self.join(now, fingerprint);
                }
            } else {
                // An end is still to be told only where the record says so.
                entry.groups.retain(|id| self.groups.contains_key(id));
                for id in &entry.groups {
                    self.groups.get_mut(id).map(|g| g.members.insert(fingerprint));
                }
            }
            self.arm_expiry(fingerprint);
        }
        let has = |id: &DeliveryId| {
            let specs = self.config.receivers.get(&id.group.receiver);
            specs.is_some_and(|s| s.iter().any(|s| s.id == id.integration)) && self.groups.contains_key(&id.group)
        };
        let orphans: Vec<DeliveryId> = self.deliveries.keys().filter(|id| !has(id)).cloned().collect();
        for id in orphans {
            self.deliveries.remove(&id);
            self.unwritten.insert(record::delivery_key(&id), None);
        }
        for (id, delivery) in &mut self.deliveries {
            if let Some(intent) = delivery.intent.as_mut().filter(|i| !i.in_flight) {
                intent.not_before = intent.not_before.min(now + backoff::ASKED_MAX);
                self.timers.set(Wake::Delivery(id.clone()), intent.not_before);
            }
        }
    }
}
