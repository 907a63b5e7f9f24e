//! The router's records as they are written. The keys and fields are described in `docs/formats/state-log-v1.md`;
//! a change that an older program would misread raises [`VERSION`].

use std::collections::BTreeSet;

use forewarn_schemas::{Alert, Fingerprint, Labels, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::metrics::Metrics;
use crate::notification::{DeliveryId, GroupId, Integration};
use crate::state_log::StateLog;

/// Version of every record, in its field `v`.
pub(super) const VERSION: u64 = 1;

pub(super) const ALERT: &str = "alert/";
pub(super) const DEAD: &str = "dead/";
pub(super) const DELIVERY: &str = "delivery/";
pub(super) const GROUP: &str = "group/";

/// A group as a record names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct GroupRef {
    pub(super) receiver: String,
    pub(super) group_key: String,
}

impl From<&GroupId> for GroupRef {
    fn from(id: &GroupId) -> Self {
        Self { receiver: id.receiver.to_string(), group_key: id.key.to_string() }
    }
}

impl GroupRef {
    pub(super) fn id(&self) -> GroupId {
        GroupId { receiver: self.receiver.as_str().into(), key: self.group_key.as_str().into() }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AlertRecord {
    pub(super) v: u64,
    pub(super) scope: String,
    pub(super) alert: Alert,
    pub(super) refired_at: Option<Timestamp>,
    pub(super) notified_at: Option<Timestamp>,
    pub(super) groups: Vec<GroupRef>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct GroupRecord {
    pub(super) v: u64,
    #[serde(flatten)]
    pub(super) group: GroupRef,
    pub(super) route_key: String,
    pub(super) labels: Labels,
    pub(super) next_flush: Timestamp,
    pub(super) flushed: bool,
}

/// The last notification that the receiver has: an entry of the notification log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) at: Timestamp,
    pub(super) firing: BTreeSet<Fingerprint>,
    pub(super) resolved: BTreeSet<Fingerprint>,
}

/// A notification that is to be sent: an entry of the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) dedup_key: String,
    pub(super) made_at: Timestamp,
    pub(super) firing: BTreeSet<Fingerprint>,
    pub(super) resolved: BTreeSet<Fingerprint>,
    pub(super) attempts: u32,
    pub(super) in_flight: bool,
    pub(super) not_before: Timestamp,
    /// The receiver asked to be left alone until then.
    pub(super) asked: bool,
    pub(super) may_have_arrived: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeliveryRecord {
    pub(super) v: u64,
    #[serde(flatten)]
    pub(super) group: GroupRef,
    pub(super) integration: String,
    pub(super) index: usize,
    pub(super) sent: Option<Sent>,
    pub(super) intent: Option<Intent>,
}

impl DeliveryRecord {
    pub(super) fn id(&self) -> DeliveryId {
        let integration = Integration { kind: self.integration.as_str().into(), index: self.index };
        DeliveryId { group: self.group.id(), integration }
    }
}

/// A notification that was given up on. Failures of one delivery share a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub(super) v: u64,
    /// The receiver's name.
    pub receiver: String,
    /// The group's key.
    pub group_key: String,
    /// Kind of the integration.
    pub integration: String,
    /// Which one of its kind.
    pub index: usize,
    /// When it was first given up on.
    pub first_at: Timestamp,
    /// When it was last given up on.
    pub last_at: Timestamp,
    /// How often.
    pub count: u64,
    /// Why, as in the metric `forewarn_alert_notification_failures_total`.
    pub reason: String,
    /// What the receiver said.
    pub detail: String,
    /// The alerts that it was about, at most 20.
    pub alerts: Vec<Labels>,
}

impl DeadLetter {
    pub(super) fn id(&self) -> DeliveryId {
        let group = GroupId { receiver: self.receiver.as_str().into(), key: self.group_key.as_str().into() };
        DeliveryId { group, integration: Integration { kind: self.integration.as_str().into(), index: self.index } }
    }
}

pub(super) fn alert_key(fingerprint: Fingerprint) -> String {
    format!("{ALERT}{fingerprint}")
}

pub(super) fn group_key(id: &GroupId) -> String {
    format!("{GROUP}{}/{}", segment(&id.receiver), id.key)
}

pub(super) fn delivery_key(id: &DeliveryId) -> String {
    format!("{DELIVERY}{}/{}/{}", segment(&id.group.receiver), id.integration, id.group.key)
}

pub(super) fn dead_key(id: &DeliveryId) -> String {
    format!("{DEAD}{}/{}/{}", segment(&id.group.receiver), id.integration, id.group.key)
}

/// Escapes a receiver's name, so that it is one segment of a key.
fn segment(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

/// Reads all records under `prefix`. One that cannot be read is left alone, counted and reported; a newer one stops
/// the start, since this program would act on half of what it means.
pub(super) fn load<T: DeserializeOwned>(
    state: &dyn StateLog,
    prefix: &str,
    metrics: &Metrics,
) -> Result<Vec<T>, Error> {
    let mut out = Vec::new();
    for (key, value) in state.scan(prefix)? {
        let found = value.get("v").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if found > VERSION {
            return Err(Error::NewerRecord { key, found, known: VERSION });
        }
        match serde_json::from_value(value) {
            Ok(record) if found > 0 => out.push(record),
            _ => {
                metrics.state_damaged.inc();
                tracing::error!(key, "state record cannot be read and is left out");
            }
        }
    }
    Ok(out)
}
