//! Tier 1: the O(1) state of one resource, kept up on every sample.
//!
//! All levels here are in *y-space*, in which exhaustion is always upwards: `y = used` towards a limit above, and
//! `y = -used` towards a limit below. A [`Screen`] holds the present segment (everything since the last cut), its
//! averages at five time constants, the scale of its one-step noise, and its climbs. [`Screen::suspects`] says whether
//! any plausible course could reach the limit within the longest horizon; nearly every resource stops there.
//!
//! Invariants: the time of accepted samples rises strictly within a segment; no field is ever NaN or infinite, because
//! the caller passes finite values of at most 1e18 only.

use forewarn_schemas::Timestamp;

use crate::codec::{state_enum, state_struct};

mod climb;

pub(crate) use climb::{Climb, Past, compare};

/// Time constants of the averages, in seconds: geometric, so that some pair suits a rise of any speed.
const TIME_CONSTANTS: [f64; 5] = [30.0, 240.0, 1_800.0, 14_400.0, 115_200.0];
/// A fall by this many noise scales at least is more than noise.
const SWING_NOISES: f64 = 8.0;
/// A fall that takes back less than this share of the way to the limit is of no account.
const SWING_SHARE: f64 = 0.01;
/// Share of a rise that a fall takes back to end the climb.
const FALL_SHARE: f64 = 0.5;

/// Ends of climbs kept, to know their pace.
const ENDS_MAX: usize = 5;

/// Why a segment began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Cause {
    /// The first sample ever seen.
    #[default]
    FirstSeen,
    Restart,
    /// The level fell by itself: a rotation, a collection, a clean-up.
    Reset,
    LimitRaised,
    LimitLowered,
    /// Samples were missing for longer than the segment had lasted.
    Gap,
    /// Another series took over, or the node's clock stepped back.
    Source,
}

state_enum!(Cause {
    FirstSeen = 0,
    Restart = 1,
    Reset = 2,
    LimitRaised = 3,
    LimitLowered = 4,
    Gap = 5,
    Source = 6,
});

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Taken in.
    Taken,
    /// Not newer than what was seen; the store keeps it, and a fit reads it from there.
    Late,
    /// A fall that the next sample must confirm.
    Pending,
    /// Taken in; the segment was cut.
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Average {
    y: f64,
    t: f64,
}
state_struct!(Average { y, t });

#[derive(Debug, Clone, Copy, PartialEq)]
struct Fall {
    ts: Timestamp,
    y: f64,
}
state_struct!(Fall { ts, y });

/// The screen of one resource.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Screen {
    /// First sample of the segment.
    pub since: Timestamp,
    /// Why it began.
    pub cause: Cause,
    /// Cuts so far; a change tells the decision that a segment began.
    pub cuts: u64,
    /// Samples taken in within the segment.
    pub samples: u64,
    /// Samples taken in ever.
    pub total: u64,
    /// Time of the last sample taken in.
    pub last: Timestamp,
    /// When anything of this series was last received.
    pub received: Timestamp,
    /// Last level.
    pub y: f64,
    /// Usual time between samples, in seconds; 0 while unknown.
    pub interval: f64,
    /// Scale of the noise from one sample to the next.
    pub noise: f64,
    /// The present climb.
    pub climb: Climb,
    /// Earlier climbs that ended by themselves.
    pub past: Vec<Past>,
    /// When the last few of them ended.
    ends: Vec<Timestamp>,
    steps: [f64; 2],
    averages: [Average; 5],
    fall: Option<Fall>,
    late_since: Option<Timestamp>,
}

state_struct!(Screen {
    since,
    cause,
    cuts,
    samples,
    total,
    last,
    received,
    y,
    interval,
    noise,
    climb,
    past,
    ends,
    steps,
    averages,
    fall,
    late_since,
});

