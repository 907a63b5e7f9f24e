//! What leaves by webhook: Alertmanager's payload, version 4.
//!
//! # Source
//! Alertmanager documentation, "webhook_config"; the field names are its, the JSON Schema is
//! `schemas/json/webhook-v4.schema.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::alert::AlertStatus;
use crate::label::Labels;

/// The body of one notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookPayload {
    /// Always `4`.
    pub version: String,
    /// The group's identity: the same for every notification of the group.
    pub group_key: String,
    /// How many alerts were left out because of `max_alerts`.
    pub truncated_alerts: u64,
    /// `firing` while any alert of the group is.
    pub status: AlertStatus,
    /// The receiver's name.
    pub receiver: String,
    /// The labels that the alerts were grouped by.
    pub group_labels: Labels,
    /// The labels that all alerts have.
    pub common_labels: Labels,
    /// The annotations that all alerts have.
    pub common_annotations: BTreeMap<String, String>,
    /// Where forewarn's page is.
    #[serde(rename = "externalURL")]
    pub external_url: String,
    /// The alerts.
    pub alerts: Vec<WebhookAlert>,
}

/// One alert of a notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookAlert {
    /// Whether it is over.
    pub status: AlertStatus,
    /// Its identity.
    pub labels: Labels,
    /// What a person reads.
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339.
    pub starts_at: String,
    /// RFC 3339; `0001-01-01T00:00:00Z` while it is firing.
    pub ends_at: String,
    /// Where to look.
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
    /// 16 hexadecimal digits.
    pub fingerprint: String,
}

/// What `endsAt` says while an alert is firing.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
