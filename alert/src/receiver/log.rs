//! One line of forewarn's own log for each alert.

use async_trait::async_trait;
use forewarn_schemas::{AlertStatus, Severity};

use super::{Notifier, SendError, one_line};
use crate::notification::{Notification, NotifiedAlert};

/// Longest summary in a line, in characters.
const SUMMARY_CHARS_MAX: usize = 500;

/// Writes to the log; cannot fail.
#[derive(Debug)]
pub struct LogNotifier;

#[async_trait]
impl Notifier for LogNotifier {
    async fn notify(&self, notification: &Notification) -> Result<(), SendError> {
        for alert in &notification.alerts {
            write(notification, alert);
        }
        Ok(())
    }
}

/// A firing critical alert asks a person to act, which is what ERROR means; its end is INFO.
fn write(notification: &Notification, a: &NotifiedAlert) {
    let label = |name| one_line(a.alert.labels.get(name).unwrap_or_default(), SUMMARY_CHARS_MAX);
    let summary = one_line(a.alert.annotations.get("summary").map_or("", String::as_str), SUMMARY_CHARS_MAX);
    macro_rules! line {
        ($level:ident, $status:literal) => {
            tracing::$level!(
                target: "forewarn::alert",
                status = $status,
                alertname = %label("alertname"),
                severity = a.alert.severity().as_str(),
                node = %label("node"),
                resource = %label("resource"),
                object = %label("object"),
                summary = %summary,
                starts_at = %a.alert.starts_at,
                receiver = %notification.delivery.group.receiver,
                fingerprint = %a.alert.fingerprint(),
                "alert"
            )
        };
    }
    match (a.status, a.alert.severity()) {
        (AlertStatus::Resolved, _) => line!(info, "resolved"),
        (AlertStatus::Firing, Severity::Critical) => line!(error, "firing"),
        (AlertStatus::Firing, _) => line!(warn, "firing"),
    }
}
