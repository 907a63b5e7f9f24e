//! Points in time and ranges of them.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch, UTC. Serialised as that number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest point that can be expressed.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest point that can be expressed.
    pub const MAX: Self = Self(i64::MAX);

    /// Makes a timestamp of milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Makes a timestamp of whole seconds since the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Returns milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns seconds since the epoch.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Returns the latest multiple of `step` that is not after `self`; `step` is at least 1 ms.
    pub fn align_down(self, step: Duration) -> Self {
        let step = (step.as_millis() as i64).max(1);
        Self(self.0.div_euclid(step).saturating_mul(step))
    }

    /// Returns the time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns seconds from `earlier` to `self`, negative when `earlier` is later.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1000.0
    }

    /// Returns `self` plus `seconds`, saturating; NaN adds nothing.
    pub fn plus_secs_f64(self, seconds: f64) -> Self {
        Self(self.0.saturating_add((seconds * 1000.0) as i64))
    }

    /// Writes RFC 3339 in UTC with milliseconds; outside the calendar (years -9999 to 9999) the nearest end of it.
    pub fn rfc3339(self) -> String {
        let clamped = self.0.clamp(-377_000_000_000_000, 253_000_000_000_000);
        match jiff::Timestamp::from_millisecond(clamped) {
            Ok(t) => format!("{t:.3}"),
            Err(_) => String::from("0001-01-01T00:00:00.000Z"),
        }
    }

    /// Reads RFC 3339.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_millisecond()))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// Where the time comes from. Read at the edges only (collectors, HTTP, the router's timers); tests inject their own.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the time now. Never goes backwards within a process.
    fn now(&self) -> Timestamp;
}

/// A clock that stands still until it is moved: for tests and replays.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicI64);

impl ManualClock {
    /// Makes a clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(now.0.into())
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

/// A half-open range of time, `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First instant inside.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start: Timestamp::MIN, end: Timestamp::MAX };

    /// Makes `[start, end)`.
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end }
    }

    /// Says whether `t` is inside.
    pub fn contains(&self, t: Timestamp) -> bool {
        self.start <= t && t < self.end
    }

    /// Says whether no instant is inside.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Says whether a closed range `[min, max]` shares an instant with this one.
    pub fn overlaps_closed(&self, min: Timestamp, max: Timestamp) -> bool {
        min < self.end && self.start <= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_and_prints() {
        let t = Timestamp::from_millis(-1);
        assert_eq!(t.align_down(Duration::from_secs(1)), Timestamp::from_millis(-1000));
        assert_eq!(Timestamp::from_secs(0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::parse_rfc3339("1970-01-01T00:00:01Z"), Some(Timestamp::from_secs(1)));
        assert!(Timestamp::MAX.rfc3339().starts_with("9987"));
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::MIN.align_down(Duration::from_secs(7)), Timestamp::MIN);
    }
}
