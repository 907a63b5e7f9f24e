//! From YAML to entries, with every mistake.

use std::time::Duration;

use forewarn_schemas::{Direction, ResourceKind, Selector, units};
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Entry, Harm, LimitSource, Resets, Restart};
use crate::error::CatalogueError;

/// How long before exhaustion a person wants to know, unless the entry says otherwise.
const LEAD: Duration = Duration::from_secs(3 * 3600);
/// How long an elastic resource must stay full, unless the entry says otherwise: it may yet be reclaimed.
const ELASTIC_FULL: Duration = Duration::from_secs(300);
const MINOR: f64 = 0.70;
const MAJOR: f64 = 0.85;
const HARM_MAX: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    up: Vec<String>,
    #[serde(default)]
    resources: Vec<Spanned<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    resource: String,
    unit: String,
    kind: ResourceKind,
    #[serde(default)]
    direction: Direction,
    used: String,
    limit: Option<Value>,
    capacity: Option<String>,
    #[serde(default)]
    object: Vec<String>,
    on: Option<Vec<String>>,
    #[serde(default)]
    harm: Vec<Value>,
    harm_on: Option<Vec<String>>,
    minor: Option<f64>,
    major: Option<f64>,
    full_for: Option<String>,
    lead: Option<String>,
    #[serde(default)]
    resets: RawResets,
    scales_with: Option<String>,
    restart: Option<Value>,
    restart_on: Option<Vec<String>>,
    #[serde(default = "yes")]
    enabled: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum RawResets {
    Never,
    Rare,
    #[default]
    Some,
    Usual,
}

fn yes() -> bool {
    true
}

