//! How good the announced time is, on seeded leaks: a line with noise, seen every 10 s (or every minute).

#[path = "support/world.rs"]
#[allow(dead_code, reason = "each test of this crate uses a part of it")]
mod world;

use forewarn_schemas::{Batch, ForecastState, Timestamp};
use world::{Dice, World, labels};

struct Leak {
    seconds: f64,
    noise: f64,
    walk: bool,
    every: i64,
}

/// Plays a leak from 2 % to the limit; returns (share of its time at which it was called, error at half time as a share
/// of the time that was left then, whether the 80 % interval held).
fn play(leak: &Leak, seed: u64) -> (f64, f64, bool) {
    let mut world = World::new();
    let mut dice = Dice(seed);
    let limit = 100_000.0;
    let slope = 0.98 * limit / leak.seconds;
    let start = world.now;
    let (mut called, mut wander) = (None, 0.0);
    loop {
        let t = (world.now - start) as f64;
        if t >= leak.seconds / 2.0 {
            break;
        }
        if (world.now - start) % leak.every == 0 {
            let step = leak.noise * limit * dice.normal();
            wander = if leak.walk { wander + step } else { step };
            let mut batch = Batch::default();
            let ts = Timestamp::from_secs(world.now);
            batch.push(labels(r#"beam_processes{node="a"}"#), ts, 0.02 * limit + slope * t + wander);
            batch.push(labels(r#"beam_processes_limit{node="a"}"#), ts, limit);
            world.observe(&batch);
        }
        world.evaluate();
        if called.is_none() && world.forecast("a/processes").is_some_and(|f| f.state == ForecastState::Critical) {
            called = Some(t / leak.seconds);
        }
        world.now += 10;
    }
    let f = world.forecast("a/processes").expect("it has samples");
    let seen = (f.at.as_millis() / 1000 - start) as f64;
    let left = (limit - 0.02 * limit - slope * seen - if leak.walk { wander } else { 0.0 }) / slope;
    let t = f.time_to_exhaustion;
    let error = t.p50.map_or(1.0, |p| (p - left).abs() / left);
    let inside = t.p10.is_some_and(|p| p <= left) && t.p90.is_none_or(|p| p >= left);
    (called.unwrap_or(1.0), error, inside)
}

#[test]
fn leaks_are_called_before_half_time_with_a_time_within_a_fifth() {
    let kinds = [
        ("5 min, clean", Leak { seconds: 300.0, noise: 0.001, walk: false, every: 10 }),
        ("30 min, noise 0.2 %", Leak { seconds: 1_800.0, noise: 0.002, walk: false, every: 10 }),
        ("30 min, noise 2 %", Leak { seconds: 1_800.0, noise: 0.02, walk: false, every: 10 }),
        ("2 h, noise 1 %", Leak { seconds: 7_200.0, noise: 0.01, walk: false, every: 10 }),
        ("2 h, random walk 0.1 %", Leak { seconds: 7_200.0, noise: 0.001, walk: true, every: 10 }),
        ("5 h, noise 1 %, every minute", Leak { seconds: 18_000.0, noise: 0.01, walk: false, every: 60 }),
    ];
    let runs = 20;
    for (name, leak) in kinds {
        let (mut calls, mut errors, mut covered) = (Vec::new(), Vec::new(), 0);
        for seed in 0..runs {
            let (called, error, inside) = play(&leak, seed);
            calls.push(called);
            errors.push(error);
            covered += usize::from(inside);
        }
        calls.sort_by(f64::total_cmp);
        errors.sort_by(f64::total_cmp);
        let n = runs as usize;
        println!(
            "{name:30} called at {:.0} % of the time (worst {:.0} %); error at half time: median {:.1} %, 90 % {:.1} %, worst {:.1} %; interval held {covered} of {n}",
            100.0 * calls[n / 2],
            100.0 * calls[n - 1],
            100.0 * errors[n / 2],
            100.0 * errors[n * 9 / 10],
            100.0 * errors[n - 1],
        );
        assert!(calls[n - 1] < 0.5, "{name}: called at {:.2} of the time", calls[n - 1]);
        assert!(errors[n * 9 / 10] <= 0.2, "{name}: 90 % of the errors are below {:.2}", errors[n * 9 / 10]);
        assert!(covered * 10 >= n * 6, "{name}: the 80 % interval held {covered} of {n}");
    }
}
