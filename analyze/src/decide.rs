//! Tier 3: the state machine of one resource.
//!
//! Raising needs `confirm_samples` new samples in a row, not evaluations. Taking back needs the probability to stay
//! below a third of the threshold for the hold; a restart, a reset and a limit raised far enough take back at once.
//! Without new samples nothing changes: missing data holds the state. `exhausted` is the top of the same ladder, so the way down
//! from it leads through `critical`, never straight to the all-clear, unless the segment was cut.

use forewarn_schemas::forecast::Level;
use forewarn_schemas::{ForecastState, Timestamp};

use crate::codec::{Reader, State, state_enum, state_struct};
use crate::config::AnalyzeConfig;
use crate::error::AnalyzeError;
use crate::outlook::Mixture;
use crate::screen::Cause;

/// Share of the threshold below which a state may be taken back.
const CLEAR_SHARE: f64 = 1.0 / 3.0;
/// A page is downgraded to `rising` only when the crossing has moved this many lead times away.
const CLEAR_LEADS: f64 = 2.0;
/// A static level is left this far below it.
const LEVEL_MARGIN: f64 = 0.05;
/// Samples and seconds before a segment is past `learning`.
const LEARN_SAMPLES: u64 = 10;
const LEARN_SECONDS: f64 = 60.0;
/// What the thresholds become for a resource whose forecasts have been wrong too often.
const UNRELIABLE_PAGE: f64 = 0.85;

/// What has been raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Stage {
    #[default]
    Quiet,
    Rising,
    Critical,
    Exhausted,
}
state_enum!(Stage { Quiet = 0, Rising = 1, Critical = 2, Exhausted = 3 });

impl State for Level {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Minor => 0,
            Self::Major => 1,
        });
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        match u8::take(input)? {
            0 => Ok(Self::Minor),
            1 => Ok(Self::Major),
            _ => Err(input.bad("a byte that is no level")),
        }
    }
}

/// What is known at an evaluation.
pub(crate) struct Evidence<'a> {
    pub at: Timestamp,
    /// Samples taken in so far.
    pub total: u64,
    /// Cuts so far, and the cause of the last.
    pub cuts: u64,
    pub cause: Cause,
    /// The share in use is known and below the `major` level.
    pub roomy: bool,
    /// Samples and seconds in the segment.
    pub samples: u64,
    pub age: f64,
    /// When the fitted line began, when there is one.
    pub line: Option<Timestamp>,
    /// The limit is reached, and has been for long enough.
    pub full: bool,
    /// The level is clearly below the limit again.
    pub relieved: bool,
    pub harm: bool,
    pub mixture: Option<&'a Mixture>,
    /// The mixture could not be made: nothing is known about the course yet.
    pub blind: bool,
    pub lead: f64,
    pub unreliable: bool,
}

/// What has been decided.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Decision {
    pub stage: Stage,
    /// When the stage was last changed.
    pub since: Timestamp,
    /// Whether the present segment is past learning.
    pub settled: bool,
    /// A crossing is suspected by a resource that has been wrong too often: shown as `unreliable`.
    pub doubted: bool,
    pub level: Option<Level>,
    /// When the climb that was announced began.
    pub climb: Option<Timestamp>,
    /// The stage that harm alone hid: what it goes back to afterwards.
    beneath: Option<Stage>,
    /// Samples the screen had taken in at the last evaluation.
    pub total: u64,
    cuts: u64,
    rising_run: u32,
    critical_run: u32,
    clear_since: Option<Timestamp>,
    level_run: u32,
}
state_struct!(Decision {
    stage,
    since,
    settled,
    doubted,
    level,
    climb,
    beneath,
    total,
    cuts,
    rising_run,
    critical_run,
    clear_since,
    level_run,
});

