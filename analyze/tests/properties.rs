//! Whatever comes in, what goes out makes sense, and an interruption changes nothing.

#[path = "support/world.rs"]
#[allow(dead_code, reason = "each test of this crate uses a part of it")]
mod world;

use forewarn_schemas::{Batch, Forecast, ForecastState, Horizon, Sample, SeriesSamples, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use world::{World, labels};

const SERIES: [&str; 10] = [
    r#"beam_processes{node="a"}"#,
    r#"beam_processes_limit{node="a"}"#,
    r#"beam_start_time_seconds{node="a"}"#,
    r#"node_filesystem_avail_bytes{instance="b",mountpoint="/",device="d"}"#,
    r#"node_filesystem_size_bytes{instance="b",mountpoint="/",device="d"}"#,
    r#"host_cgroup_memory_used_bytes{node="a",cgroup="/x"}"#,
    r#"host_cgroup_memory_limit_bytes{node="a",cgroup="/x"}"#,
    r#"host_cgroup_memory_oom_kill_total{node="a",cgroup="/x"}"#,
    r#"beam_up{node="a"}"#,
    r#"beam_ets_tables{node="a"}"#,
];

/// Values as they come, and as nobody would send them.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => 0.0..2000.0,
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => proptest::sample::select(vec![
            0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 1e300, -1e300, 1e18, -1e18, 5e-324,
            f64::from_bits(0x7ff0_0000_0000_0002),
        ]),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    /// One series gets values at distances (in ms) from now: late, twice, ahead.
    Odd(usize, Vec<(i64, f64)>),
    /// One series climbs for so many samples from a value by a slope.
    Climb(usize, u8, f64, f64),
    /// Time passes with nothing.
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let time = prop_oneof![4 => -30_000i64..30_000, 1 => any::<i64>()];
    prop_oneof![
        3 => (0..SERIES.len(), prop::collection::vec((time, value()), 1..6)).prop_map(|(s, v)| Step::Odd(s, v)),
        3 => (0..SERIES.len(), 1u8..40, 0.0..900.0, -20.0..40.0).prop_map(|(s, n, a, b)| Step::Climb(s, n, a, b)),
        1 => (1u16..2_000).prop_map(Step::Wait),
    ]
}

fn makes_sense(f: &Forecast, at: Timestamp) {
    let t = f.time_to_exhaustion;
    let times = [t.p10, t.p50, t.p90];
    for x in times.into_iter().flatten() {
        assert!(x.is_finite() && x >= 0.0, "{f:?}");
    }
    assert!(times.windows(2).all(|w| !matches!((w[0], w[1]), (Some(a), Some(b)) if a > b)), "{f:?}");
    assert!(times.windows(2).all(|w| w[0].is_some() || w[1].is_none()), "{f:?}");
    let p = Horizon::ALL.map(|h| f.probability.within(h));
    assert!(p.iter().all(|p| (0.0..=1.0).contains(p)), "{f:?}");
    assert!(p.windows(2).all(|w| w[0] <= w[1]), "{f:?}");
    for x in [f.used, f.limit, f.used_ratio, f.error_ratio].into_iter().flatten() {
        assert!(x.is_finite(), "{f:?}");
    }
    if let Some(s) = f.slope {
        assert!(s.low <= s.per_second && s.per_second <= s.high, "{f:?}");
        assert!([s.low, s.per_second, s.high].iter().all(|x| x.is_finite()), "{f:?}");
    }
    if !f.models.is_empty() {
        let sum: f64 = f.models.values().sum();
        assert!((sum - 1.0).abs() < 1e-9 && f.models.values().all(|w| (0.0..=1.0).contains(w)), "{f:?}");
    }
    assert!(f.at <= at && !f.sentence.is_empty());
    if f.state == ForecastState::Exhausted {
        assert_eq!(t.p50, Some(0.0), "{f:?}");
    }
    if f.limit.is_none() && !f.harm {
        assert!(t.p50.is_none() && f.state != ForecastState::Critical, "{f:?}");
    }
}

fn play(steps: &[Step]) {
    let mut world = World::new();
    let check = |world: &mut World| {
        let e = world.evaluate();
        assert!(e.changed.windows(2).all(|w| w[0].key < w[1].key));
        assert!(e.gone.windows(2).all(|w| w[0] < w[1]));
        for f in world.analyzer.forecasts() {
            makes_sense(f, e.at);
        }
        let shown = world.analyzer.forecasts().count();
        assert_eq!(world.analyzer.counts().values().sum::<usize>(), shown);
    };
    for step in steps {
        match step {
            Step::Odd(series, values) => {
                let now = Timestamp::from_secs(world.now).as_millis();
                let samples = values
                    .iter()
                    .map(|(d, v)| Sample { ts: Timestamp::from_millis(now.saturating_add(*d)), value: *v })
                    .collect();
                world.observe(&Batch { series: vec![SeriesSamples { labels: labels(SERIES[*series]), samples }] });
                world.now += 10;
                check(&mut world);
            }
            Step::Climb(series, n, from, slope) => {
                for i in 0..*n {
                    let mut batch = Batch::default();
                    let ts = Timestamp::from_secs(world.now);
                    batch.push(labels(SERIES[*series]), ts, from + slope * f64::from(i));
                    batch.push(labels(SERIES[1]), ts, 1_000.0);
                    batch.push(labels(SERIES[6]), ts, 1_000.0);
                    world.observe(&batch);
                    world.now += 10;
                    check(&mut world);
                }
            }
            Step::Wait(n) => {
                world.now += i64::from(*n) * 10;
                check(&mut world);
            }
        }
    }
}

/// `FOREWARN_CASES` and `FOREWARN_SEED` make a campaign of it.
#[test]
fn what_goes_out_makes_sense() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (cases, seed) = (number("FOREWARN_CASES", 96) as u32, number("FOREWARN_SEED", 1));
    println!("{cases} cases, seed {seed}");
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let steps = prop::collection::vec(step(), 1..40);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        play(&steps);
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("seed {seed}: {e}");
    }
}

#[test]
fn a_page_never_comes_from_nonsense() {
    // Limits of zero, below the use, negative, absurd or missing; two points; constants; time that stands still.
    for (limit, value) in [(0.0, 10.0), (-5.0, 10.0), (1e300, 10.0), (f64::NAN, 10.0), (100.0, f64::NAN), (100.0, -1e9)]
    {
        let mut world = World::new();
        for i in 0..60 {
            let mut batch = Batch::default();
            let ts = Timestamp::from_secs(world.now);
            batch.push(labels(SERIES[0]), ts, value);
            batch.push(labels(SERIES[1]), ts, limit);
            world.observe(&batch);
            world.now += if i % 7 == 0 { 0 } else { 10 };
            if world.now % 10 == 0 {
                world.evaluate();
            }
        }
        for f in world.analyzer.forecasts() {
            assert!(f.state < ForecastState::Rising, "limit {limit}, value {value}: {}", f.sentence);
        }
    }
}
