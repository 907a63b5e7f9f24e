//! The words of an alert: what, where, how much, how fast, when, how sure and why, for someone who was asleep.

use std::collections::BTreeMap;

use forewarn_schemas::units::{humane_bytes, humane_duration, humane_number};
use forewarn_schemas::{Direction, Forecast, ForecastState, Horizon, Timestamp};

use super::check::Refusal;

type Annotations = BTreeMap<String, String>;

/// For critical, exhausted and rising.
pub(super) fn exhaustion(f: &Forecast) -> Annotations {
    let when = when(f);
    let what = subject(f);
    let summary = match f.state {
        ForecastState::Exhausted if f.harm => format!("{what} is exhausted and is doing harm{}", brackets(f)),
        ForecastState::Exhausted => format!("{what} is exhausted{}", brackets(f)),
        _ => match &when {
            Some(when) => format!("{what} will be exhausted {when}"),
            None => format!("{what} is running out{}", brackets(f)),
        },
    };
    let mut out = numbers(f);
    let mut say = Sentences::default();
    say.add(amount(f));
    say.add(speed(f));
    if f.state == ForecastState::Exhausted {
        say.add(Some(if f.harm {
            "It is exhausted: harm was seen, such as refused or killed work".into()
        } else {
            "Its limit is reached in effect".into()
        }));
    } else if let (Some(when), Some(at)) = (&when, predicted_at(f)) {
        say.add(Some(format!("At this pace it reaches the limit {when}, at {at}")));
    }
    say.add(Some(chances(f)));
    say.add((!f.sentence.is_empty()).then(|| format!("Why: {}", f.sentence.trim_end_matches('.'))));
    say.add(Some(rests_on(f)));
    out.insert("summary".into(), summary);
    out.insert("description".into(), say.0);
    out
}

/// For a static level.
pub(super) fn level(f: &Forecast, name: &str) -> Annotations {
    let mut out = numbers(f);
    out.insert("level".into(), name.into());
    out.insert("summary".into(), format!("{} has passed its {name} level{}", subject(f), brackets(f)));
    let mut say = Sentences::default();
    say.add(amount(f));
    say.add(speed(f));
    say.add(Some("This is a fixed level, not a forecast: it never pages by itself".into()));
    out.insert("description".into(), say.0);
    out
}

/// For samples that stopped.
pub(super) fn data_missing(f: &Forecast) -> Annotations {
    let mut out = numbers(f);
    let age = humane_duration(f.at.seconds_since(f.saw.last));
    out.insert("summary".into(), format!("{} has sent no data for {age} while it was running out", subject(f)));
    let mut say = Sentences::default();
    say.add(Some(format!("The last sample is of {}", f.saw.last.rfc3339())));
    say.add(amount(f).map(|a| format!("Then: {a}")));
    say.add(when(f).map(|w| format!("Before the data stopped, it was to be exhausted {w}")));
    say.add(Some("What was said of it before is held until data comes again".into()));
    out.insert("description".into(), say.0);
    out
}

/// For a forecast that was refused.
pub(super) fn refused(f: &Forecast, refusal: &Refusal) -> Annotations {
    let mut out = Annotations::new();
    let what = subject(f);
    out.insert("summary".into(), format!("{what}: the forecast makes no sense and is not used"));
    out.insert(
        "description".into(),
        format!(
            "Its {} {}. What was said of {what} before is held. This is a fault of forewarn.",
            refusal.what, refusal.why
        ),
    );
    out
}

/// For a node that does not answer.
pub(super) fn node_down(node: &str, since: Timestamp, configured: bool) -> Annotations {
    let mut out = Annotations::new();
    let since = since.rfc3339();
    let why = if configured {
        "It is named in the configuration, so somebody expects it to be up"
    } else {
        "It was only discovered, so it may have been stopped on purpose"
    };
    out.insert("summary".into(), format!("node {node} is down since {since}"));
    out.insert("description".into(), format!("{node} has not answered since {since}. {why}."));
    out.insert("state".into(), "down".into());
    out
}

