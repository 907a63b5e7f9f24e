//! The store's settings and the limits of a query.

use std::time::Duration;

use forewarn_schemas::ByteSize;
use forewarn_schemas::units;
use serde::{Deserialize, Serialize};

/// The settings under `store:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// How old, by `received_at`, the oldest un-flushed record may become. Default 5m.
    #[serde(with = "units::duration")]
    pub flush_interval: Duration,
    /// How many bytes of un-flushed log may gather. Default 64MiB.
    pub flush_bytes: ByteSize,
    /// Span of time of one block, aligned to the epoch. Default 2h.
    #[serde(with = "units::duration")]
    pub block_span: Duration,
    /// How long samples are kept. Default 15d.
    #[serde(with = "units::duration")]
    pub retention: Duration,
    /// How much history one retention step may delete; there is at most one step in an hour. Default 1d.
    #[serde(with = "units::duration")]
    pub retention_step: Duration,
    /// Memory for block directories and Parquet metadata. Default 64MiB.
    pub cache_bytes: ByteSize,
    /// After how many manifest deltas the whole state is written as one. Default 32.
    pub manifest_full_every: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(5 * 60),
            flush_bytes: ByteSize::mib(64),
            block_span: Duration::from_secs(2 * 3600),
            retention: Duration::from_secs(15 * 86_400),
            retention_step: Duration::from_secs(86_400),
            cache_bytes: ByteSize::mib(64),
            manifest_full_every: 32,
        }
    }
}

impl StoreConfig {
    /// Returns a sentence for each setting that makes no sense.
    pub fn validate(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut positive = |name: &str, ok: bool| {
            if !ok {
                out.push(format!("store.{name} must be more than 0"));
            }
        };
        positive("flush_interval", self.flush_interval.as_millis() > 0);
        positive("flush_bytes", self.flush_bytes.bytes() > 0);
        positive("retention", self.retention.as_millis() > 0);
        positive("retention_step", self.retention_step.as_millis() > 0);
        positive("manifest_full_every", self.manifest_full_every > 0);
        if self.block_span < Duration::from_secs(60) {
            out.push("store.block_span must be at least 1m".into());
        }
        out
    }
}

/// What one query may use; each limit is finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlLimits {
    /// Memory of sorts, joins and aggregations together, in bytes.
    pub memory: ByteSize,
    /// Time from the call to the last row.
    pub time: Duration,
    /// Rows of the answer; one more is an error, not a silent cut.
    pub rows: usize,
}

impl Default for SqlLimits {
    /// 256MiB, 2 minutes, 1,000,000 rows.
    fn default() -> Self {
        Self { memory: ByteSize::mib(256), time: Duration::from_secs(120), rows: 1_000_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_nonsense_is_named() {
        assert!(StoreConfig::default().validate().is_empty());
        let bad: StoreConfig = serde_json::from_str(r#"{"block_span": "1s", "retention": "0"}"#).unwrap();
        assert_eq!(bad.validate().len(), 2);
        assert!(serde_json::from_str::<StoreConfig>(r#"{"retension": "1d"}"#).is_err());
    }
}
