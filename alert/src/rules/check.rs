//! Whether a forecast can be true at all.

use forewarn_schemas::forecast::Slope;
use forewarn_schemas::{Forecast, Horizon, ResourceKey};

/// No resource that matters has more of anything than this.
const AMOUNT_MAX: f64 = 1e24;
/// A hundred years: a time beyond it means "never" and must be absent.
const SECONDS_MAX: f64 = 3.2e9;
/// What rounding may add to a probability or a sum of weights.
const SLACK: f64 = 1e-6;

/// Why a forecast was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("forecast of {key}: {what} {why}")]
pub struct Refusal {
    /// Which resource.
    pub key: ResourceKey,
    /// The part of it that cannot be true; a closed set, and the metric's label.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// Returns the first thing in `f` that cannot be true.
pub(super) fn check(f: &Forecast) -> Result<(), Refusal> {
    let refuse = |what, why: String| Err(Refusal { key: f.key.clone(), what, why });
    let amounts = [("used", f.used), ("limit", f.limit), ("used", f.used_ratio), ("error", f.error_ratio)];
    for (what, value) in amounts {
        if value.is_some_and(|v| v.is_nan() || v.abs() > AMOUNT_MAX) {
            return refuse(what, format!("is {}", value.unwrap_or_default()));
        }
    }
    let absurd =
        |s: &Slope| [s.per_second, s.low, s.high].iter().any(|v| v.is_nan() || v.abs() > AMOUNT_MAX) || s.low > s.high;
    if let Some(s) = f.slope.filter(absurd) {
        return refuse("slope", format!("is {} in [{}, {}] per second", s.per_second, s.low, s.high));
    }
    let t = f.time_to_exhaustion;
    let mut before = 0.0;
    for seconds in [t.p10, t.p50, t.p90].into_iter().flatten() {
        // Written so that NaN fails too.
        if !(before..=SECONDS_MAX).contains(&seconds) {
            return refuse("time", format!("to exhaustion is {seconds} s after {before} s"));
        }
        before = seconds;
    }
    let mut before = -SLACK;
    for horizon in Horizon::ALL {
        let p = f.probability.within(horizon);
        if !(before - SLACK..=1.0 + SLACK).contains(&p) {
            return refuse("probability", format!("within {} is {p}", horizon.as_str()));
        }
        before = p;
    }
    if let Some((name, weight)) = f.models.iter().find(|(_, w)| !(-SLACK..=1.0 + SLACK).contains(*w)) {
        return refuse("weight", format!("of model {name} is {weight}"));
    }
    Ok(())
}

/// All values of [`Refusal::what`].
pub(super) const WHAT: [&str; 8] = ["used", "limit", "error", "slope", "time", "probability", "weight", "labels"];
