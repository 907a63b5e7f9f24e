//! What a fit says, carried on from evaluation to evaluation until the next fit: the mixture of models.
//!
//! Three models share the vote. `line` reaches the limit when its resampled courses do; `flat` and `resets` never do
//! and hold the mass of "never". How the weights come about:
//!
//! - `flat` grows when the slope over the last third has fallen below half of the slope over all, and when the line
//!   has been seen for less than a quarter of the time it predicts;
//! - `resets` is the chance that the present climb ends by itself first: a prior `1 - f^a` (see
//!   [`crate::catalogue::Resets`]) over the share `f` of the way that is done, corrected by what earlier climbs did.

use std::collections::BTreeMap;

use forewarn_schemas::forecast::{Probabilities, Slope, TimeToExhaustion};
use forewarn_schemas::{Horizon, Timestamp};

use crate::codec::{Reader, State, state_struct};
use crate::error::AnalyzeError;

/// Points at which a distribution is kept, at equal steps of probability from 0 to 1.
pub(crate) const GRID: usize = 21;
/// Share of the predicted time that must have been seen before a line is believed.
const SEEN_SHARE: f64 = 0.25;
/// A line this straight is believed at once when it ends within [`SOON`] seconds.
const STRAIGHT: f64 = 8.0;
const SOON: f64 = 3_600.0;
/// Below this a slope is not told from noise.
const SIGNIFICANT: f64 = 4.0;
/// Least time and samples that a line must have been seen for.
const SEEN_MIN: f64 = 15.0;
const SAMPLES_MIN: u64 = 8;

/// A fit's result; times are seconds after `fitted`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outlook {
    pub fitted: Timestamp,
    /// Samples the screen had taken in by then.
    pub total: u64,
    /// Start of the line.
    pub since: Timestamp,
    /// Samples on it.
    pub samples: u64,
    /// In y-space.
    pub slope: Slope,
    /// Level at `fitted`, in y-space.
    pub level: f64,
    /// Scale of the residuals.
    pub scale: f64,
    /// Slope over its standard error.
    pub straightness: f64,
    /// 1 when the last third is at least half as steep as all.
    pub agreement: f64,
    /// Share of the courses that cross.
    pub share: f64,
    /// Their crossing times.
    pub crossings: [f64; GRID],
    /// The limit that was aimed at.
    pub limit: f64,
}

impl State for Slope {
    fn put(&self, out: &mut Vec<u8>) {
        [self.per_second, self.low, self.high].put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        let [per_second, low, high] = State::take(input)?;
        Ok(Self { per_second, low, high })
    }
}

state_struct!(Outlook {
    fitted,
    total,
    since,
    samples,
    slope,
    level,
    scale,
    straightness,
    agreement,
    share,
    crossings,
    limit,
});

/// The mixture at one time.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Mixture {
    /// Mass of the courses that cross, of all.
    pub mass: f64,
    /// Crossing times of those, in seconds from the evaluation, at equal steps of probability.
    pub times: [f64; GRID],
    /// Weights of `line`, `flat` and `resets`.
    pub line: f64,
    pub flat: f64,
    pub resets: f64,
    /// Whether enough has been seen to act on it.
    pub believed: bool,
    /// Share of the line's courses that cross, whether or not the line is believed or the climb expected to last: what
    /// keeps a young segment `learning`.
    pub suspected: f64,
}

impl Outlook {
    /// Returns when half of the crossing courses have crossed, in seconds after `at`, never below 0.
    pub(crate) fn median_from(&self, at: Timestamp) -> f64 {
        (self.crossings[GRID / 2] - at.seconds_since(self.fitted)).max(0.0)
    }

    /// Says whether a level at `at` is where the line would have it.
    pub(crate) fn expects(&self, at: Timestamp, y: f64, noise: f64) -> bool {
        let expected = self.level + self.slope.per_second * at.seconds_since(self.fitted);
        let band = (4.0 * self.scale).max(4.0 * noise).max(0.01 * (self.limit - self.level).abs());
        (y - expected).abs() <= band
    }

    /// Says whether the segment has grown by a fiftieth since the fit.
    pub(crate) fn outgrown(&self, last: Timestamp) -> bool {
        let age = self.fitted.seconds_since(self.since);
        last.seconds_since(self.fitted) >= 0.02 * age
    }

    /// Mixes the models at time `at`.
    ///
    /// - `reach`: the chance that the climb does not end by itself first;
    /// - `stretch`: factor on the times, by which the announced time moves smoothly.
    pub(crate) fn mix(&self, at: Timestamp, reach: f64, stretch: f64) -> Mixture {
        let elapsed = at.seconds_since(self.fitted);
        let median = self.median_from(at);
        let seen = self.fitted.seconds_since(self.since) + elapsed.max(0.0);
        let needed = (SEEN_SHARE * median).max(1.0);
        let straight = self.straightness >= STRAIGHT && median < SOON;
        let enough = self.samples >= SAMPLES_MIN && seen >= SEEN_MIN && self.straightness >= SIGNIFICANT;
        let believed = enough && (seen >= needed || straight);
        let confidence = if straight && enough { 1.0 } else { (seen / needed).min(1.0) };
        let line = self.agreement * confidence;
        let mut times = self.crossings;
        for t in &mut times {
            *t = ((*t - elapsed) * stretch).max(0.0);
        }
        Mixture {
            mass: self.share * line * reach,
            times,
            line: line * reach,
            flat: 1.0 - line,
            resets: line * (1.0 - reach),
            believed,
            suspected: if self.straightness >= SIGNIFICANT && median <= Horizon::D7.seconds() {
                self.share * self.agreement
            } else {
                0.0
            },
        }
    }
}

