use forewarn_schemas::forecast::{Probabilities, Saw, Slope, TimeToExhaustion};
use forewarn_schemas::{Direction, ResourceKind};
use proptest::prelude::*;

use super::*;

fn forecast(state: ForecastState) -> Forecast {
    let at = Timestamp::from_secs(1_800_000_000);
    Forecast {
        key: ResourceKey { node: "db1".into(), resource: "memory".into(), object: String::new() },
        family: "shop".into(),
        kind: ResourceKind::Hard,
        direction: Direction::Up,
        unit: "bytes".into(),
        at,
        state,
        used: Some(6.0 * 1024.0 * 1024.0 * 1024.0),
        limit: Some(8.0 * 1024.0 * 1024.0 * 1024.0),
        used_ratio: Some(0.75),
        slope: Some(Slope { per_second: 2_982_616.0, low: 2_202_009.0, high: 3_565_158.0 }),
        time_to_exhaustion: TimeToExhaustion { p10: Some(600.0), p50: Some(720.0), p90: Some(900.0) },
        probability: Probabilities { m30: 0.98, h2: 0.99, h24: 0.99, d7: 1.0 },
        models: BTreeMap::from([("line".into(), 0.8), ("flat".into(), 0.2)]),
        saw: Saw { since: Timestamp::from_secs(1_799_990_000), samples: 240, last: at },
        error_ratio: Some(0.12),
        harm: false,
        level: None,
        sentence: "grows steadily since the restart".into(),
    }
}

fn names(f: &Forecast) -> Vec<(String, Severity)> {
    let alerts = alerts_for(f, "http://x").unwrap();
    alerts.iter().map(|a| (a.labels.get("alertname").unwrap().to_owned(), a.severity())).collect()
}

#[test]
fn each_state_and_level_has_its_alert() {
    use ForecastState::*;
    for quiet in [Ok, Learning, Unreliable] {
        assert_eq!(names(&forecast(quiet)), []);
    }
    assert_eq!(names(&forecast(Rising)), [(RISING.into(), Severity::Info)]);
    assert_eq!(names(&forecast(Critical)), [(EXHAUSTION.into(), Severity::Critical)]);
    assert_eq!(names(&forecast(Exhausted)), [(EXHAUSTION.into(), Severity::Critical)]);
    let mut f = forecast(Ok);
    f.level = Some(Level::Minor);
    assert_eq!(names(&f), [(LEVEL.into(), Severity::Info)]);
    f.level = Some(Level::Major);
    assert_eq!(names(&f), [(LEVEL.into(), Severity::Warning)]);
}

#[test]
fn exhausted_is_the_same_alert_as_critical() {
    let labels = |s| alerts_for(&forecast(s), "").unwrap()[0].labels.clone();
    assert_eq!(labels(ForecastState::Critical), labels(ForecastState::Exhausted));
    assert_eq!(
        labels(ForecastState::Critical).to_string(),
        r#"{alertname="ResourceExhaustion",family="shop",node="db1",resource="memory",severity="critical"}"#
    );
}

#[test]
fn missing_data_is_an_alert_of_its_own_and_holds_the_other() {
    let mut f = forecast(ForecastState::Stale);
    assert_eq!(names(&f), [(DATA_MISSING.into(), Severity::Warning)]);
    f.time_to_exhaustion = TimeToExhaustion::default();
    assert_eq!(names(&f), [], "stale, but nothing was foreseen");
    let mut f = forecast(ForecastState::Critical);
    f.at = f.at + DATA_MISSING_AFTER;
    assert_eq!(names(&f), [(EXHAUSTION.into(), Severity::Critical), (DATA_MISSING.into(), Severity::Warning)]);
}

#[test]
fn the_text_says_what_when_how_sure_and_why() {
    let alert = &alerts_for(&forecast(ForecastState::Critical), "https://fw.example/").unwrap()[0];
    let get = |n: &str| alert.annotations[n].as_str();
    assert_eq!(get("summary"), "db1: memory will be exhausted in about 12m, between 10m and 15m");
    assert_eq!(
        get("description"),
        "db1: memory is at 6 GiB of 8 GiB (75 %). It grows by 2.84 MiB per second (between 2.10 MiB and 3.40 MiB). \
         At this pace it reaches the limit in about 12m, between 10m and 15m, at 2027-01-15T08:12:00.000Z. \
         Chance: 98 % within 30m, 99 % within 2h, 99 % within 24h, 100 % within 7d. \
         Why: grows steadily since the restart. \
         It rests on 240 samples since 2027-01-15T05:13:20.000Z (models: line 80 %, flat 20 %); \
         its past forecasts were off by 12 % in the middle."
    );
    assert_eq!(get("state"), "critical");
    assert_eq!(get("value"), "6 GiB");
    assert_eq!(get("limit"), "8 GiB");
    assert_eq!(get("slope_per_second"), "2982616");
    assert_eq!(get("time_to_exhaustion"), "in about 12m, between 10m and 15m");
    assert_eq!(get("predicted_at"), "2027-01-15T08:12:00.000Z");
    assert_eq!(get("probability_2h"), "0.990");
    assert_eq!(alert.generator_url, "https://fw.example/?node=db1&resource=memory");
}

