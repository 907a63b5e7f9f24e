//! Around every integration: a time limit, and counting.

use std::time::Duration;

use async_trait::async_trait;

use super::{Notifier, Reason, Retry, SendError};
use crate::metrics::Metrics;
use crate::notification::Notification;

/// An integration with a time limit whose failures are counted.
#[derive(Debug)]
pub struct Attempt<N> {
    inner: N,
    kind: &'static str,
    duration_max: Duration,
    metrics: Metrics,
}

impl<N: Notifier> Attempt<N> {
    /// Wraps `inner`.
    pub fn new(inner: N, kind: &'static str, duration_max: Duration, metrics: Metrics) -> Self {
        Self { inner, kind, duration_max, metrics }
    }
}

#[async_trait]
impl<N: Notifier> Notifier for Attempt<N> {
    async fn notify(&self, notification: &Notification) -> Result<(), SendError> {
        let started = tokio::time::Instant::now();
        let result = match tokio::time::timeout(self.duration_max, self.inner.notify(notification)).await {
            Ok(result) => result,
            Err(_) => {
                let limit = forewarn_schemas::units::format_duration(self.duration_max);
                Err(SendError::new(Retry::Backoff, Reason::Timeout, format!("no answer within {limit}")))
            }
        };
        self.metrics.send_seconds.observe(started.elapsed().as_secs_f64());
        if let Err(e) = &result {
            self.metrics.count_failure(self.kind, e.reason);
        }
        result
    }
}
