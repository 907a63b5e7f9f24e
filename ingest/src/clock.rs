//! The time that the edge stamps: it never goes back, whatever happens to the wall clock.
//!
//! The clock starts at the wall clock and from then on follows `CLOCK_BOOTTIME`, which nobody sets and which goes on
//! while the machine sleeps. Where the wall clock deviates (it was stepped, or it is disciplined by NTP) the clock moves
//! towards it by at most a tenth of the time that passes: a step back slows it down, it never reverses, and a step
//! ahead by years moves it by minutes only, so that one wrong setting does not poison what is stored.
//!
//! Deliberately absent: a jump. A machine that started at an earlier time than the true one is right again after a restart;
//! one that started ahead keeps its lead until the wall clock has caught up, since stamps in the log never fall.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forewarn_schemas::{Clock, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// The clock moves towards the wall clock by at most 1 / `SLEW` of the time that passes.
const SLEW: i128 = 10;
/// A change of the wall clock by more than this against elapsed time is a step.
const STEP_NANOS: i128 = 2_000_000_000;
/// Steps kept for who asks; more than these say nothing new.
const STEPS_MAX: usize = 16;

const NANOS_PER_MS: i128 = 1_000_000;

/// Where a [`SystemClock`] takes its time from; injected by tests.
pub trait RawClocks: Send + Sync + Debug {
    /// Returns the wall clock: nanoseconds since the Unix epoch.
    fn wall_nanos(&self) -> i128;
    /// Returns the time since some fixed moment; never goes back, and goes on while the machine sleeps.
    fn elapsed(&self) -> Duration;
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineClocks;

impl RawClocks for MachineClocks {
    fn wall_nanos(&self) -> i128 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        }
    }

    fn elapsed(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
    }
}

/// A step of the wall clock that the clock did not follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WallStep {
    /// When it was noticed, by the clock.
    pub at: Timestamp,
    /// How far it went in seconds; negative is back.
    pub seconds: f64,
}

/// The clock of the process.
#[derive(Debug)]
pub struct SystemClock {
    raw: Box<dyn RawClocks>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now_nanos: i128,
    wall_nanos: i128,
    elapsed: Duration,
    steps: Vec<WallStep>,
}

impl SystemClock {
    /// Starts a clock on this machine's.
    pub fn new() -> Self {
        Self::on(Box::new(MachineClocks))
    }

    /// Starts a clock on other clocks.
    pub fn on(raw: Box<dyn RawClocks>) -> Self {
        let (wall_nanos, elapsed) = (raw.wall_nanos(), raw.elapsed());
        let state = State { now_nanos: wall_nanos, wall_nanos, elapsed, steps: Vec::new() };
        Self { raw, state: Mutex::new(state) }
    }

    /// Sets the clock ahead to `floor` if it is behind. For the start: what the log was last stamped with must not
    /// come again, even if the wall clock was set back while the process was down.
    pub fn not_before(&self, floor: Timestamp) {
        let mut state = self.read();
        state.now_nanos = state.now_nanos.max(i128::from(floor.as_millis()) * NANOS_PER_MS);
    }

    /// Returns by how many seconds the wall clock is ahead of the clock.
    pub fn offset(&self) -> f64 {
        let state = self.read();
        (state.wall_nanos - state.now_nanos) as f64 / 1e9
    }

    /// Takes the steps of the wall clock, by more than 2 s each, since the last call; each is given once.
    pub fn take_steps(&self) -> Vec<WallStep> {
        std::mem::take(&mut self.read().steps)
    }

    /// Brings the clock up to the present.
    fn read(&self) -> MutexGuard<'_, State> {
        // Each holder leaves the state whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that two readers cannot apply their readings in the wrong order.
        state.update(self.raw.wall_nanos(), self.raw.elapsed());
        state
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn update(&mut self, wall_nanos: i128, elapsed: Duration) {
        let passed = elapsed.saturating_sub(self.elapsed).as_nanos() as i128;
        let stepped = wall_nanos - self.wall_nanos - passed;
        (self.wall_nanos, self.elapsed) = (wall_nanos, elapsed.max(self.elapsed));
        self.now_nanos += passed;
        let behind = wall_nanos - self.now_nanos;
        self.now_nanos += behind.clamp(-passed / SLEW, passed / SLEW);
        if stepped.abs() > STEP_NANOS && self.steps.len() < STEPS_MAX {
            self.steps.push(WallStep { at: self.timestamp(), seconds: stepped as f64 / 1e9 });
        }
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.now_nanos.div_euclid(NANOS_PER_MS) as i64)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.read().timestamp()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Wall and elapsed time in milliseconds.
    #[derive(Debug, Default, Clone)]
    struct Fake(Arc<Mutex<(i64, u64)>>);

