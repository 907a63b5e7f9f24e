//! Samples, and batches of them on their way through the pipeline.

use crate::label::Labels;
use crate::time::Timestamp;

/// The value that ends a series: a NaN with the bits `0x7ff0000000000002`.
///
/// # Source
/// Prometheus remote write 1.0, "stale markers".
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Says whether `value` is the stale marker. Other NaNs are missing values, not ends.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}

/// One observation. All 64 bits of `value` are kept, NaN payloads included.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When it was observed.
    pub ts: Timestamp,
    /// What was observed.
    pub value: f64,
}

/// Two samples are equal when their times and all bits of their values are.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.ts == other.ts && self.value.to_bits() == other.value.to_bits()
    }
}

/// Samples of one series, in the order they arrived (which may not be that of time).
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesSamples {
    /// The series.
    pub labels: Labels,
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// What one collector or request hands over at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// One entry per series.
    pub series: Vec<SeriesSamples>,
}

impl Batch {
    /// Returns the number of samples over all series.
    pub fn samples(&self) -> usize {
        self.series.iter().map(|s| s.samples.len()).sum()
    }

    /// Adds one sample of a series.
    pub fn push(&mut self, labels: Labels, ts: Timestamp, value: f64) {
        self.series.push(SeriesSamples { labels, samples: vec![Sample { ts, value }] });
    }
}
