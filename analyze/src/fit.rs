//! Tier 2: the line through the present segment, and how far it can be trusted.
//!
//! 1. [`window`]: no fixed windows. Nested ones, each half as long again as the last, reach back from now; the longest
//!    whose slope the shorter ones do not contradict is the one used (Lepski's rule).
//! 2. [`line`]: a Theil-Sen line over each, on the floor for elastic resources, with its standard error at the
//!    effective number of samples.
//! 3. [`bootstrap`]: residuals resampled in blocks give the distribution of the crossing time.
//!
//! Everything is a function of the samples, the time and the seed.

use std::time::Duration;

use forewarn_schemas::forecast::Slope;
use forewarn_schemas::{Sample, SeriesId, TimeRange, Timestamp};

use crate::outlook::{GRID, Outlook};
use crate::{History, screen::Screen};

pub(crate) mod bootstrap;
pub(crate) mod line;
pub(crate) mod window;

/// No fit looks further back.
const SPAN_MAX: Duration = Duration::from_secs(14 * 86_400);
/// Samples asked for at first; four times as many as long as the line goes on beyond them.
const SAMPLES_FIRST: f64 = 256.0;

/// What a fit is asked.
pub(crate) struct Question<'a> {
    pub series: SeriesId,
    pub screen: &'a Screen,
    pub at: Timestamp,
    /// `1` for direction up, `-1` for down: times a value it is y.
    pub sign: f64,
    /// The limit in y-space.
    pub limit: f64,
    /// When the floor counts: the longest time between collections, in seconds.
    pub floor: Option<f64>,
    /// The series' fingerprint: with `at` it seeds the bootstrap.
    pub fingerprint: u64,
    /// Median error of this resource's own past forecasts, when known.
    pub error: Option<f64>,
    pub resamples: usize,
}

/// Fits the segment. `None` when there are too few samples for a line.
pub(crate) fn fit(q: &Question<'_>, history: &dyn History) -> Option<Outlook> {
    let begin = q.screen.since.max(q.at - SPAN_MAX);
    let mut span = q.screen.interval.max(1.0) * SAMPLES_FIRST;
    loop {
        let start = begin.max(q.at.plus_secs_f64(-span));
        let points = points(&history.samples(q.series, TimeRange::new(start, q.at)), q);
        let chosen = window::choose(&points, q.floor)?;
        let whole = start == begin;
        if whole || !chosen.reaches_back {
            return Some(outlook(q, &points, &chosen));
        }
        span *= 4.0;
    }
}

/// Brings samples into y-space, seconds before `at`, in order; what is not a usable number is left out.
fn points(samples: &[Sample], q: &Question<'_>) -> Vec<(f64, f64)> {
    let mut out: Vec<(f64, f64)> =
        samples.iter().filter(|s| usable(s.value)).map(|s| (s.ts.seconds_since(q.at), q.sign * s.value)).collect();
    out.sort_by(|a, b| a.0.total_cmp(&b.0));
    out.dedup_by(|a, b| a.0 == b.0);
    out
}

/// Largest size of a value that is taken for real; it keeps every square below in range.
pub(crate) const VALUE_MAX: f64 = 1e18;

/// Says whether a value counts; NaN, infinities and absurd sizes are missing values.
pub(crate) fn usable(value: f64) -> bool {
    value.abs() <= VALUE_MAX
}

fn outlook(q: &Question<'_>, all: &[(f64, f64)], chosen: &window::Chosen) -> Outlook {
    let line = &chosen.line;
    let mut rng = bootstrap::Rng::new(q.fingerprint ^ (q.at.as_millis() as u64).rotate_left(32));
    let courses = bootstrap::crossings(line, q.limit, q.error.unwrap_or(0.0), q.resamples, &mut rng);
    let window = &all[chosen.first..];
    let third = window.len() - window.len() / 3;
    let recent = line::theil_sen(&window::decimate(&window[third..], q.floor));
    let agreement = match recent {
        Some(recent) if line.slope > 0.0 && window.len() >= 15 => (2.0 * recent.slope / line.slope).clamp(0.0, 1.0),
        _ => 1.0,
    };
    let (low, high) = courses.slope;
    Outlook {
        fitted: q.at,
        total: q.screen.total,
        since: q.at.plus_secs_f64(line.start),
        samples: window.len() as u64,
        slope: Slope { per_second: line.slope, low: low.min(line.slope), high: high.max(line.slope) },
        level: line.level,
        scale: line.scale,
        straightness: line.slope / line.error,
        agreement,
        share: courses.share,
        crossings: courses.grid,
        limit: q.limit,
    }
}

const _: () = assert!(GRID >= 3, "a distribution needs its ends and a middle");
