//! Which part of the segment the present line is.

use super::line::{Line, median, theil_sen};

/// Points of the shortest window.
const SHORTEST: usize = 8;
/// Points that a window is brought down to.
const POINTS_MAX: usize = 48;
/// Standard errors by which a longer window may differ from a shorter one.
const TOLERANCE: f64 = 3.0;
/// Share of a slope that a longer window may always differ: less is of no practical importance.
const LIKE: f64 = 0.15;

/// The window chosen.
pub(crate) struct Chosen {
    pub line: Line,
    /// Index of its first point.
    pub first: usize,
    /// Whether it reaches back to the first point given, so that a longer look might extend it.
    pub reaches_back: bool,
}

/// Chooses the longest window, ending now, that no shorter one contradicts. `None` below [`SHORTEST`] points.
///
/// A window is contradicted when its slope lies outside the interval of every shorter one so far; two in a row must be,
/// because one may be by chance.
///
/// # Source
/// Lepski 1991; Katkovnik 1999, *A new method for varying adaptive bandwidth selection* (intersection of confidence
/// intervals).
///
/// - `floor`: the longest time between collections, when the floor counts: the shortest window then holds
///   [`SHORTEST`] of them.
pub(crate) fn choose(points: &[(f64, f64)], floor: Option<f64>) -> Option<Chosen> {
    let mut best: Option<Chosen> = None;
    let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
    let mut contradicted = false;
    if points.len() < SHORTEST {
        return best;
    }
    let mut n = SHORTEST;
    if let Some(cycle) = floor {
        let from = points[points.len() - 1].0 - cycle * SHORTEST as f64;
        n = n.max(points.len() - points.partition_point(|p| p.0 < from));
    }
    loop {
        let n_now = n.min(points.len());
        let first = points.len() - n_now;
        if let Some(line) = theil_sen(&decimate(&points[first..], floor)) {
            if best.is_some() && !(low..=high).contains(&line.slope) {
                if contradicted {
                    return best;
                }
                contradicted = true;
            } else {
                contradicted = false;
                let doubt = line.error * (TOLERANCE + 12.0 / line.times.len() as f64);
                let doubt = doubt.max(LIKE * line.slope.abs());
                low = low.max(line.slope - doubt);
                high = high.min(line.slope + doubt);
                best = Some(Chosen { line, first, reaches_back: n_now == points.len() });
            }
        }
        if n_now == points.len() {
            return best;
        }
        n = n_now + n_now / 2;
    }
}

/// Brings points down to at most [`POINTS_MAX`] by equal spans of time: the median of each, or its minimum when the
/// floor counts (then no span is shorter than `floor`, so that each holds a collection).
pub(crate) fn decimate(points: &[(f64, f64)], floor: Option<f64>) -> Vec<(f64, f64)> {
    let Some((start, end)) = points.first().zip(points.last()).map(|(a, b)| (a.0, b.0)) else { return Vec::new() };
    let buckets = match floor {
        Some(cycle) => (((end - start) / cycle) as usize).clamp(1, POINTS_MAX),
        None if points.len() <= POINTS_MAX => return points.to_vec(),
        None => POINTS_MAX,
    };
    let width = (end - start) / buckets as f64;
    let mut out = Vec::with_capacity(buckets);
    let mut rest = points;
    for bucket in 1..=buckets {
        let edge = if bucket == buckets { f64::INFINITY } else { start + width * bucket as f64 };
        let (here, later) = rest.split_at(rest.partition_point(|p| p.0 < edge));
        rest = later;
        if here.is_empty() {
            continue;
        }
        if floor.is_some() {
            out.extend(here.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)));
        } else {
            let t = here.iter().map(|p| p.0).sum::<f64>() / here.len() as f64;
            let mut values: Vec<f64> = here.iter().map(|p| p.1).collect();
            out.extend(median(&mut values).map(|y| (t, y)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(i: i32, n: i32) -> f64 {
        f64::from(i - n + 1) * 10.0
    }

    #[test]
    fn a_line_is_used_whole() {
        let points: Vec<(f64, f64)> = (0..300).map(|i| (at(i, 300), f64::from(i) + f64::from(i * 31 % 7))).collect();
        let chosen = choose(&points, None).unwrap();
        assert_eq!(chosen.first, 0);
        assert!((chosen.line.slope - 0.1).abs() < 0.002);
    }

    #[test]
    fn a_rise_after_a_rest_is_seen_from_its_beginning_on() {
        for since in [10, 20, 60] {
            let points: Vec<(f64, f64)> = (0..400)
                .map(|i| (at(i, 400), 100.0 + f64::from((i - 400 + since).max(0)) * 5.0 + f64::from(i * 31 % 7) * 0.1))
                .collect();
            let chosen = choose(&points, None).unwrap();
            let slope = chosen.line.slope;
            assert!((slope - 0.5).abs() < 0.08, "{since} samples after: {slope}");
            assert!(!chosen.reaches_back);
        }
    }

    #[test]
    fn the_floor_of_a_saw_tooth_is_its_trend() {
        let points: Vec<(f64, f64)> =
            (0..400).map(|i| (at(i, 400), f64::from(i % 20) * 50.0 + f64::from(i) * 0.2)).collect();
        let slope = theil_sen(&decimate(&points, Some(200.0))).unwrap().slope;
        assert!((slope - 0.02).abs() < 0.002, "{slope}");
    }

    #[test]
    fn decimation_keeps_order_and_bounds() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i).powf(1.3), f64::from(i % 10))).collect();
        let few = decimate(&points, None);
        assert!(few.len() <= POINTS_MAX);
        assert!(few.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(few.iter().all(|p| (0.0..=9.0).contains(&p.1)));
    }
}
