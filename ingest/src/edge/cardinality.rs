//! How many series each source has, and all together: new ones above the limits are refused, known ones are kept.
//!
//! Known series are fingerprints in two generations. A series that is seen moves into the present one; every
//! `series_idle_max` the past one is forgotten and the present becomes past. So the memory is bounded by the limits (a
//! few tens of bytes a series), and a source whose series come and go over days is not locked out by those that went.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use forewarn_schemas::{SeriesSamples, Timestamp};

use super::sift::{CARDINALITY, Checked};
use super::{Accepted, EdgeConfig};

/// The series of all sources.
#[derive(Debug)]
pub(super) struct Cardinality {
    per_source_max: usize,
    total_max: usize,
    idle_max: Duration,
    rotated_at: Timestamp,
    total: usize,
    sources: HashMap<String, Known>,
}

#[derive(Debug, Default)]
struct Known {
    present: HashSet<u64>,
    past: HashSet<u64>,
}

impl Known {
    fn len(&self) -> usize {
        self.present.len() + self.past.len()
    }

    /// Notes that a series was seen; false when it is not known.
    fn see(&mut self, fingerprint: u64) -> bool {
        self.present.contains(&fingerprint) || (self.past.remove(&fingerprint) && self.present.insert(fingerprint))
    }
}

impl Cardinality {
    pub(super) fn new(config: &EdgeConfig, now: Timestamp) -> Self {
        Self {
            per_source_max: config.series_per_source_max,
            total_max: config.series_max,
            idle_max: config.series_idle_max,
            rotated_at: now,
            total: 0,
            sources: HashMap::new(),
        }
    }

    /// Returns the number of known series.
    pub(super) fn len(&self) -> usize {
        self.total
    }

    /// Forgets the past generation when it is time.
    pub(super) fn rotate(&mut self, now: Timestamp) {
        if now.since(self.rotated_at) < self.idle_max {
            return;
        }
        self.rotated_at = now;
        self.sources.retain(|_, known| {
            known.past = std::mem::take(&mut known.present);
            !known.past.is_empty()
        });
        self.total = self.sources.values().map(Known::len).sum();
    }

    /// Returns the series that are known or may be added.
    pub(super) fn admit(&mut self, source: &str, series: Vec<Checked>, accepted: &mut Accepted) -> Vec<Checked> {
        if series.is_empty() {
            return series;
        }
        if !self.sources.contains_key(source) && self.total < self.total_max {
            self.sources.insert(source.to_owned(), Known::default());
        }
        let mut known = self.sources.get_mut(source);
        let mut admitted = series;
        admitted.retain(|(fingerprint, SeriesSamples { samples, .. })| {
            let Some(known) = known.as_deref_mut() else {
                accepted.refuse(CARDINALITY, samples.len());
                return false;
            };
            if known.see(*fingerprint) {
                return true;
            }
            let room = known.len() < self.per_source_max && self.total < self.total_max;
            if room {
                known.present.insert(*fingerprint);
                self.total += 1;
            } else {
                accepted.refuse(CARDINALITY, samples.len());
            }
            room
        });
        admitted
    }
}

#[cfg(test)]
mod tests {
    use forewarn_schemas::{Labels, Sample};

    use super::*;

    fn series(range: std::ops::Range<u64>) -> Vec<Checked> {
        let samples = vec![Sample { ts: Timestamp::default(), value: 0.0 }];
        range.map(|i| (i, SeriesSamples { labels: Labels::empty(), samples: samples.clone() })).collect()
    }

    fn cardinality(per_source: usize, total: usize) -> Cardinality {
        let config = EdgeConfig {
            series_per_source_max: per_source,
            series_max: total,
            series_idle_max: Duration::from_secs(100),
            ..EdgeConfig::default()
        };
        Cardinality::new(&config, Timestamp::from_secs(0))
    }

    fn admitted(c: &mut Cardinality, source: &str, range: std::ops::Range<u64>) -> usize {
        let (before, mut accepted) = (range.end - range.start, Accepted::default());
        let n = c.admit(source, series(range), &mut accepted).len();
        assert_eq!(n as u64 + accepted.refused.get(CARDINALITY).copied().unwrap_or(0) as u64, before);
        n
    }

    #[test]
    fn new_series_are_refused_and_known_ones_kept() {
        let mut c = cardinality(10, 15);
        assert_eq!(admitted(&mut c, "a", 0..12), 10);
        assert_eq!(admitted(&mut c, "a", 5..15), 5);
        assert_eq!(admitted(&mut c, "b", 0..12), 5, "the total is reached");
        assert_eq!(admitted(&mut c, "c", 0..1), 0);
        assert_eq!((c.len(), c.sources.len()), (15, 2));
    }

    #[test]
    fn churn_does_not_lock_a_source_out_and_what_is_seen_stays() {
        let mut c = cardinality(10, 100);
        for generation in 0..20u64 {
            c.rotate(Timestamp::from_secs(100 * generation as i64));
            // Two that stay and four that are new each time.
            assert_eq!(admitted(&mut c, "a", 0..2), 2, "generation {generation}");
            assert_eq!(admitted(&mut c, "a", 10 + 4 * generation..14 + 4 * generation), 4, "generation {generation}");
            assert_eq!(admitted(&mut c, "a", 0..2), 2);
            assert!(c.len() <= 10);
        }
        c.rotate(Timestamp::from_secs(10_000));
        c.rotate(Timestamp::from_secs(10_050));
        assert_eq!(c.len(), 6, "not time yet");
        c.rotate(Timestamp::from_secs(20_000));
        assert_eq!((c.len(), c.sources.len()), (0, 0));
    }
}