/// Reads a file: its entries with whether they are enabled, and its `up` selectors.
pub(super) fn parse(text: &str) -> Result<(Vec<(Entry, bool)>, Vec<Selector>), Vec<CatalogueError>> {
    if text.trim().is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let file: File = serde_saphyr::from_str(text).map_err(|e| {
        let line = e.location().map(|l| l.line() as usize);
        vec![CatalogueError { line, resource: String::new(), reason: first_line(&e.to_string()) }]
    })?;
    let mut errors = Vec::new();
    let mut up = Vec::new();
    for text in &file.up {
        match text.parse() {
            Ok(selector) => up.push(selector),
            Err(reason) => errors.push(CatalogueError { line: None, resource: String::new(), reason }),
        }
    }
    let mut entries: Vec<(Entry, bool)> = Vec::new();
    for spanned in file.resources {
        let line = Some(spanned.referenced.line() as usize);
        let resource = spanned.value.get("resource").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut reasons = Vec::new();
        match serde_json::from_value::<Raw>(spanned.value) {
            Ok(raw) => {
                let enabled = raw.enabled;
                let entry = build(raw, &mut reasons);
                if let Some(entry) = entry.filter(|_| reasons.is_empty()) {
                    if entries.iter().any(|(e, _)| e.id() == entry.id()) {
                        reasons.push("is there twice with the same used selector".into());
                    }
                    entries.push((entry, enabled));
                }
            }
            Err(e) => reasons.push(first_line(&e.to_string())),
        }
        errors.extend(reasons.into_iter().map(|reason| CatalogueError { line, resource: resource.clone(), reason }));
    }
    if errors.is_empty() { Ok((entries, up)) } else { Err(errors) }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn build(raw: Raw, reasons: &mut Vec<String>) -> Option<Entry> {
    let word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !word(&raw.resource) {
        reasons.push("its name may have lower-case letters, digits and _ only".into());
    }
    if raw.unit.trim().is_empty() {
        reasons.push("unit is empty".into());
    }
    let used = selector("used", &raw.used, reasons);
    let limit = match &raw.limit {
        None | Some(Value::Null) => LimitSource::None,
        Some(Value::Number(n)) => LimitSource::Constant(n.as_f64().unwrap_or(f64::NAN)),
        Some(Value::String(text)) => selector("limit", text, reasons).map_or(LimitSource::None, LimitSource::Series),
        Some(_) => {
            reasons.push("limit is neither a selector nor a number".into());
            LimitSource::None
        }
    };
    if let LimitSource::Constant(n) = limit
        && (!n.is_finite() || n < 0.0 || (n == 0.0 && raw.direction == Direction::Up))
    {
        reasons.push(format!("limit {n} cannot be reached"));
    }
    let forecast = matches!(raw.kind, ResourceKind::Hard | ResourceKind::Elastic);
    if forecast && limit == LimitSource::None {
        reasons.push("a hard or elastic resource needs a limit".into());
    }
    let capacity = raw.capacity.as_deref().and_then(|text| selector("capacity", text, reasons));
    if capacity.is_some() && raw.direction == Direction::Up {
        reasons.push("capacity is for direction down; upwards the limit is the whole".into());
    }
    let default_levels = forecast && (raw.direction == Direction::Up || capacity.is_some());
    let minor = raw.minor.or(default_levels.then_some(MINOR));
    let major = raw.major.or(default_levels.then_some(MAJOR));
    for (name, level) in [("minor", minor), ("major", major)] {
        if level.is_some_and(|l| !(l > 0.0 && l <= 1.0)) {
            reasons.push(format!("{name} must be above 0 and at most 1"));
        }
    }
    if matches!((minor, major), (Some(a), Some(b)) if a > b) {
        reasons.push("minor is above major".into());
    }
    let lead = match raw.lead.as_deref().map(units::parse_duration) {
        None => LEAD,
        Some(Ok(d)) if !d.is_zero() => d,
        Some(Ok(_)) => {
            reasons.push("lead is zero".into());
            LEAD
        }
        Some(Err(reason)) => {
            reasons.push(format!("lead: {reason}"));
            LEAD
        }
    };
    let full_for = match raw.full_for.as_deref().map(units::parse_duration) {
        None if raw.kind == ResourceKind::Elastic => ELASTIC_FULL,
        None => Duration::ZERO,
        Some(Ok(d)) => d,
        Some(Err(reason)) => {
            reasons.push(format!("full_for: {reason}"));
            Duration::ZERO
        }
    };
    if raw.harm.len() > HARM_MAX {
        reasons.push(format!("more than {HARM_MAX} harm selectors"));
    }
    let harm = raw.harm.iter().filter_map(|value| harm_of(value, reasons)).collect();
    let restart = raw.restart.as_ref().and_then(|value| restart_of(value, reasons));
    let on = raw.on.unwrap_or_else(|| std::iter::once("node".to_owned()).chain(raw.object.clone()).collect());
    let harm_on = raw.harm_on.unwrap_or_else(|| on.clone());
    let restart_on = raw.restart_on.unwrap_or_else(|| vec!["node".to_owned()]);
    for (name, labels) in [("on", &on), ("harm_on", &harm_on), ("restart_on", &restart_on)] {
        if !labels.iter().any(|l| l == "node") {
            reasons.push(format!("{name} must hold node: nothing is paired across nodes"));
        }
    }
    Some(Entry {
        resource: raw.resource,
        unit: raw.unit,
        kind: raw.kind,
        direction: raw.direction,
        used: used?,
        limit,
        capacity,
        object: raw.object,
        on,
        harm,
        harm_on,
        minor,
        major,
        full_for,
        lead,
        resets: match raw.resets {
            RawResets::Never => Resets::Never,
            RawResets::Rare => Resets::Rare,
            RawResets::Some => Resets::Some,
            RawResets::Usual => Resets::Usual,
        },
        scales_with: raw.scales_with,
        restart,
        restart_on,
    })
}

fn selector(name: &str, text: &str, reasons: &mut Vec<String>) -> Option<Selector> {
    text.parse().map_err(|reason| reasons.push(format!("{name}: {reason}"))).ok()
}

/// Reads `{word: selector}` with one of two words, or a bare selector.
fn worded<'v>(
    field: &str,
    words: [&str; 2],
    value: &'v Value,
    reasons: &mut Vec<String>,
) -> Option<(Option<usize>, &'v str)> {
    if let Value::String(text) = value {
        return Some((None, text));
    }
    let single = value.as_object().filter(|m| m.len() == 1).and_then(|m| m.iter().next());
    let found = single.and_then(|(k, v)| Some((words.iter().position(|w| w == k)?, v.as_str()?)));
    if found.is_none() {
        reasons.push(format!("{field} is neither a selector nor {{{}: …}} nor {{{}: …}}", words[0], words[1]));
    }
    found.map(|(i, text)| (Some(i), text))
}

fn harm_of(value: &Value, reasons: &mut Vec<String>) -> Option<Harm> {
    let (word, text) = worded("harm", ["counter", "gauge"], value, reasons)?;
    let s = selector("harm", text, reasons)?;
    let counter = match word {
        Some(i) => i == 0,
        None => s.metric().is_some_and(|m| m.ends_with("_total")),
    };
    Some(if counter { Harm::Counter(s) } else { Harm::Gauge(s) })
}

fn restart_of(value: &Value, reasons: &mut Vec<String>) -> Option<Restart> {
    let (word, text) = worded("restart", ["uptime", "start"], value, reasons)?;
    let s = selector("restart", text, reasons)?;
    let uptime = match word {
        Some(i) => i == 0,
        None => s.metric().is_some_and(|m| m.contains("uptime")),
    };
    Some(if uptime { Restart::Uptime(s) } else { Restart::Start(s) })
}
