//! The head: samples that are in the log but in no block yet, per series, in columns.
//!
//! Samples are appended in the order of the log and sorted only when somebody looks, because nearly all arrive in
//! order. A flush freezes a head by putting a new one in its place; whoever held the old one keeps reading it.

use std::sync::RwLock;

use forewarn_schemas::{Sample, SeriesId, TimeRange};

use crate::lock::{read, write};
use crate::merge::{Column, Duplicates, overlaps};

/// Largest number of samples that a new head makes room for per series.
const ROOM_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Head {
    columns: RwLock<Columns>,
}

#[derive(Debug, Default)]
struct Columns {
    series: Vec<Series>,
    samples: usize,
    min_ts: Option<i64>,
    max_ts: Option<i64>,
}

#[derive(Debug, Default)]
struct Series {
    column: Column,
    unsorted: bool,
}

impl Head {
    /// Makes the head that follows this one, with room for as many samples per series.
    pub(crate) fn successor(&self) -> Self {
        let old = read(&self.columns);
        // A series that had very many samples (an import) is not expected to have them again.
        let room = |s: &Series| {
            let n = s.column.len().min(ROOM_MAX);
            Series { column: Column { ts: Vec::with_capacity(n), values: Vec::with_capacity(n) }, unsorted: false }
        };
        let columns = Columns { series: old.series.iter().map(room).collect(), ..Columns::default() };
        Self { columns: RwLock::new(columns) }
    }

    pub(crate) fn samples(&self) -> usize {
        read(&self.columns).samples
    }

    /// Appends what one record has: for each id the samples of a series.
    pub(crate) fn append<'a>(&self, batch: impl Iterator<Item = (SeriesId, &'a [Sample])>) -> Duplicates {
        let mut dropped = Duplicates::default();
        let mut columns = write(&self.columns);
        let columns = &mut *columns;
        for (id, samples) in batch {
            let at = id.0 as usize;
            if columns.series.len() <= at {
                columns.series.resize_with(at + 1, Series::default);
            }
            let series = &mut columns.series[at];
            for sample in samples {
                let ts = sample.ts.as_millis();
                if let (Some(last), Some(value)) = (series.column.ts.last(), series.column.values.last()) {
                    if *last == ts {
                        dropped.count(*value, sample.value);
                        continue;
                    }
                    series.unsorted |= *last > ts;
                }
                series.column.push(ts, sample.value);
                columns.samples += 1;
                columns.min_ts = Some(columns.min_ts.map_or(ts, |m| m.min(ts)));
                columns.max_ts = Some(columns.max_ts.map_or(ts, |m| m.max(ts)));
            }
        }
        dropped
    }

    /// Returns a series' samples within a range, sorted, without duplicates.
    pub(crate) fn column(&self, id: SeriesId, range: TimeRange) -> Column {
        let columns = read(&self.columns);
        let Some(series) = columns.series.get(id.0 as usize) else { return Column::default() };
        if series.unsorted {
            let mut all = series.column.clone();
            all.normalise(&mut Duplicates::default());
            all.cut(range);
            return all;
        }
        let within = series.column.within(range);
        Column { ts: series.column.ts[within.clone()].to_vec(), values: series.column.values[within].to_vec() }
    }

    /// Takes a series' samples sorted, for a flush, counting what it drops.
    pub(crate) fn sorted(&self, id: SeriesId, dropped: &mut Duplicates) -> Column {
        let columns = read(&self.columns);
        let Some(series) = columns.series.get(id.0 as usize) else { return Column::default() };
        let mut all = series.column.clone();
        if series.unsorted {
            all.normalise(dropped);
        }
        all
    }

    /// Visits every time in it, in no order.
    pub(crate) fn each_ts(&self, mut see: impl FnMut(i64)) {
        for series in &read(&self.columns).series {
            series.column.ts.iter().copied().for_each(&mut see);
        }
    }

    /// Returns the first and last time of a series.
    pub(crate) fn span(&self, id: SeriesId) -> Option<(i64, i64)> {
        let columns = read(&self.columns);
        let ts = &columns.series.get(id.0 as usize)?.column.ts;
        Some((*ts.iter().min()?, *ts.iter().max()?))
    }

    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        let columns = read(&self.columns);
        matches!((columns.min_ts, columns.max_ts), (Some(min), Some(max)) if overlaps(range, min, max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forewarn_schemas::{STALE_NAN, Timestamp};

    fn s(ts: i64, value: f64) -> Sample {
        Sample { ts: Timestamp::from_millis(ts), value }
    }

    #[test]
    fn order_does_not_matter_and_the_first_of_a_time_stays() {
        let head = Head::default();
        let id = SeriesId(3);
        let dropped = head.append([(id, [s(10, 1.0), s(10, 1.0), s(20, STALE_NAN)].as_slice())].into_iter());
        assert_eq!(dropped, Duplicates { same: 1, other: 0 });
        head.append([(id, [s(5, 0.5), s(20, 9.0), s(10, 1.0)].as_slice())].into_iter());
        let mut dropped = Duplicates::default();
        let column = head.sorted(id, &mut dropped);
        let expected = [s(5, 0.5), s(10, 1.0), s(20, STALE_NAN)];
        assert_eq!(column.into_samples(), expected);
        assert_eq!(dropped, Duplicates { same: 1, other: 1 });
        assert_eq!(head.column(id, TimeRange::ALL).into_samples(), expected);
        assert_eq!(head.span(id), Some((5, 20)));
        assert!(head.column(SeriesId(0), TimeRange::ALL).is_empty());
        assert!(!head.overlaps(TimeRange::new(Timestamp::from_millis(21), Timestamp::MAX)));
        assert_eq!(head.successor().samples(), 0);
    }
}