/// Returns a URL of forewarn's own page, or its path when `external_url` is empty.
pub(super) fn page_url(external_url: &str, query: &[(&str, &str)]) -> String {
    let mut out = format!("{}/", external_url.trim_end_matches('/'));
    let mut sign = '?';
    for (name, value) in query.iter().filter(|(_, v)| !v.is_empty()) {
        out.push(sign);
        out.push_str(name);
        out.push('=');
        for b in value.bytes() {
            match b {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
                _ => out.push_str(&format!("%{b:02X}")),
            }
        }
        sign = '&';
    }
    out
}

#[derive(Default)]
struct Sentences(String);

impl Sentences {
    fn add(&mut self, sentence: Option<String>) {
        if let Some(s) = sentence.filter(|s| !s.is_empty()) {
            let gap = if self.0.is_empty() { "" } else { " " };
            self.0.push_str(&format!("{gap}{s}."));
        }
    }
}

/// `db1: memory` or `db1: disk /var`.
fn subject(f: &Forecast) -> String {
    if (f.key.resource.as_str(), f.key.object.as_str()) == ("mailbox", "unregistered") {
        return format!("{}: the longest mailbox of processes without a name", f.key.node);
    }
    let space = if f.key.object.is_empty() { "" } else { " " };
    format!("{}: {}{space}{}", f.key.node, f.key.resource, f.key.object)
}

fn quantity(f: &Forecast, n: f64) -> String {
    if f.unit == "bytes" { humane_bytes(n) } else { format!("{} {}", humane_number(n), f.unit).trim_end().to_owned() }
}

fn percent(ratio: f64) -> String {
    format!("{:.0} %", (ratio * 100.0).floor())
}

/// ` (7.9 GiB of 8.0 GiB, 98 %)`, or nothing when nothing is known.
fn brackets(f: &Forecast) -> String {
    let share = f.used_ratio.map(percent);
    let text = match (f.used, f.limit, f.direction) {
        (Some(u), Some(l), Direction::Up) => Some(format!("{} of {}", quantity(f, u), quantity(f, l))),
        (Some(u), _, Direction::Down) => Some(format!("{} left", quantity(f, u))),
        (Some(u), None, Direction::Up) => Some(quantity(f, u)),
        (None, ..) => None,
    };
    match (text, share) {
        (Some(t), Some(s)) => format!(" ({t}, {s})"),
        (Some(t), None) | (None, Some(t)) => format!(" ({t})"),
        (None, None) => String::new(),
    }
}

fn amount(f: &Forecast) -> Option<String> {
    let used = quantity(f, f.used?);
    let share = f.used_ratio.map(|r| format!(" ({})", percent(r))).unwrap_or_default();
    let what = subject(f);
    Some(match (f.direction, f.limit) {
        (Direction::Up, Some(limit)) => format!("{what} is at {used} of {}{share}", quantity(f, limit)),
        (Direction::Up, None) => format!("{what} is at {used}{share}"),
        (Direction::Down, Some(l)) if l != 0.0 => format!("{what} has {used} left, its limit is {}", quantity(f, l)),
        (Direction::Down, _) => format!("{what} has {used} left"),
    })
}

/// `It grows by 2.4 MiB per second (between 2.1 MiB and 2.8 MiB)`, in the shortest time in which it is one unit.
fn speed(f: &Forecast) -> Option<String> {
    let slope = f.slope?;
    let per = [("second", 1.0), ("minute", 60.0), ("hour", 3_600.0), ("day", 86_400.0)];
    let at_least_one = |(_, s): &&(&str, f64)| slope.per_second.abs() * s >= 1.0;
    let (name, seconds) = per.iter().find(at_least_one).unwrap_or(&per[3]);
    let verb = match (f.direction, slope.per_second >= 0.0) {
        (Direction::Up, true) | (Direction::Down, false) => "grows",
        (Direction::Up, false) | (Direction::Down, true) => "falls",
    };
    let [by, low, high] = [slope.per_second.abs(), slope.low, slope.high].map(|v| quantity(f, v * seconds));
    Some(format!("It {verb} by {by} per {name} (between {low} and {high})"))
}

