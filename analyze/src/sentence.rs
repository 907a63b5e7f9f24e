//! One plain sentence about a resource, for a person.

use forewarn_schemas::units::{humane_bytes, humane_duration, humane_number};
use forewarn_schemas::{Direction, Forecast, ForecastState, ResourceKind, Timestamp};

use crate::screen::Cause;

/// What the sentence says beyond what the forecast holds.
pub(crate) struct Beside<'a> {
    pub cause: Cause,
    /// The metric that told of harm and when, when there is harm.
    pub harm: Option<(&'a str, Timestamp)>,
    /// Earlier climbs that explain this one.
    pub explaining: usize,
    pub received: Timestamp,
}

/// Writes the sentence.
pub(crate) fn sentence(f: &Forecast, beside: &Beside<'_>) -> String {
    let what = match (f.key.resource.as_str(), f.key.object.as_str()) {
        ("mailbox", "unregistered") => format!("the longest mailbox of processes without a name on {}", f.key.node),
        (resource, "") => format!("{} on {}", spaced(resource), f.key.node),
        (resource, object) => format!("{} of {object} on {}", spaced(resource), f.key.node),
    };
    let mut out = match f.state {
        ForecastState::Exhausted => exhausted(&what, f, beside),
        ForecastState::Critical | ForecastState::Rising => rising(&what, f, beside),
        ForecastState::Stale => format!("{what}: no samples since {}, last {}", clock(beside.received, f.at), level(f)),
        ForecastState::Unreliable => format!(
            "{what}: may be rising, but its forecasts have been off by {:.0} % of the time left; {} now",
            100.0 * f.error_ratio.unwrap_or_default(),
            level(f)
        ),
        ForecastState::Learning => format!(
            "{what}: {} now, learning since {}{}, seen {} {}",
            level(f),
            clock(f.saw.since, f.at),
            why(beside.cause),
            f.saw.samples,
            if f.saw.samples == 1 { "sample" } else { "samples" }
        ),
        ForecastState::Ok => ok(&what, f, beside),
    };
    let silent = f.at.seconds_since(beside.received);
    if silent > 60.0 && f.state > ForecastState::Stale {
        out.push_str(&format!("; no samples since {}", clock(beside.received, f.at)));
    }
    out
}

fn exhausted(what: &str, f: &Forecast, beside: &Beside<'_>) -> String {
    match beside.harm {
        Some((metric, when)) => {
            format!("{what} is exhausted: {metric} told of harm at {}; {} now", clock(when, f.at), level(f))
        }
        None => format!("{what} is exhausted: {} now", level(f)),
    }
}

fn rising(what: &str, f: &Forecast, beside: &Beside<'_>) -> String {
    let end = match f.limit {
        Some(limit) if f.direction == Direction::Up => format!("reach {}", amount(limit, &f.unit)),
        Some(limit) if limit > 0.0 => format!("fall to {}", amount(limit, &f.unit)),
        _ => "be used up".to_owned(),
    };
    let t = f.time_to_exhaustion;
    let when = match (t.p50, t.p10, t.p90) {
        (Some(p50), Some(p10), Some(p90)) => format!(
            "{what} will {end} in about {} (between {} and {})",
            humane_duration(p50),
            humane_duration(p10),
            humane_duration(p90)
        ),
        (Some(p50), Some(p10), None) => format!(
            "{what} will {end} in about {} (at the earliest {}), unless it ends by itself",
            humane_duration(p50),
            humane_duration(p10)
        ),
        _ => format!("{what} may {end}: {:.0} % likely within 7 days", 100.0 * f.probability.d7),
    };
    let slope = f.slope.map_or_else(String::new, |s| {
        let verb = match (f.direction, s.per_second >= 0.0) {
            (Direction::Up, true) => "growing",
            (Direction::Down, true) => "falling",
            (_, false) => "easing by",
        };
        format!(", {verb} {}", rate(s.per_second.abs(), &f.unit))
    });
    let seen = format!("seen {} samples", humane_number(f.saw.samples as f64));
    format!("{when}: {} now{slope} since {}{}, {seen}", level(f), clock(f.saw.since, f.at), why(beside.cause))
}

fn ok(what: &str, f: &Forecast, beside: &Beside<'_>) -> String {
    let level = level(f);
    match f.kind {
        ResourceKind::Bounded => format!("{what}: {level}; it lives at its limit by design"),
        ResourceKind::Pressure => format!("{what}: {level}"),
        _ if f.limit.is_none() => format!("{what}: {level}, no limit known"),
        _ if beside.explaining >= 2 => {
            format!("{what}: {level}, inside what {} earlier climbs did before they ended", beside.explaining)
        }
        _ => format!("{what}: {level}, nothing foreseen"),
    }
}

fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::FirstSeen => "",
        Cause::Restart => " (after a restart)",
        Cause::Reset => " (after it fell back)",
        Cause::LimitRaised => " (after the limit was raised)",
        Cause::LimitLowered => " (after the limit was lowered)",
        Cause::Gap => " (after a gap)",
        Cause::Source => " (from a new source)",
    }
}

/// `21,334 of 32,768`, or `12 GiB left of …`.
fn level(f: &Forecast) -> String {
    let Some(used) = f.used else { return "unknown".to_owned() };
    let share = match f.used_ratio {
        Some(r) => format!(" ({:.0} %)", 100.0 * r),
        None => String::new(),
    };
    match (f.direction, f.limit) {
        (Direction::Up, Some(limit)) => format!("{} of {}{share}", amount(used, &f.unit), amount(limit, &f.unit)),
        (Direction::Up, None) => amount(used, &f.unit),
        (Direction::Down, _) if share.is_empty() => format!("{} left", amount(used, &f.unit)),
        (Direction::Down, _) => format!("{} left{}", amount(used, &f.unit), share.replace(" %)", " % used)")),
    }
}

fn amount(value: f64, unit: &str) -> String {
    if unit == "bytes" { humane_bytes(value) } else { humane_number(value) }
}

/// A slope in the unit of time in which it is at least 1.
fn rate(per_second: f64, unit: &str) -> String {
    let (seconds, name) = [(1.0, "second"), (60.0, "minute"), (3_600.0, "hour")]
        .into_iter()
        .find(|(s, _)| per_second * s >= 1.0)
        .unwrap_or((86_400.0, "day"));
    format!("{} per {name}", amount(per_second * seconds, unit))
}

/// `10:42` of the same day (UTC), else with the date.
fn clock(t: Timestamp, at: Timestamp) -> String {
    let text = t.rfc3339();
    let (date, time) = (text.get(..10).unwrap_or_default(), text.get(11..16).unwrap_or_default());
    if at.rfc3339().starts_with(date) { format!("{time} UTC") } else { format!("{date} {time} UTC") }
}

fn spaced(name: &str) -> String {
    name.replace('_', " ")
}
