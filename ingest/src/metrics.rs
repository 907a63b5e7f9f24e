//! Metrics of the log and the edge; those of the collectors are beside them.

use std::ops::Range;

use forewarn_schemas::{Offset, PartitionId};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
    exponential_buckets,
};

use crate::log::LogError;

const PARTITION: &str = "partition";

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter> {
    let metric = IntCounter::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Registers a counter with one label, each of whose values begins at zero.
fn counters<'a>(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = &'a str>,
) -> Result<IntCounterVec> {
    let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    values.into_iter().for_each(|v| drop(metric.with_label_values(&[v])));
    Ok(metric)
}

fn gauges(registry: &Registry, name: &str, help: &str, partitions: u32) -> Result<IntGaugeVec> {
    let metric = IntGaugeVec::new(Opts::new(name, help), &[PARTITION])?;
    registry.register(Box::new(metric.clone()))?;
    (0..partitions).for_each(|p| drop(metric.with_label_values(&[&p.to_string()])));
    Ok(metric)
}

/// What the embedded log counts.
#[derive(Debug, Clone)]
pub(crate) struct LogMetrics {
    records: IntCounterVec,
    record_bytes: IntCounterVec,
    refused: IntCounterVec,
    first_offset: IntGaugeVec,
    end_offset: IntGaugeVec,
    bytes: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    pub(crate) sync_seconds: Histogram,
    pub(crate) cut_bytes: IntCounter,
    pub(crate) gap_records: IntCounter,
    pub(crate) failed: IntGauge,
}

impl LogMetrics {
    pub(crate) fn new(r: &Registry, partitions: u32) -> Result<Self> {
        let names: Vec<String> = (0..partitions).map(|p| p.to_string()).collect();
        let names = || names.iter().map(String::as_str);
        let sync = HistogramOpts::new("forewarn_log_sync_duration_seconds", "Time a sync of the log took.")
            .buckets(exponential_buckets(0.000_25, 2.0, 14)?);
        let sync_seconds = Histogram::with_opts(sync)?;
        r.register(Box::new(sync_seconds.clone()))?;
        Ok(Self {
            records: counters(r, "forewarn_log_records_total", "Records made durable.", PARTITION, names())?,
            record_bytes: counters(
                r,
                "forewarn_log_written_bytes_total",
                "Bytes of records made durable, framing included.",
                PARTITION,
                names(),
            )?,
            refused: counters(
                r,
                "forewarn_log_refused_total",
                "Records that the log did not take, by reason.",
                "reason",
                ["full", "no_space", "closed", "other"],
            )?,
            first_offset: gauges(r, "forewarn_log_first_offset", "The first offset that can be read.", partitions)?,
            end_offset: gauges(r, "forewarn_log_end_offset", "The durable end: the next offset given.", partitions)?,
            bytes: gauges(r, "forewarn_log_bytes", "Bytes of all segments.", partitions)?,
            queue_bytes: gauges(r, "forewarn_log_queue_bytes", "Bytes that wait to be written.", partitions)?,
            sync_seconds,
            cut_bytes: counter(r, "forewarn_log_cut_bytes_total", "Bytes cut from damaged ends at start.")?,
            gap_records: counter(r, "forewarn_log_gap_records_total", "Records found lost to damage at start.")?,
            failed: gauge(r, "forewarn_log_failed", "1 when a failed write or sync closed the log to writes.")?,
        })
    }

    pub(crate) fn queue_bytes(&self, p: PartitionId) -> IntGauge {
        self.queue_bytes.with_label_values(&[&p.to_string()])
    }

    pub(crate) fn bytes(&self, p: PartitionId) -> IntGauge {
        self.bytes.with_label_values(&[&p.to_string()])
    }

    pub(crate) fn opened(&self, p: PartitionId, bounds: Range<Offset>, bytes: u64) {
        self.truncated(p, bounds.start, bytes);
        self.end_offset.with_label_values(&[&p.to_string()]).set(bounds.end.0 as i64);
    }

    pub(crate) fn truncated(&self, p: PartitionId, first: Offset, bytes: u64) {
        self.first_offset.with_label_values(&[&p.to_string()]).set(first.0 as i64);
        self.bytes(p).set(bytes as i64);
    }

    pub(crate) fn committed(&self, p: PartitionId, records: u64, bytes: u64, end: Offset) {
        let name = p.to_string();
        self.records.with_label_values(&[&name]).inc_by(records);
        self.record_bytes.with_label_values(&[&name]).inc_by(bytes);
        self.end_offset.with_label_values(&[&name]).set(end.0 as i64);
    }

    pub(crate) fn refused(&self, error: &LogError) {
        let reason = match error {
            LogError::Full(_) => "full",
            LogError::NoSpace(_) => "no_space",
            LogError::Closed(_) => "closed",
            _ => "other",
        };
        self.refused.with_label_values(&[reason]).inc();
    }
}

/// What the edge counts.
#[derive(Debug, Clone)]
pub(crate) struct EdgeMetrics {
    pub(crate) samples: IntCounter,
    refused: IntCounterVec,
    pub(crate) overloaded: IntCounterVec,
    pub(crate) series: IntGauge,
    backlog_bytes: IntGaugeVec,
    taken: IntCounterVec,
    pub(crate) ticks: IntCounter,
}

impl EdgeMetrics {
    pub(crate) fn new(r: &Registry, partitions: u32) -> Result<Self> {
        Ok(Self {
            samples: counter(r, "forewarn_edge_samples_total", "Samples made durable.")?,
            refused: counters(
                r,
                "forewarn_edge_refused_samples_total",
                "Samples refused before the log, by reason.",
                "reason",
                crate::edge::REASONS,
            )?,
            overloaded: counters(
                r,
                "forewarn_edge_overloaded_total",
                "Batches that were told to come back later, by what was behind.",
                "reason",
                ["backlog", "disk", "queue", "log"],
            )?,
            series: gauge(r, "forewarn_edge_series", "Series seen lately, over all sources.")?,
            backlog_bytes: gauges(
                r,
                "forewarn_edge_backlog_bytes",
                "Bytes of records that the pump has not consumed.",
                partitions,
            )?,
            taken: counters(
                r,
                "forewarn_edge_handed_over_total",
                "Records that the pump asked for, by whether they had been kept.",
                "kept",
                ["yes", "no"],
            )?,
            ticks: counter(r, "forewarn_edge_ticks_total", "Records that only say that time passes.")?,
        })
    }

    pub(crate) fn refused(&self, refused: &std::collections::BTreeMap<&'static str, usize>) {
        for (reason, samples) in refused {
            self.refused.with_label_values(&[reason]).inc_by(*samples as u64);
        }
    }

    pub(crate) fn backlog_bytes(&self, p: PartitionId) -> IntGauge {
        self.backlog_bytes.with_label_values(&[&p.to_string()])
    }

    pub(crate) fn taken(&self, kept: bool) {
        self.taken.with_label_values(&[if kept { "yes" } else { "no" }]).inc();
    }
}
