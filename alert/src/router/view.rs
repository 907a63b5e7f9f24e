//! What others may see of the router: for the page, the HTTP API and the metrics.

use std::collections::BTreeSet;

use forewarn_schemas::{Alert, AlertStatus, Fingerprint, Timestamp};
use serde::Serialize;

use super::Router;
use super::record::DeadLetter;

/// An alert as others see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlertView {
    /// The alert.
    pub alert: Alert,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// Whether it counts as over; those that are over are shown for an hour.
    pub status: AlertStatus,
    /// Where it came from: a scope of [`Router::reconcile`], or empty.
    pub scope: String,
    /// Who is told, sorted; empty for `info`, and once all were told of the end.
    pub receivers: Vec<String>,
    /// When anybody was last told of it.
    pub last_notified: Option<Timestamp>,
}

impl Router {
    /// Returns all alerts: those that fire, and those that ended within the last hour. Sorted by fingerprint.
    pub fn alerts(&self, now: Timestamp) -> Vec<AlertView> {
        let view = |(fingerprint, entry): (&Fingerprint, &super::Entry)| {
            let receivers: BTreeSet<&str> = entry.groups.iter().map(|g| &*g.receiver).collect();
            AlertView {
                alert: entry.alert.clone(),
                fingerprint: *fingerprint,
                status: self.status(entry, now),
                scope: entry.scope.to_string(),
                receivers: receivers.into_iter().map(str::to_owned).collect(),
                last_notified: entry.notified_at,
            }
        };
        self.alerts.iter().map(view).collect()
    }

    /// Returns the notifications that were given up on and not superseded by a success.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead.values().cloned().collect()
    }

    /// Brings the gauges up to date.
    pub(super) fn show(&self, now: Timestamp) {
        let m = &self.metrics;
        m.alerts.reset();
        for severity in ["info", "warning", "critical"] {
            for state in ["firing", "resolved"] {
                m.alerts.with_label_values(&[severity, state]).set(0);
            }
        }
        for entry in self.alerts.values() {
            let state = match self.status(entry, now) {
                AlertStatus::Firing => "firing",
                AlertStatus::Resolved => "resolved",
            };
            m.alerts.with_label_values(&[entry.alert.severity().as_str(), state]).inc();
        }
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        m.groups.set(count(self.groups.len()));
        m.outbox.set(count(self.deliveries.values().filter(|d| d.intent.is_some()).count()));
        m.dead_letters.set(count(self.dead.len()));
        m.unwritten.set(count(self.unwritten.len()));
    }
}