impl Screen {
    /// Begins with the first sample.
    pub(crate) fn new(received: Timestamp, ts: Timestamp, y: f64) -> Self {
        let mut screen = Self {
            since: ts,
            cause: Cause::FirstSeen,
            cuts: 0,
            samples: 0,
            total: 0,
            last: ts,
            received,
            y,
            interval: 0.0,
            noise: 0.0,
            climb: Climb::new(ts, y),
            past: Vec::new(),
            ends: Vec::new(),
            steps: [0.0; 2],
            averages: [Average::default(); 5],
            fall: None,
            late_since: None,
        };
        screen.seed(ts, y);
        screen
    }

    /// Takes in a sample.
    ///
    /// - `limit`: the limit in y-space, when known;
    /// - `keep_resets`: resets do not cut (an elastic resource: its floor counts);
    /// - `told`: a crossing is being announced, so a fall now is most likely the work of people and teaches nothing.
    pub(crate) fn observe(
        &mut self,
        received: Timestamp,
        ts: Timestamp,
        y: f64,
        limit: Option<f64>,
        keep_resets: bool,
        told: bool,
    ) -> Seen {
        let dt = ts.seconds_since(self.last);
        if dt <= 0.0 {
            return self.late(received, ts, y);
        }
        self.late_since = None;
        self.received = self.received.max(received);
        if self.samples == 0 {
            // The first sample after a cut from outside.
            self.since = ts;
            self.climb = Climb::new(ts, y);
            self.seed(ts, y);
            return Seen::Taken;
        }
        let age = self.last.seconds_since(self.since);
        if dt > 600.0_f64.max(age).max(20.0 * self.interval) {
            self.cut(Cause::Gap, ts, y);
            return Seen::Cut;
        }
        let rise = self.climb.peak - self.climb.low;
        let swing = self.swing(limit);
        let fallen = self.climb.peak - y;
        if rise >= swing && fallen >= swing && fallen >= FALL_SHARE * rise {
            let Some(fall) = self.fall.take() else {
                self.fall = Some(Fall { ts, y });
                return Seen::Pending;
            };
            let pause = fall.ts.seconds_since(self.climb.peak_at);
            let quick = pause <= (3.0 * self.interval).max(0.2 * self.climb.seconds());
            let near_limit = limit.is_some_and(|l| l - self.climb.peak <= 0.05 * (l - self.climb.low));
            if !told && !near_limit {
                self.remember(fall.ts);
            }
            if quick && !keep_resets {
                self.cut(Cause::Reset, fall.ts, fall.y);
                self.take(ts, y);
                return Seen::Cut;
            }
            self.climb = Climb::new(fall.ts, fall.y);
            self.take(fall.ts, fall.y);
        } else {
            // A single low sample among others is a glitch: it is left out.
            self.fall = None;
        }
        self.take(ts, y);
        Seen::Taken
    }

    /// Ends the segment for a reason from outside; the last sample belongs to the new one only when it is not older
    /// than `from`.
    pub(crate) fn cut_from(&mut self, cause: Cause, from: Timestamp) {
        let (mut ts, mut y) = (self.last, self.y);
        if let Some(fall) = self.fall {
            (ts, y) = (fall.ts, fall.y);
        }
        if cause == Cause::Restart {
            // The fall that came with the restart was no reset.
            let horizon = 60.0_f64.max(2.0 * self.interval);
            self.past.retain(|p| p.end.seconds_since(from).abs() > horizon);
        }
        self.cut(cause, ts, y);
        if ts < from {
            self.since = from;
            self.samples = 0;
        }
    }

    /// Begins the present segment with a sample from elsewhere: another series took over.
    pub(crate) fn restart_with(&mut self, received: Timestamp, ts: Timestamp, y: f64) {
        self.received = received;
        self.since = ts;
        self.climb = Climb::new(ts, y);
        self.seed(ts, y);
    }

