//! Samples of one series as columns, and the rule of duplicates: of two samples of one time the one with the lower
//! offset stays.

use forewarn_schemas::{Sample, TimeRange, Timestamp};

/// Samples of one series: times in milliseconds and values, of the same length.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Column {
    pub(crate) ts: Vec<i64>,
    pub(crate) values: Vec<f64>,
}

/// How many samples a merge dropped, by whether the value was that of the sample that stayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Duplicates {
    pub(crate) same: u64,
    pub(crate) other: u64,
}

impl Duplicates {
    pub(crate) fn count(&mut self, stays: f64, goes: f64) {
        if stays.to_bits() == goes.to_bits() {
            self.same += 1;
        } else {
            self.other += 1;
        }
    }
}

impl Column {
    pub(crate) fn len(&self) -> usize {
        self.ts.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ts.is_empty()
    }

    pub(crate) fn push(&mut self, ts: i64, value: f64) {
        self.ts.push(ts);
        self.values.push(value);
    }

    /// Sorts by time what is in the order of arrival, and keeps the first of each time.
    pub(crate) fn normalise(&mut self, dropped: &mut Duplicates) {
        if self.ts.is_sorted_by(|a, b| a < b) {
            return;
        }
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_key(|i| self.ts[*i as usize]);
        let mut out = Self { ts: Vec::with_capacity(self.len()), values: Vec::with_capacity(self.len()) };
        for i in order {
            let (ts, value) = (self.ts[i as usize], self.values[i as usize]);
            match out.values.last() {
                Some(stays) if out.ts.last() == Some(&ts) => dropped.count(*stays, value),
                _ => out.push(ts, value),
            }
        }
        *self = out;
    }

    /// Merges `later`, of higher offsets, into this one; both are sorted and without duplicates.
    pub(crate) fn merge(&mut self, later: Self, dropped: &mut Duplicates) {
        if later.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = later;
            return;
        }
        if self.ts.last() < later.ts.first() {
            self.ts.extend_from_slice(&later.ts);
            self.values.extend_from_slice(&later.values);
            return;
        }
        let early = std::mem::take(self);
        self.ts.reserve(early.len() + later.len());
        self.values.reserve(early.len() + later.len());
        let (mut i, mut j) = (0, 0);
        while i < early.len() || j < later.len() {
            let (a, b) = (early.ts.get(i), later.ts.get(j));
            let take_early = match (a, b) {
                (Some(a), Some(b)) => a <= b,
                (a, _) => a.is_some(),
            };
            if take_early {
                if a == b {
                    dropped.count(early.values[i], later.values[j]);
                    j += 1;
                }
                self.push(early.ts[i], early.values[i]);
                i += 1;
            } else {
                self.push(later.ts[j], later.values[j]);
                j += 1;
            }
        }
    }

    /// Returns the indices of what lies within a range; the column is sorted.
    pub(crate) fn within(&self, range: TimeRange) -> std::ops::Range<usize> {
        let start = self.ts.partition_point(|t| *t < range.start.as_millis());
        // `Timestamp::MAX` as an end means all of time, its last instant included.
        let end = if range.end == Timestamp::MAX {
            self.len()
        } else {
            self.ts.partition_point(|t| *t < range.end.as_millis())
        };
        start..end.max(start)
    }

    /// Keeps what lies within a range; the column is sorted.
    pub(crate) fn cut(&mut self, range: TimeRange) {
        let keep = self.within(range);
        if keep.len() < self.len() {
            self.ts.truncate(keep.end);
            self.values.truncate(keep.end);
            self.ts.drain(..keep.start);
            self.values.drain(..keep.start);
        }
    }

    pub(crate) fn into_samples(self) -> Vec<Sample> {
        let pairs = self.ts.into_iter().zip(self.values);
        pairs.map(|(ts, value)| Sample { ts: Timestamp::from_millis(ts), value }).collect()
    }
}

/// Says whether a closed interval of milliseconds shares an instant with a range.
pub(crate) fn overlaps(range: TimeRange, min: i64, max: i64) -> bool {
    let end = range.end == Timestamp::MAX || min < range.end.as_millis();
    end && range.start.as_millis() <= max && !range.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn column(samples: &[(i64, f64)]) -> Column {
        let mut c = Column::default();
        for (ts, v) in samples {
            c.push(*ts, *v);
        }
        c
    }

    fn arrivals() -> impl Strategy<Value = Vec<(i64, f64)>> {
        prop::collection::vec((-20i64..20, prop::sample::select(vec![1.0, 2.0, f64::NAN, -0.0])), 0..60)
    }

    proptest! {
        #[test]
        fn any_cut_into_pieces_merges_to_the_first_value_of_each_time(all in arrivals(), cut in 0usize..60) {
            let mut model: BTreeMap<i64, u64> = BTreeMap::new();
            for (ts, v) in &all {
                model.entry(*ts).or_insert(v.to_bits());
            }
            let (a, b) = all.split_at(cut.min(all.len()));
            let (mut a, mut b, mut dropped) = (column(a), column(b), Duplicates::default());
            a.normalise(&mut dropped);
            b.normalise(&mut dropped);
            a.merge(b, &mut dropped);
            let bits: Vec<(i64, u64)> = a.ts.iter().zip(&a.values).map(|(t, v)| (*t, v.to_bits())).collect();
            prop_assert_eq!(&bits, &model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(dropped.same + dropped.other, (all.len() - bits.len()) as u64);
        }
    }

    #[test]
    fn a_cut_is_half_open_and_all_of_time_is_whole() {
        let mut c = column(&[(i64::MIN, 0.0), (1, 1.0), (2, 2.0), (i64::MAX, 3.0)]);
        c.cut(TimeRange::ALL);
        assert_eq!(c.len(), 4);
        c.cut(TimeRange::new(Timestamp::from_millis(1), Timestamp::from_millis(2)));
        assert_eq!(c.ts, [1]);
        assert!(overlaps(TimeRange::ALL, i64::MAX, i64::MAX));
        assert!(!overlaps(TimeRange::new(Timestamp::from_millis(3), Timestamp::from_millis(3)), 0, 9));
    }
}