impl Decision {
    /// Takes an evaluation's evidence.
    pub(crate) fn update(&mut self, e: &Evidence<'_>, config: &AnalyzeConfig) {
        let fresh = u32::try_from(e.total - self.total.min(e.total)).unwrap_or(u32::MAX);
        self.total = e.total;
        if e.cuts != self.cuts {
            self.cuts = e.cuts;
            self.settled = false;
            self.doubted = false;
            (self.rising_run, self.critical_run) = (0, 0);
            let over = match e.cause {
                Cause::Restart | Cause::Reset => true,
                // A few per cent more change nothing for what is nearly full.
                Cause::LimitRaised => e.roomy,
                Cause::FirstSeen | Cause::LimitLowered | Cause::Gap | Cause::Source => false,
            };
            if over {
                self.clear_since = None;
                self.set(Stage::Quiet, e.at);
            }
        }
        let (page, rise) = if e.unreliable {
            (UNRELIABLE_PAGE.max(config.page_probability), config.page_probability)
        } else {
            (config.page_probability, config.rising_probability)
        };
        let believed = e.mixture.filter(|m| m.believed);
        let horizon = forewarn_schemas::Horizon::D7.seconds();
        let ahead = e.mixture.map_or(0.0, |m| m.within(horizon));
        let soon = e.mixture.map_or(0.0, |m| m.within(e.lead.max(2.0 * m.line_quantile(0.5))));
        let early = e.mixture.map_or(f64::INFINITY, |m| m.line_quantile(0.2));
        if !self.settled {
            let suspected = e.mixture.is_some_and(|m| !m.believed && m.suspected >= rise);
            self.settled = e.samples >= LEARN_SAMPLES && e.age >= LEARN_SECONDS && !suspected;
        }
        if e.full {
            self.beneath = None;
        } else if e.harm && self.stage != Stage::Exhausted {
            self.beneath = Some(self.stage);
        }
        if e.full || e.harm {
            self.set(Stage::Exhausted, e.at);
            self.clear_since = None;
        }
        if fresh == 0 {
            return;
        }
        let rising = believed.is_some() && ahead >= rise;
        let critical = believed.is_some() && soon >= page && early <= e.lead;
        self.doubted = e.unreliable && !rising && ahead >= config.rising_probability;
        count(&mut self.rising_run, rising, fresh);
        count(&mut self.critical_run, critical, fresh);
        if self.stage == Stage::Exhausted && !e.full && !e.harm && e.relieved {
            let next = self.beneath.take().unwrap_or(Stage::Critical);
            self.set(next, e.at);
        }
        if self.stage == Stage::Quiet {
            self.climb = e.line;
        }
        if self.critical_run >= config.confirm_samples {
            self.settled = true;
            self.set(self.stage.max(Stage::Critical), e.at);
        } else if self.rising_run >= config.confirm_samples {
            self.settled = true;
            self.set(self.stage.max(Stage::Rising), e.at);
        }
        self.take_back(e, (ahead, rise), (soon, page), early, config);
    }

    fn take_back(
        &mut self,
        e: &Evidence<'_>,
        (ahead, rise): (f64, f64),
        (soon, page): (f64, f64),
        early: f64,
        config: &AnalyzeConfig,
    ) {
        let lower = match self.stage {
            Stage::Rising if ahead < rise * CLEAR_SHARE => Stage::Quiet,
            Stage::Critical if ahead < rise * CLEAR_SHARE => Stage::Quiet,
            Stage::Critical if soon < page * CLEAR_SHARE || early > CLEAR_LEADS * e.lead => Stage::Rising,
            stage => stage,
        };
        if lower == self.stage || e.blind {
            self.clear_since = None;
            return;
        }
        let since = *self.clear_since.get_or_insert(e.at);
        let age = self.climb.map_or(0.0, |climb| e.at.seconds_since(climb));
        let hold = config.clear_hold.as_secs_f64().max(0.1 * age);
        if e.at.seconds_since(since) >= hold {
            self.clear_since = None;
            self.set(lower, e.at);
        }
    }

    /// Follows the share in use through the static levels.
    pub(crate) fn follow_level(
        &mut self,
        ratio: Option<f64>,
        minor: Option<f64>,
        major: Option<f64>,
        fresh: u64,
        confirm: u32,
    ) {
        let Some(ratio) = ratio.filter(|_| fresh > 0) else { return };
        let over = |level: Option<f64>, margin: f64| level.is_some_and(|l| ratio >= l - margin);
        let raised = match () {
            () if over(major, 0.0) => Some(Level::Major),
            () if over(minor, 0.0) => Some(Level::Minor),
            () => None,
        };
        let kept = match self.level {
            Some(Level::Major) if over(major, LEVEL_MARGIN) => Some(Level::Major),
            Some(_) if over(minor, LEVEL_MARGIN) => Some(Level::Minor),
            _ => None,
        };
        let next = raised.max(kept);
        if next == self.level {
            self.level_run = 0;
            return;
        }
        count(&mut self.level_run, true, u32::try_from(fresh).unwrap_or(u32::MAX));
        if self.level_run >= confirm {
            self.level = next;
            self.level_run = 0;
        }
    }

    /// Says whether harm alone has raised what is held now, even if it is long ago: without new samples nothing is
    /// taken back.
    pub(crate) fn harmed(&self) -> bool {
        self.stage == Stage::Exhausted && self.beneath.is_some()
    }

    /// Returns the state to show.
    pub(crate) fn state(&self, stale: bool) -> ForecastState {
        let stage = match self.stage {
            Stage::Exhausted => ForecastState::Exhausted,
            Stage::Critical => ForecastState::Critical,
            Stage::Rising => ForecastState::Rising,
            Stage::Quiet if self.doubted => ForecastState::Unreliable,
            Stage::Quiet if !self.settled => ForecastState::Learning,
            Stage::Quiet => ForecastState::Ok,
        };
        if stale { stage.max(ForecastState::Stale) } else { stage }
    }

    fn set(&mut self, stage: Stage, at: Timestamp) {
        if self.stage != stage {
            (self.stage, self.since) = (stage, at);
        }
    }
}