#[test]
fn counts_other_directions_and_unknown_ends_read_well() {
    let mut f = forecast(ForecastState::Exhausted);
    f.key = ResourceKey { node: "n@h".into(), resource: "disk".into(), object: "/var lib".into() };
    f.direction = Direction::Down;
    f.unit = "inodes".into();
    (f.used, f.limit, f.used_ratio) = (Some(1500.0), Some(0.0), Some(0.999));
    f.slope = Some(Slope { per_second: 0.01, low: 0.005, high: 0.02 });
    f.time_to_exhaustion = TimeToExhaustion { p10: Some(60.0), p50: None, p90: None };
    let alert = &alerts_for(&f, "").unwrap()[0];
    assert_eq!(alert.annotations["summary"], "n@h: disk /var lib is exhausted (1,500 inodes left, 99 %)");
    assert!(alert.annotations["description"].contains("It falls by 36 inodes per hour (between 18 inodes"));
    assert_eq!(alert.annotations["time_to_exhaustion"], "perhaps, and in 1m at the earliest");
    assert_eq!(alert.generator_url, "/?node=n%40h&resource=disk&object=%2Fvar%20lib");
}

#[test]
fn an_absurd_forecast_means_nothing_and_holds_what_was_said() {
    let spoil: [(&str, fn(&mut Forecast)); 9] = [
        ("used", |f| f.used = Some(f64::NAN)),
        ("limit", |f| f.limit = Some(1e300)),
        ("error", |f| f.error_ratio = Some(f64::INFINITY)),
        ("slope", |f| f.slope = Some(Slope { per_second: f64::NAN, low: 0.0, high: 1.0 })),
        ("time", |f| f.time_to_exhaustion.p10 = Some(-1.0)),
        ("time", |f| f.time_to_exhaustion.p50 = Some(f64::NAN)),
        ("time", |f| f.time_to_exhaustion.p90 = Some(1.0)),
        ("probability", |f| f.probability.h24 = 0.5),
        ("weight", |f| f.models = BTreeMap::from([("x".into(), -0.5)])),
    ];
    for (what, spoil) in spoil {
        let mut f = forecast(ForecastState::Critical);
        spoil(&mut f);
        assert_eq!(alerts_for(&f, "").unwrap_err().what, what);
        let out = evaluate([&f], "");
        assert_eq!(out.held, [f.key.clone()]);
        assert_eq!(out.alerts.len(), 1);
        assert_eq!(out.alerts[0].labels.get("alertname"), Some(REFUSED));
        assert!(check::WHAT.contains(&what), "the metric has a series for it");
    }
}

#[test]
fn a_node_pages_only_if_a_person_named_it() {
    let since = Timestamp::from_secs(1_800_000_000);
    assert_eq!(node_down_alert("n", "f", since, true, "").severity(), Severity::Critical);
    let found = node_down_alert("n", "f", since, false, "http://x");
    assert_eq!((found.severity(), found.starts_at), (Severity::Warning, since));
    assert_eq!(found.generator_url, "http://x/?node=n");
    assert_eq!(node_down_alert(&"n".repeat(5000), "f", since, true, "").severity(), Severity::Critical, "still pages");
}

proptest! {
    #[test]
    fn whatever_the_numbers_no_nan_reaches_a_person(
        numbers in proptest::collection::vec(prop_oneof![any::<f64>(), 0.0..1.0f64, 0.0..1e6f64], 12),
        state in proptest::sample::select(ForecastState::ALL.to_vec()),
    ) {
        let mut f = forecast(state);
        f.used = Some(numbers[0]);
        f.limit = Some(numbers[1]);
        f.used_ratio = Some(numbers[2]);
        f.slope = Some(Slope { per_second: numbers[3], low: numbers[4], high: numbers[5] });
        f.time_to_exhaustion = TimeToExhaustion { p10: Some(numbers[6]), p50: Some(numbers[7]), p90: None };
        f.probability = Probabilities { m30: numbers[8], h2: numbers[9], h24: numbers[10], d7: 1.0 };
        f.error_ratio = Some(numbers[11]);
        for alert in evaluate([&f], "").alerts {
            if alert.labels.get("alertname") != Some(REFUSED) {
                for text in alert.annotations.values() {
                    prop_assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains("unknown"), "{text}");
                }
            }
        }
    }
}