    /// Says whether any plausible course reaches the limit, `gap` above the present level, within `horizon` seconds:
    /// whether the level rises significantly at any of the scales, and fast enough.
    pub(crate) fn suspects(&self, gap: f64, horizon: f64) -> bool {
        if self.samples < 4 {
            return false;
        }
        let n = self.samples as f64;
        let mut fast = Average { y: self.y, t: self.last.seconds_since(self.since) };
        let mut fast_n = 1.0;
        for (slow, tau) in self.averages.iter().zip(TIME_CONSTANTS) {
            let dt = fast.t - slow.t;
            let slow_n = n.min((2.0 * tau / self.interval.max(1e-3)).max(1.0));
            if dt > 0.0 {
                let slope = (fast.y - slow.y) / dt;
                let doubt = 2.0 * self.noise * (1.0 / fast_n + 1.0 / slow_n).sqrt() / dt;
                if slope > doubt && gap <= (slope + doubt) * horizon {
                    return true;
                }
            }
            (fast, fast_n) = (*slow, slow_n);
        }
        false
    }

    /// Returns the longest time between the last ends of climbs, `None` while fewer than three have ended.
    pub(crate) fn cycle(&self) -> Option<f64> {
        let pauses = self.ends.windows(2).map(|w| w[1].seconds_since(w[0]));
        (self.ends.len() >= 3).then(|| pauses.fold(1.0, f64::max))
    }

    /// Smallest fall that counts.
    pub(crate) fn swing(&self, limit: Option<f64>) -> f64 {
        let headroom = limit.map_or(0.0, |l| (l - self.climb.low).max(0.0));
        (SWING_NOISES * self.noise).max(SWING_SHARE * headroom).max(f64::MIN_POSITIVE)
    }

    fn late(&mut self, received: Timestamp, ts: Timestamp, y: f64) -> Seen {
        let patience = 60.0_f64.max(5.0 * self.interval);
        let since = *self.late_since.get_or_insert(received);
        if received.seconds_since(since) > patience && received.seconds_since(self.received) > patience {
            // Nothing but late samples for a while: the node's clock stepped back, and this is its time now.
            self.received = received;
            self.cut(Cause::Source, ts, y);
            return Seen::Cut;
        }
        Seen::Late
    }

    fn remember(&mut self, end: Timestamp) {
        let past = self.climb.ended(end);
        climb::remember(&mut self.past, past);
        if self.ends.len() == ENDS_MAX {
            self.ends.remove(0);
        }
        self.ends.push(end);
    }

    fn cut(&mut self, cause: Cause, ts: Timestamp, y: f64) {
        self.since = ts;
        self.cause = cause;
        self.cuts += 1;
        if cause != Cause::Reset {
            self.ends.clear();
        }
        self.samples = 0;
        self.fall = None;
        self.late_since = None;
        self.steps = [0.0; 2];
        self.climb = Climb::new(ts, y);
        self.seed(ts, y);
    }

    fn seed(&mut self, ts: Timestamp, y: f64) {
        self.last = ts;
        self.y = y;
        self.samples = 1;
        self.total += 1;
        self.averages = [Average { y, t: 0.0 }; 5];
    }

