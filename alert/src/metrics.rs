//! Every series of this crate, all there from the start with value zero.

use forewarn_schemas::Severity;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::receiver::{KINDS, Reason};
use crate::rules;

/// How a notification left the outbox, or did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Sent,
    /// It is tried again later.
    Retry,
    /// It will not be tried again.
    Dead,
    /// What it was to say was over before it could be said.
    Collapsed,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Sent, Self::Retry, Self::Dead, Self::Collapsed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Collapsed => "collapsed",
        }
    }
}

/// The series of the alert router. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) alerts: IntGaugeVec,
    pub(crate) groups: IntGauge,
    pub(crate) outbox: IntGauge,
    pub(crate) dead_letters: IntGauge,
    pub(crate) unwritten: IntGauge,
    pub(crate) state_errors: IntCounter,
    pub(crate) state_damaged: IntCounter,
    pub(crate) alerts_refused: IntCounter,
    pub(crate) flaps: IntCounter,
    forecasts_refused: IntCounterVec,
    notifications: IntCounterVec,
    failures: IntCounterVec,
    pub(crate) send_seconds: Histogram,
}

impl Metrics {
    /// Makes the series and registers them.
    ///
    /// # Errors
    /// When a series of the same name is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let vec = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let m = Self {
            alerts: IntGaugeVec::new(
                Opts::new("forewarn_alert_alerts", "Alerts known, by severity and state."),
                &["severity", "state"],
            )?,
            groups: IntGauge::new("forewarn_alert_groups", "Groups of alerts that are notified together.")?,
            outbox: IntGauge::new("forewarn_alert_outbox", "Notifications that are intended and not settled.")?,
            dead_letters: IntGauge::new("forewarn_alert_dead_letters", "Notifications that were given up on.")?,
            unwritten: IntGauge::new(
                "forewarn_alert_state_unwritten",
                "Records that the state log has refused so far; not zero means that a crash may repeat a page.",
            )?,
            state_errors: IntCounter::new("forewarn_alert_state_errors_total", "Writes that the state log refused.")?,
            state_damaged: IntCounter::new(
                "forewarn_alert_state_damaged_total",
                "Records that could not be read at start and were left out.",
            )?,
            alerts_refused: IntCounter::new("forewarn_alert_refused_total", "Alerts refused: without labels.")?,
            flaps: IntCounter::new("forewarn_alert_flaps_total", "Alerts that came back within an hour of their end.")?,
            forecasts_refused: vec(
                "forewarn_alert_forecasts_refused_total",
                "Forecasts that made no sense, by the part that did not.",
                &["part"],
            )?,
            notifications: vec(
                "forewarn_alert_notifications_total",
                "Attempts to notify, by integration and outcome.",
                &["integration", "outcome"],
            )?,
            failures: vec(
                "forewarn_alert_notification_failures_total",
                "Attempts that failed, by integration and reason.",
                &["integration", "reason"],
            )?,
            send_seconds: Histogram::with_opts(
                HistogramOpts::new("forewarn_alert_send_duration_seconds", "Time that one attempt took.")
                    .buckets(vec![0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0]),
            )?,
        };
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            for state in ["firing", "resolved"] {
                m.alerts.with_label_values(&[severity.as_str(), state]).set(0);
            }
        }
        for part in rules::refusal_parts() {
            m.forecasts_refused.with_label_values(&[part]).reset();
        }
        for kind in KINDS {
            for outcome in Outcome::ALL {
                m.notifications.with_label_values(&[kind, outcome.as_str()]).reset();
            }
            for reason in Reason::ALL {
                m.failures.with_label_values(&[kind, reason.as_str()]).reset();
            }
        }
        m.register(registry)?;
        Ok(m)
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        for gauge in [&self.groups, &self.outbox, &self.dead_letters, &self.unwritten] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [&self.state_errors, &self.state_damaged, &self.alerts_refused, &self.flaps] {
            registry.register(Box::new(counter.clone()))?;
        }
        for counters in [&self.forecasts_refused, &self.notifications, &self.failures] {
            registry.register(Box::new(counters.clone()))?;
        }
        registry.register(Box::new(self.alerts.clone()))?;
        registry.register(Box::new(self.send_seconds.clone()))
    }

    /// Counts the refusals of one evaluation.
    pub fn count_refused(&self, refused: &[rules::Refusal]) {
        for refusal in refused {
            self.forecasts_refused.with_label_values(&[refusal.what]).inc();
        }
    }

    pub(crate) fn count_outcome(&self, kind: &str, outcome: Outcome) {
        self.notifications.with_label_values(&[kind, outcome.as_str()]).inc();
    }

    pub(crate) fn count_failure(&self, kind: &str, reason: Reason) {
        self.failures.with_label_values(&[kind, reason.as_str()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let registry = Registry::new();
        Metrics::new(&registry).unwrap();
        let names: Vec<String> = registry.gather().iter().map(|f| f.name().to_owned()).collect();
        assert_eq!(names.len(), 13, "{names:?}");
        assert!(names.iter().all(|n| n.starts_with("forewarn_alert_")));
        assert!(registry.gather().iter().all(|f| !f.get_metric().is_empty()));
        assert!(Metrics::new(&registry).is_err(), "one set per registry");
    }
}