impl Mixture {
    /// Returns the probability of exhaustion within `seconds`.
    pub(crate) fn within(&self, seconds: f64) -> f64 {
        let last = (GRID - 1) as f64;
        let passed = self.times.partition_point(|t| *t <= seconds);
        let share = match passed {
            0 => 0.0,
            n if n == GRID => 1.0,
            n => {
                let (a, b) = (self.times[n - 1], self.times[n]);
                ((n - 1) as f64 + (seconds - a) / (b - a)) / last
            }
        };
        (self.mass * share).clamp(0.0, 1.0)
    }

    /// Returns the time by which the share `q` of the crossing courses has crossed.
    pub(crate) fn line_quantile(&self, q: f64) -> f64 {
        let place = q.clamp(0.0, 1.0) * (GRID - 1) as f64;
        let i = (place as usize).min(GRID - 2);
        self.times[i] + (self.times[i + 1] - self.times[i]) * (place - i as f64)
    }

    /// Returns the time by which the share `q` of all courses has crossed; `None` when fewer ever do.
    fn quantile(&self, q: f64) -> Option<f64> {
        (self.mass >= q).then(|| self.line_quantile(q / self.mass))
    }

    pub(crate) fn time_to_exhaustion(&self) -> TimeToExhaustion {
        TimeToExhaustion { p10: self.quantile(0.1), p50: self.quantile(0.5), p90: self.quantile(0.9) }
    }

    pub(crate) fn probabilities(&self) -> Probabilities {
        let [m30, h2, h24, d7] = Horizon::ALL.map(|h| self.within(h.seconds()));
        Probabilities { m30, h2, h24, d7 }
    }

    pub(crate) fn models(&self) -> BTreeMap<String, f64> {
        [("flat", self.flat), ("line", self.line), ("resets", self.resets)]
            .into_iter()
            .map(|(name, weight)| (name.to_owned(), weight))
            .collect()
    }
}

/// Returns the chance that the present climb reaches the limit rather than ends by itself.
///
/// - `done`: share of the way from the trough to the limit that is done;
/// - `ratio`: share of the limit in use, which is evidence of its own when the climb's beginning was not seen;
/// - `explaining`, `outgrown`: earlier climbs, see [`crate::screen`].
pub(crate) fn reach(exponent: f64, done: f64, ratio: Option<f64>, explaining: usize, outgrown: usize) -> f64 {
    let ratio = ratio.unwrap_or(0.0).clamp(0.0, 1.0);
    let done = done.clamp(0.0, 1.0).max(ratio * ratio);
    done.powf(exponent / (1 + outgrown) as f64) / (1 + explaining) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook(seen: i64, median: f64) -> Outlook {
        let mut crossings = [0.0; GRID];
        for (i, c) in crossings.iter_mut().enumerate() {
            *c = median * (0.5 + i as f64 / (GRID - 1) as f64);
        }
        Outlook {
            fitted: Timestamp::from_secs(100_000),
            total: 0,
            since: Timestamp::from_secs(100_000 - seen),
            samples: 100,
            slope: Slope { per_second: 1.0, low: 0.9, high: 1.1 },
            level: 0.0,
            scale: 1.0,
            straightness: 50.0,
            agreement: 1.0,
            share: 1.0,
            crossings,
            limit: median,
        }
    }

    #[test]
    fn a_quarter_of_the_time_must_have_been_seen_unless_it_is_straight_and_soon() {
        let at = Timestamp::from_secs(100_000);
        let slow = outlook(3_600, 86_400.0).mix(at, 1.0, 1.0);
        assert!(!slow.believed && slow.mass < 0.2 && slow.suspected == 1.0);
        assert!(outlook(30_000, 86_400.0).mix(at, 1.0, 1.0).believed);
        assert!(outlook(90, 1_800.0).mix(at, 1.0, 1.0).believed, "straight and soon");
        assert!(!Outlook { straightness: 5.0, ..outlook(90, 1_800.0) }.mix(at, 1.0, 1.0).believed);
    }

    #[test]
    fn quantiles_are_of_the_whole_mixture() {
        let at = Timestamp::from_secs(100_000);
        let m = outlook(1_000, 1_000.0).mix(at, 0.6, 1.0);
        let t = m.time_to_exhaustion();
        assert!(t.p90.is_none(), "four in ten never cross");
        assert!((t.p50.unwrap() - 1_333.3).abs() < 1.0, "5/6 of those that do: {:?}", t.p50);
        assert!((m.within(1_000.0) - 0.3).abs() < 1e-9);
        assert_eq!(m.within(1e9), 0.6);
        let later = outlook(1_000, 1_000.0).mix(Timestamp::from_secs(100_300), 0.6, 1.0);
        assert!((later.within(700.0) - 0.3).abs() < 1e-9, "it moves on with time");
    }

    #[test]
    fn reach_grows_with_the_way_done_and_falls_with_climbs_that_explain() {
        assert!(reach(0.4, 0.3, Some(0.3), 0, 0) > 0.6, "a process leak is called before a third of the way");
        assert!(reach(2.0, 0.62, Some(0.65), 0, 0) < 0.4, "a disk's climb to 65 % is not");
        assert!(reach(2.0, 0.8, Some(0.8), 0, 0) > 0.6);
        assert!(reach(0.4, 0.9, Some(0.9), 2, 0) < 0.34);
        assert!(reach(2.0, 0.75, Some(0.75), 0, 3) > 0.8, "beyond all that came before is news");
        assert!(reach(2.0, 0.0, Some(0.95), 0, 0) > 0.6, "first seen when nearly full");
    }
}
