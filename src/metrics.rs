//! Own health of the binary's parts; each crate has its own beside its code.

use forewarn_schemas::PartitionId;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// Counters of one pump.
#[derive(Debug, Clone)]
pub struct PumpMetrics {
    /// Samples taken.
    pub samples: IntCounter,
    /// Records that could not be decoded.
    pub poison: IntCounter,
    /// Flushes that failed.
    pub flush_failures: IntCounter,
    /// Duration of evaluations.
    pub evaluation: Histogram,
}

/// The families of all pumps.
#[derive(Debug)]
pub struct PumpFamilies {
    samples: IntCounterVec,
    poison: IntCounterVec,
    flush_failures: IntCounterVec,
    evaluation: Histogram,
}

impl PumpFamilies {
    /// Registers the families.
    ///
    /// # Errors
    /// [`prometheus::Error`] when a name is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &["partition"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let evaluation = Histogram::with_opts(
            HistogramOpts::new(
                "forewarn_analyze_evaluation_duration_seconds",
                "Duration of one evaluation of a partition.",
            )
            .buckets(vec![0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]),
        )?;
        registry.register(Box::new(evaluation.clone()))?;
        Ok(Self {
            samples: counter("forewarn_pump_samples_total", "Samples taken from the log to store and analyzer.")?,
            poison: counter(
                "forewarn_pump_undecodable_records_total",
                "Records skipped because they cannot be decoded.",
            )?,
            flush_failures: counter(
                "forewarn_pump_flush_failures_total",
                "Flushes of the head that failed and are tried again.",
            )?,
            evaluation,
        })
    }

    /// Returns the counters of one partition, at zero.
    pub fn of(&self, partition: PartitionId) -> PumpMetrics {
        let name = partition.to_string();
        PumpMetrics {
            samples: self.samples.with_label_values(&[&name]),
            poison: self.poison.with_label_values(&[&name]),
            flush_failures: self.flush_failures.with_label_values(&[&name]),
            evaluation: self.evaluation.clone(),
        }
    }
}
