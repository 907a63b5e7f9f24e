//! Alerts: a label set, annotations, and a life from firing to resolved.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::label::Labels;
use crate::time::Timestamp;

/// An alert's identity: the hash of its label set, written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<Fingerprint> for String {
    fn from(f: Fingerprint) -> Self {
        f.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

/// How bad, in the label `severity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Shown, never sent.
    Info,
    /// For tickets and digests.
    Warning,
    /// Pages a person.
    Critical,
}

impl Severity {
    /// Returns the label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// Reads the label's value.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Critical].into_iter().find(|s| s.as_str() == text)
    }
}

/// Whether it is still going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// Going on.
    Firing,
    /// Over.
    Resolved,
}

/// An alert. Two alerts with the same labels are the same alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Its identity: `alertname`, `severity`, and whatever tells it from others.
    pub labels: Labels,
    /// What a person reads; no part of the identity.
    pub annotations: BTreeMap<String, String>,
    /// When it began.
    pub starts_at: Timestamp,
    /// When it ended, or will unless it is sent again.
    pub ends_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Where to look: a path on the own page, or a URL.
    pub generator_url: String,
}

impl Alert {
    /// Returns its identity.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.labels.fingerprint())
    }

    /// Says whether it is over at `now`.
    pub fn status(&self, now: Timestamp) -> AlertStatus {
        match self.ends_at {
            Some(end) if end <= now => AlertStatus::Resolved,
            _ => AlertStatus::Firing,
        }
    }

    /// Returns its severity; an alert without a known one is a warning.
    pub fn severity(&self) -> Severity {
        self.labels.get("severity").and_then(Severity::parse).unwrap_or(Severity::Warning)
    }
}
