//! Settings. The one that a user needs, the lead time, stands per resource in the catalogue.

use std::time::Duration;

use forewarn_schemas::units;
use serde::{Deserialize, Serialize};

use crate::error::AnalyzeError;

/// Settings of the analysis, one for all partitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnalyzeConfig {
    /// Time between evaluations; every `at` is a multiple of it. Default 10 s.
    #[serde(with = "units::duration")]
    pub step: Duration,
    /// Probability of exhaustion within the lead time (or twice the median, if later) from which a resource is
    /// `critical`. It is taken back below a third of it. Default 0.6.
    pub page_probability: f64,
    /// Probability of exhaustion within 7 days from which a resource is `rising`. Default 0.4.
    pub rising_probability: f64,
    /// New samples in a row that must agree before a state is raised. Default 2.
    pub confirm_samples: u32,
    /// Shortest time for which the all-clear must last before a state is taken back; a tenth of the climb's age when
    /// that is longer. A restart, a reset and a raised limit clear at once. Default 15 min.
    #[serde(with = "units::duration")]
    pub clear_hold: Duration,
    /// How long harm (an out-of-memory kill, an alarm) counts after it was last seen. Default 10 min.
    #[serde(with = "units::duration")]
    pub harm_hold: Duration,
    /// Silence after which a resource is stale; five of its own intervals when that is longer. Default 1 min.
    #[serde(with = "units::duration")]
    pub stale_after: Duration,
    /// Silence after which an object (a cgroup, a mount) is forgotten although its node is alive; twenty of its own
    /// intervals when that is longer. Default 10 min.
    #[serde(with = "units::duration")]
    pub object_gone_after: Duration,
    /// Silence after which everything else is forgotten: nodes, and resources of silent nodes. Default 24 h.
    #[serde(with = "units::duration")]
    pub gone_after: Duration,
    /// Objects of one resource shown per node, nearest to exhaustion first. Default 50.
    pub objects_max: usize,
    /// Objects of one resource watched per node; further ones are counted and not watched. Default 500.
    pub objects_watched_max: usize,
    /// Resamples of the residual bootstrap per fit. Default 100.
    pub resamples: usize,
}

impl Default for AnalyzeConfig {
    fn default() -> Self {
        Self {
            step: Duration::from_secs(10),
            page_probability: 0.6,
            rising_probability: 0.4,
            confirm_samples: 2,
            clear_hold: Duration::from_secs(15 * 60),
            harm_hold: Duration::from_secs(10 * 60),
            stale_after: Duration::from_secs(60),
            object_gone_after: Duration::from_secs(10 * 60),
            gone_after: Duration::from_secs(24 * 3600),
            objects_max: 50,
            objects_watched_max: 500,
            resamples: 100,
        }
    }
}

impl AnalyzeConfig {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// [`AnalyzeError::Config`] with the first setting that does not.
    pub fn validate(&self) -> Result<(), AnalyzeError> {
        let checks: [(&'static str, bool, &str); 8] = [
            ("step", self.step >= Duration::from_secs(1), "must be at least 1s"),
            ("page_probability", share(self.page_probability), "must be above 0 and below 1"),
            ("rising_probability", share(self.rising_probability), "must be above 0 and below 1"),
            ("rising_probability", self.rising_probability <= self.page_probability, "is above page_probability"),
            ("confirm_samples", self.confirm_samples >= 1, "must be at least 1"),
            ("objects_max", self.objects_max >= 1, "must be at least 1"),
            ("objects_watched_max", self.objects_watched_max >= self.objects_max, "is below objects_max"),
            ("resamples", (20..=2_000).contains(&self.resamples), "must be from 20 to 2000"),
        ];
        match checks.into_iter().find(|(_, ok, _)| !ok) {
            Some((field, _, reason)) => Err(AnalyzeError::Config { field, reason: reason.into() }),
            None => Ok(()),
        }
    }
}

fn share(p: f64) -> bool {
    p > 0.0 && p < 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_nonsense_is_named() {
        AnalyzeConfig::default().validate().unwrap();
        let bad = AnalyzeConfig { rising_probability: 0.9, ..AnalyzeConfig::default() };
        assert_eq!(bad.validate().unwrap_err().to_string(), "analyze.rising_probability: is above page_probability");
        let bad = AnalyzeConfig { page_probability: f64::NAN, ..AnalyzeConfig::default() };
        assert!(bad.validate().is_err());
    }
}
