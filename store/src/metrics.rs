//! The store's own health, `forewarn_store_*`.

use forewarn_schemas::PartitionId;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::error::StoreError;

/// Every series exists from the start, at zero.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) samples: IntCounter,
    pub(crate) duplicates_same: IntCounter,
    pub(crate) duplicates_other: IntCounter,
    pub(crate) records_skipped: IntCounter,
    pub(crate) control_records: IntCounter,
    pub(crate) flushes: IntCounter,
    pub(crate) flush_failures: IntCounter,
    pub(crate) blocks_retired: IntCounter,
    pub(crate) problems: IntGauge,
    pub(crate) queries_ok: IntCounter,
    pub(crate) queries_failed: IntCounter,
    pub(crate) queries_limited: IntCounter,
    series: IntGaugeVec,
    head_samples: IntGaugeVec,
    head_bytes: IntGaugeVec,
    blocks: IntGaugeVec,
    block_bytes: IntGaugeVec,
    checkpoint: IntGaugeVec,
}

/// The gauges of one partition, looked up once.
#[derive(Debug, Clone)]
pub(crate) struct PartitionGauges {
    pub(crate) series: IntGauge,
    pub(crate) head_samples: IntGauge,
    pub(crate) head_bytes: IntGauge,
    pub(crate) blocks: IntGauge,
    pub(crate) block_bytes: IntGauge,
    pub(crate) checkpoint: IntGauge,
}

impl Metrics {
    pub(crate) fn partition(&self, partition: PartitionId) -> PartitionGauges {
        let p = partition.to_string();
        let of = |g: &IntGaugeVec| g.with_label_values(&[&p]);
        PartitionGauges {
            series: of(&self.series),
            head_samples: of(&self.head_samples),
            head_bytes: of(&self.head_bytes),
            blocks: of(&self.blocks),
            block_bytes: of(&self.block_bytes),
            checkpoint: of(&self.checkpoint),
        }
    }

    pub(crate) fn register(registry: &Registry, partitions: u32) -> Result<Self, StoreError> {
        let bad = |e: prometheus::Error| StoreError::Engine(format!("metrics: {e}"));
        let counter = |name: &str, help: &str| -> Result<IntCounter, StoreError> {
            let c = IntCounter::new(format!("forewarn_store_{name}"), help).map_err(bad)?;
            registry.register(Box::new(c.clone())).map_err(bad)?;
            Ok(c)
        };
        let counters = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, StoreError> {
            let c = IntCounterVec::new(Opts::new(format!("forewarn_store_{name}"), help), &[label]).map_err(bad)?;
            registry.register(Box::new(c.clone())).map_err(bad)?;
            Ok(c)
        };
        let gauges = |name: &str, help: &str| -> Result<IntGaugeVec, StoreError> {
            let opts = Opts::new(format!("forewarn_store_{name}"), help);
            let g = IntGaugeVec::new(opts, &["partition"]).map_err(bad)?;
            registry.register(Box::new(g.clone())).map_err(bad)?;
            for p in 0..partitions {
                g.with_label_values(&[&p.to_string()]).set(0);
            }
            Ok(g)
        };
        let problems =
            IntGauge::new("forewarn_store_problems", "Damaged or missing objects of the history.").map_err(bad)?;
        registry.register(Box::new(problems.clone())).map_err(bad)?;
        let duplicates = counters(
            "duplicate_samples_total",
            "Samples of a time that the series already had, by whether the value was the same or other.",
            "value",
        )?;
        let queries = counters("queries_total", "SQL queries, by outcome.", "outcome")?;
        Ok(Self {
            samples: counter("samples_total", "Samples taken from the log.")?,
            duplicates_same: duplicates.with_label_values(&["same"]),
            duplicates_other: duplicates.with_label_values(&["other"]),
            records_skipped: counter("records_skipped_total", "Records that the store had already taken.")?,
            control_records: counter("control_records_total", "Control records of the log.")?,
            flushes: counter("flushes_total", "Flushes published.")?,
            flush_failures: counter("flush_failures_total", "Flushes that failed.")?,
            blocks_retired: counter("blocks_retired_total", "Blocks dropped because of their age.")?,
            problems,
            queries_ok: queries.with_label_values(&["ok"]),
            queries_failed: queries.with_label_values(&["failed"]),
            queries_limited: queries.with_label_values(&["limited"]),
            series: gauges("series", "Series ever seen and still known.")?,
            head_samples: gauges("head_samples", "Samples not flushed yet.")?,
            head_bytes: gauges("head_log_bytes", "Bytes of the log not flushed yet, estimated.")?,
            blocks: gauges("blocks", "Blocks of the history.")?,
            block_bytes: gauges("block_bytes", "Bytes of the blocks.")?,
            checkpoint: gauges("checkpoint_offset", "Offset from which the log is read after a restart.")?,
        })
    }
}
