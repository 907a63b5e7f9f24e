//! How long to wait before another attempt.
//!
//! # Source
//! "Full jitter": Marc Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog, 2015: the wait is uniform
//! between zero and the exponential bound, which spreads the clients that failed together.

use std::time::Duration;

use rand::Rng;

use super::Retry;

/// Bound of the first wait.
const FIRST: Duration = Duration::from_secs(1);
/// Bound of every wait: when a receiver is back, the page is out within a minute.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest wait that a receiver may ask for.
pub const ASKED_MAX: Duration = Duration::from_secs(3600);

/// Returns how long to wait after `attempts` failures (at least 1); `None` means that there is no other attempt.
pub fn wait(retry: Retry, attempts: u32, rng: &mut impl Rng) -> Option<Duration> {
    match retry {
        Retry::Never => None,
        Retry::After(asked) => Some(asked.min(ASKED_MAX)),
        Retry::Backoff => {
            let doublings = attempts.saturating_sub(1).min(16);
            let bound = FIRST.saturating_mul(1 << doublings).min(WAIT_MAX);
            // Never zero: two attempts in the same millisecond would tell nobody anything.
            Some(Duration::from_millis(rng.random_range(1..=bound.as_millis() as u64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn grows_to_a_minute_and_is_spread() {
        let mut rng = SmallRng::seed_from_u64(1);
        for attempts in [1, 2, 3, 7, 100, u32::MAX] {
            let bound = (1u64 << (attempts - 1).min(6)).min(60) * 1000;
            let waits: Vec<u64> =
                (0..500).map(|_| wait(Retry::Backoff, attempts, &mut rng).unwrap().as_millis() as u64).collect();
            assert!(waits.iter().all(|w| (1..=bound).contains(w)), "after {attempts}");
            assert!(waits.iter().any(|w| *w < bound / 4) && waits.iter().any(|w| *w > bound * 3 / 4));
        }
    }

    #[test]
    fn what_the_receiver_asks_for_is_kept_within_reason() {
        let mut rng = SmallRng::seed_from_u64(1);
        assert_eq!(wait(Retry::After(Duration::from_secs(90)), 1, &mut rng), Some(Duration::from_secs(90)));
        assert_eq!(wait(Retry::After(Duration::from_secs(1 << 40)), 1, &mut rng), Some(ASKED_MAX));
        assert_eq!(wait(Retry::Never, 1, &mut rng), None);
    }
}
