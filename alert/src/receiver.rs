//! How a notification leaves: one seam, [`Notifier`], one module for each kind of integration.
//!
//! An integration makes one attempt and says what its failure means. Time limit, counting and retry are not its
//! concern: the first two are the wrapper in `attempt`, the third is the router's outbox, since a retry has to outlive
//! the process and what is retried is the newest state of the group ([`backoff`]).

mod attempt;
pub mod backoff;
mod log;
mod webhook;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forewarn_schemas::Clock;

pub use attempt::Attempt;
pub use log::LogNotifier;
pub use webhook::WebhookNotifier;

use crate::config::ReceiverConfig;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::notification::{DeliveryId, Integration, Notification};

/// The kinds of integration there are; also the metrics' label.
pub const KINDS: [&str; 2] = ["webhook", "log"];

/// Time limit of an integration that has none configured.
const ATTEMPT_DURATION_MAX: Duration = Duration::from_secs(10);
/// Longest detail of a failure that is kept, in characters.
pub(crate) const DETAIL_CHARS_MAX: usize = 200;

/// Sends notifications somewhere.
///
/// One call is one attempt; `Ok` means that the receiver has it. The same [`Notification::dedup_key`] may come again
/// after a crash or an unclear failure and must be passed on, so that the receiver can drop the repeat. Calls for
/// different groups may overlap. Dropping the future cancels the attempt, with the outcome unknown.
#[async_trait]
pub trait Notifier: Send + Sync + Debug {
    /// Makes one attempt.
    async fn notify(&self, notification: &Notification) -> Result<(), SendError>;
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct SendError {
    /// Whether and when to try again.
    pub retry: Retry,
    /// What kind of failure.
    pub reason: Reason,
    /// What was seen, at most 200 characters, without secrets.
    pub detail: String,
}

impl SendError {
    /// Makes a failure; `detail` is cut and its control characters are replaced.
    pub fn new(retry: Retry, reason: Reason, detail: impl AsRef<str>) -> Self {
        Self { retry, reason, detail: one_line(detail.as_ref(), DETAIL_CHARS_MAX) }
    }
}

/// Whether a failed attempt is worth another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No: the same request would fail again.
    Never,
    /// Yes, after a while that grows.
    Backoff,
    /// Yes, but not before this time has passed; said by the receiver.
    After(Duration),
}

/// Why an attempt failed; the metrics' label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No connection: the name is unknown, nobody listens, TLS failed.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke before the answer.
    Broken,
    /// 429: too many.
    RateLimited,
    /// 408, 425 or 5xx.
    Server,
    /// 401 or 403.
    Unauthorized,
    /// Another 4xx.
    Rejected,
    /// 3xx: redirects are not followed.
    Redirect,
    /// The configuration cannot be used: an unreadable file, a bad URL in it.
    Config,
    /// A fault of forewarn.
    Internal,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Connect,
        Self::Timeout,
        Self::Broken,
        Self::RateLimited,
        Self::Server,
        Self::Unauthorized,
        Self::Rejected,
        Self::Redirect,
        Self::Config,
        Self::Internal,
    ];

    /// Returns the label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::RateLimited => "rate_limited",
            Self::Server => "server",
            Self::Unauthorized => "unauthorized",
            Self::Rejected => "rejected",
            Self::Redirect => "redirect",
            Self::Config => "config",
            Self::Internal => "internal",
        }
    }

    /// Says whether the receiver may have acted on the attempt all the same. Then the group's end must be told even
    /// if its beginning was never confirmed.
    pub fn may_have_arrived(self) -> bool {
        matches!(self, Self::Timeout | Self::Broken | Self::Server | Self::Internal)
    }
}

/// What the router has to know of an integration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrationSpec {
    /// Which one.
    pub id: Integration,
    /// Whether the end of an alert is told.
    pub send_resolved: bool,
}

/// Lists the integrations of a receiver.
pub fn integrations(config: &ReceiverConfig) -> Vec<IntegrationSpec> {
    let webhooks = config.webhook_configs.iter().enumerate().map(|(i, c)| ("webhook", i, c.send_resolved));
    let logs = config.log_configs.iter().enumerate().map(|(i, c)| ("log", i, c.send_resolved));
    webhooks
        .chain(logs)
        .map(|(kind, index, send_resolved)| IntegrationSpec {
            id: Integration { kind: kind.into(), index },
            send_resolved,
        })
        .collect()
}

/// The integrations of all receivers, ready to send.
#[derive(Debug, Clone, Default)]
pub struct Receivers(BTreeMap<(Arc<str>, Integration), Arc<dyn Notifier>>);

impl Receivers {
    /// Builds the integrations of a validated configuration, with time limit and counting around each.
    ///
    /// # Errors
    /// [`Error::Receiver`] when the HTTP client cannot be made.
    pub fn build(receivers: &[ReceiverConfig], clock: &Arc<dyn Clock>, metrics: &Metrics) -> Result<Self, Error> {
        let mut out = Self::default();
        for receiver in receivers {
            for (index, config) in receiver.webhook_configs.iter().enumerate() {
                let notifier = WebhookNotifier::new(config, Arc::clone(clock))
                    .map_err(|why| Error::Receiver { receiver: receiver.name.clone(), why })?;
                let attempt = Attempt::new(notifier, "webhook", config.timeout, metrics.clone());
                out.insert(&receiver.name, Integration { kind: "webhook".into(), index }, Arc::new(attempt));
            }
            for index in 0..receiver.log_configs.len() {
                let attempt = Attempt::new(LogNotifier, "log", ATTEMPT_DURATION_MAX, metrics.clone());
                out.insert(&receiver.name, Integration { kind: "log".into(), index }, Arc::new(attempt));
            }
        }
        Ok(out)
    }

    /// Adds or replaces one integration.
    pub fn insert(&mut self, receiver: &str, integration: Integration, notifier: Arc<dyn Notifier>) {
        self.0.insert((receiver.into(), integration), notifier);
    }

    /// Returns the integration that a notification is for; `None` when the configuration no longer has it.
    pub fn get(&self, delivery: &DeliveryId) -> Option<&Arc<dyn Notifier>> {
        self.0.get(&(Arc::clone(&delivery.group.receiver), delivery.integration.clone()))
    }
}

/// Makes text safe for one line of a log: control and direction characters become spaces, the rest is cut.
pub(crate) fn one_line(text: &str, chars_max: usize) -> String {
    let unsafe_char = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out: String = text.chars().take(chars_max).map(|c| if unsafe_char(c) { ' ' } else { c }).collect();
    if text.chars().nth(chars_max).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_takes_the_teeth_out_of_text() {
        assert_eq!(one_line("a\r\nb\u{1b}[31m\u{202e}c", 100), "a  b [31m c");
        assert_eq!(one_line("äöü", 2), "äö…");
    }
}
