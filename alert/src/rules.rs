//! From forecasts to alerts. Pure: no clock, no state, no I/O.
//!
//! | state or level | alert | severity |
//! | --- | --- | --- |
//! | critical, exhausted | `ResourceExhaustion` | critical: pages |
//! | rising | `ResourceRising` | info: shown |
//! | samples have stopped while it was rising or worse | `ResourceDataMissing` | warning |
//! | static level major, minor | `ResourceLevel` | warning, info |
//! | the forecast makes no sense | `ForecastRefused` | warning |
//! | a node does not answer | `NodeDown` | critical if a person configured it, else warning |
//!
//! `critical` and `exhausted` have the same labels, so that they are one alert whose text changes: what was foreseen
//! and then happens is no resolve and no second incident. A refused forecast says nothing, so what was said before is
//! held ([`Evaluated::held`]).

mod check;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use forewarn_schemas::forecast::Level;
use forewarn_schemas::{Alert, Forecast, ForecastState, Labels, ResourceKey, Severity, Timestamp};

pub use check::Refusal;

/// The alert that pages because of a forecast.
pub const EXHAUSTION: &str = "ResourceExhaustion";
/// The alert that shows a rising resource.
pub const RISING: &str = "ResourceRising";
/// The alert of a static level.
pub const LEVEL: &str = "ResourceLevel";
/// The alert of samples that stopped.
pub const DATA_MISSING: &str = "ResourceDataMissing";
/// The alert of a forecast that was not believed.
pub const REFUSED: &str = "ForecastRefused";
/// The alert of a node that does not answer.
pub const NODE_DOWN: &str = "NodeDown";

/// Without a sample for this long, data counts as missing even where the state is held at critical or exhausted:
/// the staleness of Prometheus.
pub const DATA_MISSING_AFTER: Duration = Duration::from_secs(5 * 60);

/// What the forecasts of one scope say, as [`Router::reconcile`](crate::Router::reconcile) takes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluated {
    /// All alerts that fire.
    pub alerts: Vec<Alert>,
    /// Resources whose forecast was refused: their alerts stay as they are.
    pub held: Vec<ResourceKey>,
    /// Why, one for each in `held`.
    pub refused: Vec<Refusal>,
}

/// Turns the full set of forecasts of one scope into its full set of alerts.
///
/// - `external_url`: where forewarn's page is, without a slash at the end; may be empty.
pub fn evaluate<'a>(forecasts: impl IntoIterator<Item = &'a Forecast>, external_url: &str) -> Evaluated {
    let mut out = Evaluated::default();
    for forecast in forecasts {
        match alerts_for(forecast, external_url) {
            Ok(alerts) => out.alerts.extend(alerts),
            Err(refusal) => {
                out.alerts.extend(refused_alert(forecast, &refusal, external_url));
                out.held.push(forecast.key.clone());
                out.refused.push(refusal);
            }
        }
    }
    out
}

/// Returns the alerts that one forecast means; none for a resource that is well.
///
/// # Errors
/// [`Refusal`] when a number of it cannot be true (NaN, a negative time, a probability above 1); then nothing follows
/// from it, neither an alert nor a resolve.
pub fn alerts_for(forecast: &Forecast, external_url: &str) -> Result<Vec<Alert>, Refusal> {
    check::check(forecast)?;
    let missing = forecast.at.since(forecast.saw.last) >= DATA_MISSING_AFTER;
    let foreseen = forecast.time_to_exhaustion.p50.or(forecast.time_to_exhaustion.p10).is_some();
    let mut out = Vec::new();
    let mut add = |name: &str, severity: Severity, annotations: BTreeMap<String, String>| {
        alert(forecast, name, severity, annotations, external_url).map(|a| out.push(a))
    };
    match forecast.state {
        ForecastState::Critical | ForecastState::Exhausted => {
            add(EXHAUSTION, Severity::Critical, text::exhaustion(forecast))?;
            if missing {
                add(DATA_MISSING, Severity::Warning, text::data_missing(forecast))?;
            }
        }
        ForecastState::Rising => add(RISING, Severity::Info, text::exhaustion(forecast))?,
        // A stale forecast holds what was said before: a time to exhaustion says that it was rising.
        ForecastState::Stale if foreseen => add(DATA_MISSING, Severity::Warning, text::data_missing(forecast))?,
        _ => {}
    }
    match forecast.level {
        Some(Level::Major) => add(LEVEL, Severity::Warning, text::level(forecast, "major"))?,
        Some(Level::Minor) => add(LEVEL, Severity::Info, text::level(forecast, "minor"))?,
        None => {}
    }
    Ok(out)
}

/// Returns the alert for a node that does not answer.
///
/// - `since`: when it was last known to be up.
/// - `configured`: whether a person named the node in the configuration; one that was only discovered may have been
///   stopped on purpose, so it makes a ticket and does not page.
pub fn node_down_alert(node: &str, family: &str, since: Timestamp, configured: bool, external_url: &str) -> Alert {
    let severity = if configured { Severity::Critical } else { Severity::Warning };
    let pairs = [("alertname", NODE_DOWN), ("severity", severity.as_str()), ("node", node), ("family", family)];
    Alert {
        // The names come from label sets, which keep the same limits, so this fails only for names made up elsewhere.
        labels: Labels::from_pairs(pairs).unwrap_or_else(|_| nameless_node(severity)),
        annotations: text::node_down(node, since, configured),
        starts_at: since,
        ends_at: None,
        updated_at: since,
        generator_url: text::page_url(external_url, &[("node", node)]),
    }
}

/// All values of [`Refusal::what`].
pub(crate) fn refusal_parts() -> &'static [&'static str] {
    &check::WHAT
}

fn nameless_node(severity: Severity) -> Labels {
    Labels::from_pairs([("alertname", NODE_DOWN), ("severity", severity.as_str())])
        .expect("two short labels are a label set")
}

fn alert(
    forecast: &Forecast,
    name: &str,
    severity: Severity,
    annotations: BTreeMap<String, String>,
    external_url: &str,
) -> Result<Alert, Refusal> {
    let key = &forecast.key;
    let labels = Labels::from_pairs([
        ("alertname", name),
        ("severity", severity.as_str()),
        ("node", &key.node),
        ("family", &forecast.family),
        ("resource", &key.resource),
        ("object", &key.object),
    ])
    .map_err(|e| Refusal { key: key.clone(), what: "labels", why: e.to_string() })?;
    let place = [("node", key.node.as_str()), ("resource", &key.resource), ("object", &key.object)];
    Ok(Alert {
        labels,
        annotations,
        starts_at: forecast.at,
        ends_at: None,
        updated_at: forecast.at,
        generator_url: text::page_url(external_url, &place),
    })
}

/// Says in an alert of its own that a forecast was refused; none when even its names make no label set.
fn refused_alert(forecast: &Forecast, refusal: &Refusal, external_url: &str) -> Option<Alert> {
    alert(forecast, REFUSED, Severity::Warning, text::refused(forecast, refusal), external_url).ok()
}
