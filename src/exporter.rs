//! `/metrics`: own health, and the forecasts that matter, in Prometheus' text format.
//!
//! A resource is exported while it is rising, critical or exhausted and for an hour after that, nearest first, at most
//! `exporter.max_resources` of them; of the others there are only counts. So the number of series follows the trouble,
//! not the fleet.

use forewarn_schemas::{Forecast, ForecastState, Horizon};
use prometheus::{Encoder, GaugeVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::view::Views;

/// The content type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const IDENTITY: [&str; 3] = ["node", "resource", "object"];

struct Families {
    time: GaugeVec,
    probability: GaugeVec,
    used: GaugeVec,
    limit: GaugeVec,
    slope: GaugeVec,
    state: IntGaugeVec,
    error: GaugeVec,
    counts: IntGaugeVec,
}

/// Renders own health (`own`) and the forecasts.
///
/// # Errors
/// [`prometheus::Error`] when a metric family is not well formed, which the tests exclude.
pub fn render(own: &Registry, views: &Views, max_resources: usize) -> prometheus::Result<String> {
    let registry = Registry::new();
    let families = Families::register(&registry)?;
    for forecast in views.notable(max_resources) {
        families.add(&forecast);
    }
    for ((resource, state), n) in views.counts() {
        families
            .counts
            .with_label_values(&[resource.as_str(), state.as_str()])
            .set(i64::try_from(n).unwrap_or(i64::MAX));
    }
    let mut all = own.gather();
    all.extend(registry.gather());
    all.sort_by(|a, b| a.name().cmp(b.name()));
    let mut out = Vec::new();
    TextEncoder::new().encode(&all, &mut out)?;
    String::from_utf8(out).map_err(|e| prometheus::Error::Msg(e.to_string()))
}

impl Families {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, more: &[&str]| {
            let labels = [&IDENTITY, more].concat();
            let vec = GaugeVec::new(Opts::new(name, help), &labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let int = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        Ok(Self {
            time: gauge(
                "forewarn_time_to_exhaustion_seconds",
                "Time until the resource is exhausted; quantile 0.1: one chance in ten that it comes sooner. Absent when \
                 it never comes.",
                &["quantile"],
            )?,
            probability: gauge(
                "forewarn_exhaustion_probability_ratio",
                "Probability that the resource is exhausted within the horizon.",
                &["horizon"],
            )?,
            used: gauge("forewarn_resource_used", "What is used of the resource, in its own unit.", &[])?,
            limit: gauge("forewarn_resource_limit", "The limit of the resource, in its own unit.", &[])?,
            slope: gauge(
                "forewarn_resource_slope_per_second",
                "How fast the resource moves towards exhaustion, in its own unit per second.",
                &[],
            )?,
            state: int(
                "forewarn_forecast_state",
                "1 for the state that the resource is in, 0 for the others.",
                &["node", "resource", "object", "state"],
            )?,
            error: gauge(
                "forewarn_forecast_error_ratio",
                "Median error of the resource's own past forecasts, as a share of the time they said was left.",
                &[],
            )?,
            counts: int("forewarn_resources", "Resources by name and state.", &["resource", "state"])?,
        })
    }

    fn add(&self, f: &Forecast) {
        let id = [f.key.node.as_str(), f.key.resource.as_str(), f.key.object.as_str()];
        let with = |last: &'static str| [id[0], id[1], id[2], last];
        let t = f.time_to_exhaustion;
        for (quantile, seconds) in [("0.1", t.p10), ("0.5", t.p50), ("0.9", t.p90)] {
            if let Some(s) = seconds.filter(|s| s.is_finite()) {
                self.time.with_label_values(&with(quantile)).set(s);
            }
        }
        for horizon in Horizon::ALL {
            self.probability.with_label_values(&with(horizon.as_str())).set(f.probability.within(horizon));
        }
        for state in ForecastState::ALL {
            self.state.with_label_values(&with(state.as_str())).set(i64::from(state == f.state));
        }
        let values = [
            (&self.used, f.used),
            (&self.limit, f.limit),
            (&self.slope, f.slope.map(|s| s.per_second)),
            (&self.error, f.error_ratio),
        ];
        for (vec, value) in values {
            if let Some(v) = value.filter(|v| v.is_finite()) {
                vec.with_label_values(&id).set(v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::page::tests::rising;
    use crate::view::View;
    use forewarn_schemas::{PartitionId, Timestamp};

    #[test]
    fn only_what_matters_nearest_first_and_no_magic_numbers() {
        let views = Views::default();
        let mut forecasts: Vec<_> = (0..20).map(|i| rising(&format!("n{i:02}"), "processes", "")).collect();
        for (i, f) in forecasts.iter_mut().enumerate() {
            f.time_to_exhaustion.p50 = Some(1_000.0 - i as f64);
            f.time_to_exhaustion.p90 = None;
            f.limit = Some(f64::NAN);
        }
        let mut quiet = rising("quiet", "disk", "/");
        quiet.state = ForecastState::Ok;
        forecasts.push(quiet);
        let counts = [(("disk".to_owned(), ForecastState::Ok), 10_000)].into();
        let view = View {
            at: Timestamp::from_secs(1),
            forecasts: forecasts.into_iter().map(Arc::new).collect(),
            counts,
            ..View::default()
        };
        views.publish(PartitionId(0), view);
        let text = render(&Registry::new(), &views, 5).unwrap();
        let of = |name: &str| text.lines().filter(|l| l.starts_with(name)).count();
        assert_eq!(of("forewarn_time_to_exhaustion_seconds{"), 10, "five resources, p10 and p50");
        assert!(text.contains(r#"node="n19",object="",quantile="0.5",resource="processes"} 981"#), "{text}");
        assert!(!text.contains("n14"), "the five nearest only");
        assert_eq!(of("forewarn_resource_limit{"), 0, "NaN is left out");
        assert_eq!(of("forewarn_forecast_state{"), 5 * 7);
        assert!(text.contains(r#"forewarn_resources{resource="disk",state="ok"} 10000"#));
        assert!(!text.contains("quiet"));
    }
}