fn count(run: &mut u32, holds: bool, fresh: u32) {
    *run = if holds { run.saturating_add(fresh) } else { 0 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlook::GRID;

    fn mixture(mass: f64, seconds: f64) -> Mixture {
        Mixture { mass, times: [seconds; GRID], line: mass, believed: true, suspected: mass, ..Mixture::default() }
    }

    fn evidence(i: i64, mixture: Option<&Mixture>) -> Evidence<'_> {
        Evidence {
            at: Timestamp::from_secs(10 * i),
            total: i as u64,
            cuts: 0,
            cause: Cause::FirstSeen,
            roomy: true,
            samples: i as u64,
            age: 10.0 * i as f64,
            line: Some(Timestamp::from_secs(0)),
            full: false,
            relieved: true,
            harm: false,
            mixture,
            blind: false,
            lead: 10_800.0,
            unreliable: false,
        }
    }

    #[test]
    fn up_the_ladder_and_down_again_with_a_hold() {
        let config = AnalyzeConfig::default();
        let mut d = Decision::default();
        let far = mixture(0.5, 100_000.0);
        let near = mixture(0.9, 5_000.0);
        for i in 1..=10 {
            d.update(&evidence(i, None), &config);
        }
        assert_eq!(d.state(false), ForecastState::Ok);
        d.update(&evidence(11, Some(&far)), &config);
        assert_eq!(d.state(false), ForecastState::Ok, "one sample is not enough");
        d.update(&evidence(12, Some(&far)), &config);
        assert_eq!(d.state(false), ForecastState::Rising);
        d.update(&evidence(13, Some(&near)), &config);
        d.update(&evidence(14, Some(&near)), &config);
        assert_eq!(d.state(false), ForecastState::Critical);
        d.update(&Evidence { full: true, relieved: false, ..evidence(15, Some(&near)) }, &config);
        assert_eq!(d.state(false), ForecastState::Exhausted);
        d.update(&Evidence { relieved: false, ..evidence(16, None) }, &config);
        assert_eq!(d.state(false), ForecastState::Exhausted, "not yet clearly below");
        d.update(&evidence(17, None), &config);
        assert_eq!(d.state(false), ForecastState::Critical, "never straight to the all-clear");
        for i in 18..(17 + 90) {
            d.update(&evidence(i, None), &config);
            assert_eq!(d.state(false), ForecastState::Critical, "{i}");
        }
        d.update(&evidence(17 + 91, None), &config);
        assert_eq!(d.state(false), ForecastState::Ok);
    }

    #[test]
    fn evaluations_without_samples_change_nothing() {
        let config = AnalyzeConfig::default();
        let mut d = Decision::default();
        let near = mixture(0.9, 5_000.0);
        d.update(&evidence(20, Some(&near)), &config);
        let raised = d.clone();
        for i in 21..200 {
            d.update(&Evidence { total: 20, ..evidence(i, None) }, &config);
        }
        assert_eq!(d, raised);
        assert_eq!(d.state(true), ForecastState::Critical, "critical outranks stale");
        assert_eq!(Decision::default().state(true), ForecastState::Stale);
    }

    #[test]
    fn a_restart_takes_back_at_once_and_a_lowered_limit_does_not() {
        let config = AnalyzeConfig::default();
        let near = mixture(0.9, 5_000.0);
        for (cause, roomy, state) in [
            (Cause::Restart, false, ForecastState::Learning),
            (Cause::LimitRaised, true, ForecastState::Learning),
            (Cause::LimitRaised, false, ForecastState::Critical),
            (Cause::LimitLowered, true, ForecastState::Critical),
            (Cause::Gap, true, ForecastState::Critical),
        ] {
            let mut d = Decision::default();
            d.update(&evidence(20, Some(&near)), &config);
            d.update(
                &Evidence { cuts: 1, cause, roomy, samples: 1, age: 0.0, blind: true, ..evidence(21, None) },
                &config,
            );
            assert_eq!(d.state(false), state, "{cause:?} {roomy}");
        }
    }

    #[test]
    fn levels_have_a_margin() {
        let mut d = Decision::default();
        let mut follow = |ratio| {
            d.follow_level(Some(ratio), Some(0.7), Some(0.85), 2, 2);
            d.level
        };
        assert_eq!(follow(0.69), None);
        assert_eq!(follow(0.70), Some(Level::Minor));
        assert_eq!(follow(0.86), Some(Level::Major));
        assert_eq!(follow(0.82), Some(Level::Major));
        assert_eq!(follow(0.79), Some(Level::Minor));
        assert_eq!(follow(0.66), Some(Level::Minor));
        assert_eq!(follow(0.64), None);
    }

    #[test]
    fn one_that_was_wrong_too_often_must_be_surer() {
        let config = AnalyzeConfig::default();
        let mut d = Decision { settled: true, ..Decision::default() };
        let likely = mixture(0.5, 5_000.0);
        d.update(&Evidence { unreliable: true, ..evidence(20, Some(&likely)) }, &config);
        assert_eq!(d.state(false), ForecastState::Unreliable);
        let sure = mixture(0.95, 5_000.0);
        d.update(&Evidence { unreliable: true, ..evidence(30, Some(&sure)) }, &config);
        assert_eq!(d.state(false), ForecastState::Critical);
    }
}
