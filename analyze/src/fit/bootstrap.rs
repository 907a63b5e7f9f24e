//! The distribution of the crossing time, by a bootstrap of residuals in blocks.

use super::line::Line;
use crate::outlook::GRID;

/// Courses later than this are "never".
const FOREVER: f64 = 70.0 * 86_400.0;
/// Least relative doubt of a crossing time.
const DOUBT: f64 = 0.04;

/// SplitMix64: our own, because a snapshot restored by another version must go on with the same numbers.
///
/// # Source
/// Steele, Lea and Flood 2014, *Fast splittable pseudorandom number generators*.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number in [0, n); `n` is at least 1.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Returns a number in (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Returns a nearly normal number: the sum of twelve uniform ones, which is normal enough up to three deviations.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// What the resampled lines come to.
pub(crate) struct Courses {
    /// Share of them that reach the limit.
    pub share: f64,
    /// Their crossing times in seconds from now, at equal steps of probability from 0 to 1, rising.
    pub grid: [f64; GRID],
    /// The 10 % and 90 % quantile of their slopes.
    pub slope: (f64, f64),
}

/// Resamples the line's residuals in blocks, fits each resample, and follows it to the limit.
///
/// - `limit`: in y-space; already passed gives crossing times of 0;
/// - `past_error`: median error of this resource's own forecasts, which widens the distribution.
///
/// The block length follows from the residuals' autocorrelation. A crossing far beyond the span seen is widened by the
/// logarithm of the ratio, because no line is known to go on.
///
/// # Source
/// Künsch 1989, *The jackknife and the bootstrap for general stationary observations* (moving blocks).
pub(crate) fn crossings(line: &Line, limit: f64, past_error: f64, resamples: usize, rng: &mut Rng) -> Courses {
    let n = line.times.len();
    let rho = line.correlation;
    let block = ((1.0 + rho) / (1.0 - rho)).round().clamp(1.0, (n / 3).max(1) as f64) as usize;
    let inflate = (n as f64 / (n as f64 - 2.0)).sqrt();
    let mean = line.times.iter().sum::<f64>() / n as f64;
    let spread: f64 = line.times.iter().map(|t| (t - mean).powi(2)).sum();
    let gap = limit - line.level;
    let span = -line.start;
    let mut times = Vec::with_capacity(resamples);
    let mut slopes = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        let mut tilt = 0.0;
        let mut i = 0;
        while i < n {
            let from = rng.below(n - block + 1);
            for j in 0..block.min(n - i) {
                tilt += line.residuals[from + j] * inflate * (line.times[i + j] - mean);
            }
            i += block;
        }
        let z = rng.normal();
        let bend = if spread > 0.0 { tilt / spread } else { 0.0 };
        // The least doubt stated by the line itself: a perfect line resamples to itself.
        let slope = line.slope + bend + rng.normal() * line.error.min(1e-2 * line.slope.abs());
        slopes.push(slope);
        // The level is that of the last five points, so about half a residual off.
        let gap = gap - 0.5 * line.scale * rng.normal();
        if gap <= 0.0 {
            times.push(0.0);
        } else if slope > 0.0 {
            let time = gap / slope;
            let doubt = (DOUBT * (1.0 + (1.0 + time / span.max(1.0)).ln())).hypot(0.5 * past_error.min(1.0));
            let time = time * (doubt * z).exp();
            if time <= FOREVER {
                times.push(time);
            }
        }
    }
    slopes.sort_unstable_by(f64::total_cmp);
    times.sort_unstable_by(f64::total_cmp);
    let mut grid = [FOREVER; GRID];
    if !times.is_empty() {
        for (i, g) in grid.iter_mut().enumerate() {
            *g = quantile(&times, i as f64 / (GRID - 1) as f64);
        }
    }
    Courses {
        share: times.len() as f64 / resamples as f64,
        grid,
        slope: (quantile(&slopes, 0.1), quantile(&slopes, 0.9)),
    }
}

/// Returns a quantile by linear interpolation of sorted values; there is at least one.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (i, part) = (place as usize, place.fract());
    let next = sorted[(i + 1).min(sorted.len() - 1)];
    sorted[i] + (next - sorted[i]) * part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::line::theil_sen;

    fn noisy(n: i32, slope: f64, noise: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut rng = Rng::new(seed);
        (0..n).map(|i| (f64::from(i - n) * 10.0, f64::from(i) * 10.0 * slope + rng.normal() * noise)).collect()
    }

    #[test]
    fn the_interval_covers_what_it_says() {
        // 400 lines with white noise, the limit as far ahead as the line is long: how often is the truth inside?
        let (mut inside, runs) = (0, 400);
        for seed in 0..runs {
            let line = theil_sen(&noisy(48, 1.0, 60.0, seed)).unwrap();
            let c = crossings(&line, 960.0, 0.0, 200, &mut Rng::new(seed));
            let (low, high) = (c.grid[2], c.grid[GRID - 3]);
            inside += u64::from((low..=high).contains(&480.0));
        }
        let coverage = inside as f64 / runs as f64;
        assert!((0.7..0.97).contains(&coverage), "coverage of the 80 % interval is {coverage}");
    }

    #[test]
    fn without_a_slope_half_the_courses_never_cross() {
        let line = theil_sen(&noisy(48, 0.0, 5.0, 7)).unwrap();
        let c = crossings(&line, 1e6, 0.0, 400, &mut Rng::new(1));
        assert!(c.share < 0.8, "{}", c.share);
        assert!(c.grid.windows(2).all(|w| w[0] <= w[1]));
    }

    #[test]
    fn seeded() {
        let line = theil_sen(&noisy(30, 1.0, 9.0, 3)).unwrap();
        let run = |seed| crossings(&line, 900.0, 0.0, 100, &mut Rng::new(seed)).grid;
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }
}
