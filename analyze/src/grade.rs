//! A resource's own past error, measured on virtual limits.
//!
//! Real crossings are too rare to learn from. So while a crossing is announced, the level half way between the present
//! one and the limit is forecast too; when it is reached, the error is kept: |actual - predicted| as a share of the
//! time that was said to be left. A virtual limit that is not reached in three times that time, or from which the level
//! fell away, counts as an error of 2. What a restart or a changed limit ended is not graded: people acted.

use forewarn_schemas::Timestamp;

use crate::codec::state_struct;
use crate::fit::line::median;

/// Errors kept.
const KEPT: usize = 8;
/// Error of a forecast that did not come true at all.
const NEVER: f64 = 2.0;
/// A median error above this over at least [`GRADED_MIN`] grades makes a resource unreliable.
const WRONG: f64 = 1.0;
const GRADED_MIN: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Wager {
    made: Timestamp,
    seconds: f64,
    level: f64,
}
state_struct!(Wager { made, seconds, level });

/// The grades of one resource.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Grades {
    wager: Option<Wager>,
    errors: Vec<f64>,
}
state_struct!(Grades { wager, errors });

impl Grades {
    /// Says what is forecast at `at`: from level `y`, with `slope` per second, towards `limit`.
    pub(crate) fn wager(&mut self, at: Timestamp, y: f64, slope: f64, limit: f64) {
        let half = (limit - y) / 2.0;
        let seconds = half / slope;
        if self.wager.is_none() && half > 0.0 && slope > 0.0 && seconds >= 1.0 {
            self.wager = Some(Wager { made: at, seconds, level: y + half });
        }
    }

    /// Follows the level.
    pub(crate) fn follow(&mut self, at: Timestamp, y: f64) {
        let Some(w) = self.wager else { return };
        let elapsed = at.seconds_since(w.made);
        if y >= w.level {
            self.keep((elapsed - w.seconds).abs() / w.seconds);
        } else if elapsed > (1.0 + NEVER) * w.seconds {
            self.keep(NEVER);
        }
    }

    /// The segment ended; `by_itself` when no person or restart did it.
    pub(crate) fn cut(&mut self, by_itself: bool) {
        if self.wager.is_some() && by_itself {
            self.keep(NEVER);
        }
        self.wager = None;
    }

    fn keep(&mut self, error: f64) {
        self.wager = None;
        if self.errors.len() == KEPT {
            self.errors.remove(0);
        }
        self.errors.push(error.min(NEVER));
    }

    /// Returns the median error, `None` while nothing was graded.
    pub(crate) fn error(&self) -> Option<f64> {
        median(&mut self.errors.clone())
    }

    /// Says whether the forecasts have been wrong too often to be believed.
    pub(crate) fn unreliable(&self) -> bool {
        self.errors.len() >= GRADED_MIN && self.error().is_some_and(|e| e > WRONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graded_when_the_virtual_limit_is_reached() {
        let mut g = Grades::default();
        let t = Timestamp::from_secs;
        g.wager(t(0), 0.0, 1.0, 200.0);
        g.follow(t(50), 50.0);
        assert_eq!(g.error(), None);
        g.follow(t(110), 100.0);
        assert!((g.error().unwrap() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn what_never_comes_makes_it_unreliable_and_what_people_end_does_not() {
        let t = Timestamp::from_secs;
        let mut g = Grades::default();
        for _ in 0..5 {
            g.wager(t(0), 0.0, 1.0, 200.0);
            g.cut(false);
        }
        assert_eq!(g.error(), None);
        for _ in 0..4 {
            g.wager(t(0), 0.0, 1.0, 200.0);
            g.cut(true);
        }
        assert!(!g.unreliable());
        g.wager(t(0), 0.0, 1.0, 200.0);
        g.follow(t(301), 50.0);
        assert!(g.unreliable());
    }
}
