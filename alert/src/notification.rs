//! What is told at once to one integration of one receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use forewarn_schemas::webhook::{WebhookAlert, WebhookPayload, ZERO_TIME};
use forewarn_schemas::{Alert, AlertStatus, Fingerprint, Labels, Severity, Timestamp};

/// Longest annotation, in bytes; the rest is cut.
pub const ANNOTATION_BYTES_MAX: usize = 8 << 10;
/// Most annotations an alert may have; those last in the alphabet are dropped.
pub const ANNOTATIONS_MAX: usize = 64;

/// A group: alerts notified together to one receiver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// The receiver's name.
    pub receiver: Arc<str>,
    /// Matchers of the route and the labels that the alerts agree in: `{}/{a="b"}:{alertname="X"}`. The same for every
    /// notification of the group, before and after a restart.
    pub key: Arc<str>,
}

/// One integration of a receiver: `webhook[0]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Integration {
    /// What it is: one of [`KINDS`](crate::receiver::KINDS).
    pub kind: Arc<str>,
    /// Which one of its kind within the receiver, from 0.
    pub index: usize,
}

impl fmt::Display for Integration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.kind, self.index)
    }
}

/// Where a notification goes: its slot in the outbox and in the notification log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The group.
    pub group: GroupId,
    /// The integration of the group's receiver.
    pub integration: Integration,
}

/// Why there is a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Alerts fire that the receiver has not been told of.
    Firing,
    /// All alerts of the group are over.
    AllResolved,
    /// Some alerts are over.
    Resolved,
    /// Nothing has changed for `repeat_interval`.
    Repeat,
}

/// One alert of a notification.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifiedAlert {
    /// The alert.
    pub alert: Alert,
    /// Whether it is over.
    pub status: AlertStatus,
}

/// A notification on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// Where it goes.
    pub delivery: DeliveryId,
    /// The same for every attempt at the same content, so that a receiver can tell a repeat; 32 hexadecimal digits.
    pub dedup_key: String,
    /// The labels that the alerts were grouped by.
    pub group_labels: Labels,
    /// The alerts, worst first, then oldest; not empty.
    pub alerts: Vec<NotifiedAlert>,
    /// Where forewarn's page is.
    pub external_url: Arc<str>,
    /// Why now.
    pub cause: Cause,
    /// Attempts before this one.
    pub attempts: u32,
    /// When this attempt was made.
    pub at: Timestamp,
    pub(crate) firing: BTreeSet<Fingerprint>,
    pub(crate) resolved: BTreeSet<Fingerprint>,
}

impl Notification {
    /// Says whether any alert of it is still going on.
    pub fn status(&self) -> AlertStatus {
        if self.alerts.iter().any(|a| a.status == AlertStatus::Firing) {
            AlertStatus::Firing
        } else {
            AlertStatus::Resolved
        }
    }

    /// Returns the worst severity among its alerts.
    pub fn severity(&self) -> Severity {
        self.alerts.iter().map(|a| a.alert.severity()).max().unwrap_or(Severity::Info)
    }

    /// Returns Alertmanager's payload, version 4, with at most `alerts_max` alerts (0: all).
    pub fn webhook_payload(&self, alerts_max: u64) -> WebhookPayload {
        let all = self.alerts.len();
        let kept = usize::try_from(alerts_max).ok().filter(|n| *n > 0).unwrap_or(all).min(all);
        WebhookPayload {
            version: "4".into(),
            group_key: self.delivery.group.key.to_string(),
            truncated_alerts: (all - kept) as u64,
            status: self.status(),
            receiver: self.delivery.group.receiver.to_string(),
            group_labels: self.group_labels.clone(),
            common_labels: self.common_labels(),
            common_annotations: self.common_annotations(),
            external_url: self.external_url.to_string(),
            alerts: self.alerts[..kept].iter().map(webhook_alert).collect(),
        }
    }

    fn common_labels(&self) -> Labels {
        let Some((first, others)) = self.alerts.split_first() else { return Labels::empty() };
        let labels = &first.alert.labels;
        labels.filtered(|n| others.iter().all(|o| o.alert.labels.get(n) == labels.get(n)))
    }

    fn common_annotations(&self) -> BTreeMap<String, String> {
        let Some((first, others)) = self.alerts.split_first() else { return BTreeMap::new() };
        let mut common = first.alert.annotations.clone();
        common.retain(|name, value| others.iter().all(|o| o.alert.annotations.get(name) == Some(value)));
        common
    }
}

fn webhook_alert(a: &NotifiedAlert) -> WebhookAlert {
    let ended = a.alert.ends_at.filter(|_| a.status == AlertStatus::Resolved);
    WebhookAlert {
        status: a.status,
        labels: a.alert.labels.clone(),
        annotations: a.alert.annotations.clone(),
        starts_at: a.alert.starts_at.rfc3339(),
        ends_at: ended.map_or_else(|| ZERO_TIME.into(), Timestamp::rfc3339),
        generator_url: a.alert.generator_url.clone(),
        fingerprint: a.alert.fingerprint().to_string(),
    }
}

/// Cuts annotations to the limits of this module, at a character's boundary.
pub(crate) fn bound_annotations(annotations: &mut BTreeMap<String, String>) {
    while annotations.len() > ANNOTATIONS_MAX {
        annotations.pop_last();
    }
    for value in annotations.values_mut().filter(|v| v.len() > ANNOTATION_BYTES_MAX) {
        let mut end = ANNOTATION_BYTES_MAX;
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        value.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_annotation_is_cut_and_not_lost() {
        let mut a: BTreeMap<String, String> = (0..100).map(|i| (format!("a{i:02}"), "x".into())).collect();
        a.insert("a00".into(), "é".repeat(1 << 20));
        bound_annotations(&mut a);
        assert_eq!(a.len(), ANNOTATIONS_MAX);
        assert!(a["a00"].starts_with("éé") && a["a00"].len() <= ANNOTATION_BYTES_MAX + 3);
    }
}