    fn take(&mut self, ts: Timestamp, y: f64) {
        let dt = ts.seconds_since(self.last);
        if dt <= 0.0 {
            return;
        }
        self.samples += 1;
        self.total += 1;
        let n = self.samples as f64;
        self.interval += (dt - self.interval) * if self.interval == 0.0 { 1.0 } else { 0.1 };
        // Second differences have no trend in them; for white noise of deviation s their mean size is 1.95 s.
        let [step, step_dt] = self.steps;
        let rise = y - self.y;
        if step_dt > 0.0 {
            let bend = (rise - step * (dt / step_dt).min(10.0)).abs() / 1.95;
            let bend = if self.noise > 0.0 && self.samples > 8 { bend.min(6.0 * self.noise) } else { bend };
            self.noise += (bend - self.noise) * (1.0 / (n - 2.0).max(1.0)).max(0.03);
        }
        self.steps = [rise, dt];
        let t = ts.seconds_since(self.since);
        for (average, tau) in self.averages.iter_mut().zip(TIME_CONSTANTS) {
            let weight = (dt / (tau + dt)).max(1.0 / n);
            average.y += weight * (y - average.y);
            average.t += weight * (t - average.t);
        }
        self.climb.take(ts, y, self.y);
        self.last = ts;
        self.y = y;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Option<f64> = Some(1000.0);

    fn run(values: impl IntoIterator<Item = f64>) -> Screen {
        let mut screen: Option<Screen> = None;
        for (i, y) in values.into_iter().enumerate() {
            let ts = Timestamp::from_secs(10 * i as i64);
            match &mut screen {
                None => screen = Some(Screen::new(ts, ts, y)),
                Some(s) => drop(s.observe(ts, ts, y, LIMIT, false, false)),
            }
        }
        screen.expect("values were given")
    }

    #[test]
    fn a_line_is_suspected_and_a_constant_is_not() {
        let s = run((0..20).map(|i| f64::from(i) * 3.0));
        assert!(s.suspects(1000.0 - s.y, 604_800.0));
        assert!(!s.suspects(1000.0 - s.y, 600.0), "it takes 3,000 s");
        let s = run((0..20).map(|_| 500.0));
        assert!(!s.suspects(500.0, 604_800.0));
        let s = run((0..200).map(|i| 500.0 - f64::from(i)));
        assert!(!s.suspects(500.0, 604_800.0), "falling");
    }

    #[test]
    fn a_rise_after_a_long_rest_is_suspected_at_once() {
        let s = run((0..5000).map(|i| 100.0 + f64::from((i - 4994).max(0)) * 20.0));
        assert!(s.suspects(1000.0 - s.y, 604_800.0));
    }

    #[test]
    fn a_reset_cuts_and_is_learnt_but_a_glitch_is_left_out() {
        let saw = |i: i32| 100.0 + f64::from(i % 20) * 10.0;
        let s = run((0..70).map(saw));
        assert_eq!(s.past.len(), 3);
        assert!(s.past.iter().all(|p| p.peak == 280.0 && p.rise == 180.0));
        assert_eq!((s.since, s.cause), (Timestamp::from_secs(600), Cause::Reset));
        let s = run((0..40).map(|i| if i == 20 { 0.0 } else { f64::from(i) * 10.0 }));
        assert!(s.past.is_empty());
        assert_eq!((s.samples, s.cause), (39, Cause::FirstSeen));
    }

    #[test]
    fn a_fall_while_a_page_is_out_or_near_the_limit_teaches_nothing() {
        let ts = |i: i64| Timestamp::from_secs(10 * i);
        let mut s = Screen::new(ts(0), ts(0), 0.0);
        for i in 1..20 {
            s.observe(ts(i), ts(i), 10.0 * i as f64, LIMIT, false, true);
        }
        s.observe(ts(20), ts(20), 0.0, LIMIT, false, true);
        assert_eq!(s.observe(ts(21), ts(21), 0.0, LIMIT, false, true), Seen::Cut);
        assert!(s.past.is_empty());
        let s = run((0..110).map(|i| f64::from(i % 100) * 10.0));
        assert!(s.past.is_empty(), "990 of 1,000 was the limit in effect");
    }

    #[test]
    fn a_restart_takes_back_what_was_learnt_from_its_own_fall() {
        let mut s = run((0..25).map(|i| 100.0 + f64::from(i % 20) * 10.0));
        assert_eq!(s.past.len(), 1);
        s.cut_from(Cause::Restart, Timestamp::from_secs(200));
        assert!(s.past.is_empty());
        assert_eq!(s.cause, Cause::Restart);
    }

    #[test]
    fn a_clock_that_stepped_back_is_followed_after_a_minute() {
        let ts = Timestamp::from_secs;
        let mut s = Screen::new(ts(10_000), ts(10_000), 1.0);
        let mut seen = Vec::new();
        for i in 1..12 {
            seen.push(s.observe(ts(10_000 + 10 * i), ts(5_000 + 10 * i), 1.0, LIMIT, false, false));
        }
        assert_eq!(seen.iter().filter(|x| **x == Seen::Cut).count(), 1);
        assert_eq!(seen[0], Seen::Late);
        assert_eq!(*seen.last().unwrap(), Seen::Taken);
    }
}
