//! What is said about a resource at one time.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::resource::{Direction, ResourceKey, ResourceKind};
use crate::time::Timestamp;

/// The state of a resource, in order of precedence: a later one hides an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForecastState {
    /// Nothing foreseen.
    Ok,
    /// Too little history to say.
    Learning,
    /// Its forecasts have been wrong too often to be believed.
    Unreliable,
    /// A crossing is foreseen, but there is time.
    Rising,
    /// Its samples have stopped; what was said before is held.
    Stale,
    /// A crossing is foreseen within the lead time: this pages.
    Critical,
    /// The limit is reached in effect, or harm is seen.
    Exhausted,
}

impl ForecastState {
    /// All states, least to most severe.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Learning, Self::Unreliable, Self::Rising, Self::Stale, Self::Critical, Self::Exhausted];

    /// Returns the state's name as the exporter and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Learning => "learning",
            Self::Unreliable => "unreliable",
            Self::Rising => "rising",
            Self::Stale => "stale",
            Self::Critical => "critical",
            Self::Exhausted => "exhausted",
        }
    }
}

impl fmt::Display for ForecastState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far ahead a probability looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Horizon {
    /// 30 minutes.
    M30,
    /// 2 hours.
    H2,
    /// 24 hours.
    H24,
    /// 7 days.
    D7,
}

impl Horizon {
    /// All horizons, nearest first.
    pub const ALL: [Self; 4] = [Self::M30, Self::H2, Self::H24, Self::D7];

    /// Returns the horizon's name: `30m`, `2h`, `24h` or `7d`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::M30 => "30m",
            Self::H2 => "2h",
            Self::H24 => "24h",
            Self::D7 => "7d",
        }
    }

    /// Returns its length in seconds.
    pub fn seconds(self) -> f64 {
        match self {
            Self::M30 => 1_800.0,
            Self::H2 => 7_200.0,
            Self::H24 => 86_400.0,
            Self::D7 => 604_800.0,
        }
    }
}

/// The probability of exhaustion within each horizon, each in [0, 1] and none below the one before.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Probabilities {
    /// Within 30 minutes.
    #[serde(rename = "30m")]
    pub m30: f64,
    /// Within 2 hours.
    #[serde(rename = "2h")]
    pub h2: f64,
    /// Within 24 hours.
    #[serde(rename = "24h")]
    pub h24: f64,
    /// Within 7 days.
    #[serde(rename = "7d")]
    pub d7: f64,
}

impl Probabilities {
    /// Returns the probability within `horizon`.
    pub fn within(&self, horizon: Horizon) -> f64 {
        match horizon {
            Horizon::M30 => self.m30,
            Horizon::H2 => self.h2,
            Horizon::H24 => self.h24,
            Horizon::D7 => self.d7,
        }
    }
}

/// A slope with its 80 % interval, in units of the resource per second; positive is towards exhaustion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// The estimate.
    pub per_second: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Seconds until the limit is reached, by quantile. A quantile is absent when that share of the courses never reaches
/// the limit: there is no magic number for "never".
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct TimeToExhaustion {
    /// One chance in ten that it comes sooner.
    pub p10: Option<f64>,
    /// As likely sooner as later.
    pub p50: Option<f64>,
    /// Nine chances in ten that it comes sooner.
    pub p90: Option<f64>,
}

/// What a forecast rests on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Saw {
    /// Start of the segment used: the last restart, limit change or first sample.
    pub since: Timestamp,
    /// Samples in it.
    pub samples: u64,
    /// Time of the last sample.
    pub last: Timestamp,
}

/// What is said about one resource at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Which resource.
    #[serde(flatten)]
    pub key: ResourceKey,
    /// The node's family.
    pub family: String,
    /// What reaching the limit means.
    pub kind: ResourceKind,
    /// Which way lies exhaustion.
    pub direction: Direction,
    /// Unit of `used` and `limit`: `bytes`, or a plural noun such as `processes`.
    pub unit: String,
    /// When this was said: a multiple of the evaluation step.
    pub at: Timestamp,
    /// The state.
    pub state: ForecastState,
    /// Last value seen.
    pub used: Option<f64>,
    /// The limit now.
    pub limit: Option<f64>,
    /// Share of the limit that is used, in [0, 1] unless overrun.
    pub used_ratio: Option<f64>,
    /// Slope of the present segment.
    pub slope: Option<Slope>,
    /// When it will be exhausted, counted from `at`.
    pub time_to_exhaustion: TimeToExhaustion,
    /// How likely within each horizon.
    pub probability: Probabilities,
    /// Weight of each model in the mixture; sums to 1 when not empty.
    pub models: BTreeMap<String, f64>,
    /// What it rests on.
    pub saw: Saw,
    /// Median absolute error of this resource's own past forecasts, as a share of the time they said was left.
    pub error_ratio: Option<f64>,
    /// Whether harm was seen (an out-of-memory kill, a refused process): exhausted whatever the level.
    pub harm: bool,
    /// The static level that is passed: `major` (warning) above `minor` (info).
    pub level: Option<Level>,
    /// One sentence for a person.
    pub sentence: String,
}

/// A static level, beside the forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The first level: shown.
    Minor,
    /// The second level: a ticket.
    Major,
}