/// `in about 12m, between 10m and 15m`; `None` when no course reaches the limit.
fn when(f: &Forecast) -> Option<String> {
    let t = f.time_to_exhaustion;
    let [p10, p50, p90] = [t.p10, t.p50, t.p90].map(|s| s.map(humane_duration));
    match (p10, p50, p90) {
        (Some(a), Some(m), Some(b)) => Some(format!("in about {m}, between {a} and {b}")),
        (Some(a), Some(m), None) => Some(format!("in about {m}, in {a} at the earliest, perhaps much later")),
        (None, Some(m), Some(b)) => Some(format!("in about {m}, in {b} at the latest")),
        (None, Some(m), None) => Some(format!("in about {m}")),
        (Some(a), None, _) => Some(format!("perhaps, and in {a} at the earliest")),
        (None, None, Some(b)) => Some(format!("in {b} at the latest")),
        (None, None, None) => None,
    }
}

fn predicted_at(f: &Forecast) -> Option<String> {
    f.time_to_exhaustion.p50.map(|s| f.at.plus_secs_f64(s).rfc3339())
}

fn chances(f: &Forecast) -> String {
    let each: Vec<String> = Horizon::ALL
        .iter()
        .map(|h| format!("{} within {}", percent(f.probability.within(*h).clamp(0.0, 1.0) + 1e-9), h.as_str()))
        .collect();
    format!("Chance: {}", each.join(", "))
}

fn rests_on(f: &Forecast) -> String {
    let models = models(f);
    let models = if models.is_empty() { String::new() } else { format!(" (models: {models})") };
    let error = f.error_ratio.map(|e| format!("; its past forecasts were off by {} in the middle", percent(e)));
    let (samples, since) = (f.saw.samples, f.saw.since.rfc3339());
    format!("It rests on {samples} samples since {since}{models}{}", error.unwrap_or_default())
}

/// `line 80 %, flat 20 %`, heaviest first, those that round to nothing left out.
fn models(f: &Forecast) -> String {
    let mut weights: Vec<(&str, f64)> = f.models.iter().map(|(n, w)| (n.as_str(), *w)).collect();
    weights.retain(|(_, w)| *w >= 0.01);
    weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    weights.iter().map(|(n, w)| format!("{n} {}", percent(w + 1e-9))).collect::<Vec<_>>().join(", ")
}

/// The numbers one by one, for templates and machines.
fn numbers(f: &Forecast) -> Annotations {
    let mut out = Annotations::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(v) = value.filter(|v| !v.is_empty()) {
            out.insert(name.to_owned(), v);
        }
    };
    put("state", Some(f.state.as_str().into()));
    put("value", f.used.map(|v| quantity(f, v)));
    put("limit", f.limit.map(|v| quantity(f, v)));
    put("used_ratio", f.used_ratio.map(|r| format!("{r:.4}")));
    put("slope_per_second", f.slope.map(|s| s.per_second.to_string()));
    put("time_to_exhaustion", when(f));
    let t = f.time_to_exhaustion;
    for (quantile, seconds) in [("p10", t.p10), ("p50", t.p50), ("p90", t.p90)] {
        put(&format!("time_to_exhaustion_{quantile}_seconds"), seconds.map(|s| format!("{s:.0}")));
    }
    put("predicted_at", predicted_at(f));
    for horizon in Horizon::ALL {
        put(&format!("probability_{}", horizon.as_str()), Some(format!("{:.3}", f.probability.within(horizon))));
    }
    put("why", Some(f.sentence.clone()));
    put("models", Some(models(f)));
    put("samples", Some(f.saw.samples.to_string()));
    put("since", Some(f.saw.since.rfc3339()));
    put("error_ratio", f.error_ratio.map(|e| format!("{e:.3}")));
    put("forecast_at", Some(f.at.rfc3339()));
    out
}