    impl Fake {
        fn pass(&self, ms: u64) {
            let mut now = self.0.lock().unwrap();
            *now = (now.0 + ms as i64, now.1 + ms);
        }
        fn step(&self, ms: i64) {
            self.0.lock().unwrap().0 += ms;
        }
    }

    impl RawClocks for Fake {
        fn wall_nanos(&self) -> i128 {
            i128::from(self.0.lock().unwrap().0) * NANOS_PER_MS
        }
        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.lock().unwrap().1)
        }
    }

    fn start(at: i64) -> (Fake, SystemClock) {
        let fake = Fake::default();
        fake.step(at);
        (fake.clone(), SystemClock::on(Box::new(fake)))
    }

    fn ms(clock: &SystemClock) -> i64 {
        clock.now().as_millis()
    }

    #[test]
    fn follows_the_wall_clock_while_that_is_steady() {
        let (fake, clock) = start(1_000_000);
        assert_eq!(ms(&clock), 1_000_000);
        for _ in 0..1000 {
            fake.pass(3_600_000);
            clock.now();
        }
        assert_eq!(ms(&clock), 1_000_000 + 1000 * 3_600_000);
        assert_eq!((clock.offset(), clock.take_steps()), (0.0, vec![]));
    }

    #[test]
    fn a_step_back_slows_it_down_until_it_is_right() {
        let (fake, clock) = start(10_000_000);
        fake.step(-3_600_000);
        assert_eq!(ms(&clock), 10_000_000);
        assert_eq!(clock.offset(), -3600.0);
        fake.pass(1000);
        assert_eq!(ms(&clock), 10_000_900);
        let mut before = ms(&clock);
        for _ in 0..36_000 {
            fake.pass(1000);
            let now = ms(&clock);
            assert!((900..=1000).contains(&(now - before)));
            before = now;
        }
        assert_eq!(clock.offset(), 0.0);
        assert_eq!(before, 10_000_000 - 3_600_000 + 36_001_000);
    }

    #[test]
    fn ten_years_ahead_move_it_by_a_tenth_of_what_passes() {
        let (fake, clock) = start(0);
        fake.step(315_360_000_000);
        assert_eq!(ms(&clock), 0);
        fake.pass(60_000);
        assert_eq!(ms(&clock), 66_000);
        fake.step(-315_360_000_000);
        fake.pass(60_000);
        assert_eq!(ms(&clock), 66_000 + 54_000);
        assert_eq!(clock.offset(), 0.0);
    }

    #[test]
    fn each_step_is_told_once_and_drift_is_none() {
        let (fake, clock) = start(0);
        fake.pass(1000);
        fake.step(1_900);
        assert_eq!(clock.take_steps(), []);
        fake.step(-5_000);
        fake.pass(10);
        let at = clock.now();
        fake.step(60_000);
        clock.now();
        let steps = clock.take_steps();
        assert_eq!(steps.iter().map(|s| s.seconds).collect::<Vec<_>>(), [-5.0, 60.0]);
        assert_eq!(steps[0].at, at);
        assert_eq!(clock.take_steps(), []);
        for _ in 0..100 {
            fake.step(1000);
            clock.now();
            fake.step(-1000);
            clock.now();
        }
        assert_eq!(clock.take_steps(), []);
        for _ in 0..100 {
            fake.step(9000);
            clock.now();
        }
        assert_eq!(clock.take_steps().len(), STEPS_MAX);
    }

    #[test]
    fn a_floor_from_an_earlier_run_is_held() {
        let (fake, clock) = start(1_000);
        clock.not_before(Timestamp::from_millis(5_000));
        assert_eq!(ms(&clock), 5_000);
        clock.not_before(Timestamp::from_millis(2_000));
        fake.pass(1000);
        assert_eq!(ms(&clock), 5_900);
        fake.pass(100_000);
        assert_eq!(ms(&clock), 102_000);
    }

    #[test]
    fn the_machine_has_these_clocks() {
        let clock = SystemClock::new();
        let (a, b) = (clock.now(), clock.now());
        assert!(a <= b && a > Timestamp::from_secs(1_500_000_000));
    }
}
