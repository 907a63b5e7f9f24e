//! Zig-zag: the present climb and what became of earlier ones.

use forewarn_schemas::Timestamp;

use crate::codec::state_struct;

/// Earlier climbs kept.
const PAST_MAX: usize = 12;

/// A rise from a trough, still going on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Climb {
    pub start: Timestamp,
    pub low: f64,
    pub peak: f64,
    pub peak_at: Timestamp,
}
state_struct!(Climb { start, low, peak, peak_at });

impl Climb {
    pub(crate) fn new(ts: Timestamp, y: f64) -> Self {
        Self { start: ts, low: y, peak: y, peak_at: ts }
    }

    /// Follows a sample: below the trough, the climb has not begun yet; a peak is what two samples in a row reached,
    /// so that one glitch is none.
    pub(crate) fn take(&mut self, ts: Timestamp, y: f64, previous: f64) {
        let reached = y.min(previous);
        if y < self.low {
            *self = Self::new(ts, y);
        } else if reached >= self.peak {
            (self.peak, self.peak_at) = (reached, ts);
        }
    }

    /// Returns how long it took to its peak.
    pub(crate) fn seconds(&self) -> f64 {
        self.peak_at.seconds_since(self.start)
    }

    pub(crate) fn ended(&self, end: Timestamp) -> Past {
        Past { end, peak: self.peak, rise: self.peak - self.low, seconds: self.seconds() }
    }
}

/// A climb that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Past {
    pub end: Timestamp,
    pub peak: f64,
    pub rise: f64,
    pub seconds: f64,
}
state_struct!(Past { end, peak, rise, seconds });

/// Adds a climb; when there is no room, the one that tells least leaves: small and long ago.
pub(crate) fn remember(past: &mut Vec<Past>, new: Past) {
    if past.len() >= PAST_MAX {
        let newest = past.len() - 1;
        let worth = |i: usize| past[i].rise * 0.9_f64.powi((newest - i) as i32);
        let least = (0..past.len()).min_by(|a, b| worth(*a).total_cmp(&worth(*b)));
        past.remove(least.unwrap_or(0));
    }
    past.push(new);
}

/// Returns (earlier climbs that explain the present one, earlier climbs of its size that it has outgrown).
///
/// A climb explains the present one when it came as high, or rose as far from a trough whence the same rise would not
/// reach the limit now. Climbs under a third of the present rise say nothing about it.
pub(crate) fn compare(climb: &Climb, past: &[Past], y: f64, limit: f64, noise: f64) -> (usize, usize) {
    let rise = y - climb.low;
    let mut peaks: Vec<f64> = past.iter().map(|p| p.peak).collect();
    peaks.sort_unstable_by(f64::total_cmp);
    let spread = match peaks.len() {
        0..=1 => 0.0,
        n => {
            let middle = peaks[n / 2];
            let mut off: Vec<f64> = peaks.iter().map(|p| (p - middle).abs()).collect();
            off.sort_unstable_by(f64::total_cmp);
            off[n / 2]
        }
    };
    let (mut explaining, mut outgrown) = (0, 0);
    for p in past {
        let margin = (3.0 * spread).max(3.0 * noise).max(0.1 * p.rise).min(p.rise);
        let as_high = y <= p.peak + margin && p.rise * 3.0 >= rise && p.peak < limit;
        let as_far = rise <= p.rise + margin && climb.low + p.rise < limit;
        if as_high || as_far {
            explaining += 1;
        } else if p.rise * 3.0 >= rise {
            outgrown += 1;
        }
    }
    (explaining, outgrown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(n: usize) -> Vec<Past> {
        (0..n)
            .map(|i| Past { end: Timestamp::from_secs(i as i64), peak: 60.0 + i as f64, rise: 50.0, seconds: 100.0 })
            .collect()
    }

    #[test]
    fn inside_is_explained_and_beyond_is_news() {
        let climb = Climb::new(Timestamp::from_secs(0), 10.0);
        assert_eq!(compare(&climb, &past(4), 50.0, 100.0, 0.1), (4, 0));
        assert_eq!(compare(&climb, &past(4), 80.0, 100.0, 0.1), (0, 4));
        assert_eq!(compare(&climb, &[], 80.0, 100.0, 0.1), (0, 0));
        let tiny = [Past { end: Timestamp::from_secs(0), peak: 12.0, rise: 2.0, seconds: 9.0 }];
        assert_eq!(compare(&climb, &tiny, 80.0, 100.0, 0.1), (0, 0), "a ripple says nothing of a flood");
    }

    #[test]
    fn an_earlier_rise_that_would_cross_from_here_explains_nothing() {
        let climb = Climb { start: Timestamp::from_secs(0), low: 55.0, peak: 80.0, peak_at: Timestamp::from_secs(9) };
        let one = [Past { end: Timestamp::from_secs(0), peak: 60.0, rise: 50.0, seconds: 100.0 }];
        assert_eq!(compare(&climb, &one, 80.0, 100.0, 0.1).0, 0);
        assert_eq!(compare(&climb, &one, 80.0, 200.0, 0.1).0, 1);
    }

    #[test]
    fn a_large_climb_outlives_small_ones() {
        let mut list = Vec::new();
        remember(&mut list, Past { end: Timestamp::from_secs(0), peak: 90.0, rise: 80.0, seconds: 1.0 });
        for i in 1..40 {
            remember(&mut list, Past { end: Timestamp::from_secs(i), peak: 12.0, rise: 2.0, seconds: 1.0 });
        }
        assert_eq!(list.len(), PAST_MAX);
        assert!(list.iter().any(|p| p.rise == 80.0));
    }
}
