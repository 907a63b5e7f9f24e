//! Alertmanager's webhook, version 4, over HTTP.
//!
//! One POST for each attempt, with `Idempotency-Key` beside the payload's `groupKey`. Any 2xx means that the receiver
//! has it. Redirects are not followed, since credentials would go with them; proxies of the environment are not used.
//!
//! # Source
//! Alertmanager documentation, "webhook_config". Departures: 408, 425 and 429 are tried again and `Retry-After`
//! (RFC 9110, section 10.2.3: seconds or a date) is obeyed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forewarn_schemas::{Clock, Timestamp};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::{DETAIL_CHARS_MAX, Notifier, Reason, Retry, SendError};
use crate::config::{HttpConfig, ValueSource, WebhookConfig, parse_url};
use crate::notification::Notification;

/// Most of an answer that is read to say what went wrong.
const ANSWER_BYTES_MAX: usize = 1024;

/// Where the `Authorization` header comes from.
#[derive(Debug)]
enum Credentials {
    None,
    Header { scheme: String, source: ValueSource },
    Basic { username: String, source: ValueSource },
}

/// Posts to one URL.
#[derive(Debug)]
pub struct WebhookNotifier {
    client: reqwest::Client,
    url: ValueSource,
    credentials: Credentials,
    alerts_max: u64,
    clock: Arc<dyn Clock>,
}

impl WebhookNotifier {
    /// Makes one of a validated configuration. The clock is for a `Retry-After` that is a date.
    ///
    /// # Errors
    /// A sentence when a needed key is missing or the TLS set-up fails.
    pub fn new(config: &WebhookConfig, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("forewarn/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| e.to_string())?;
        let url = ValueSource::of("url", config.url.as_ref(), config.url_file.as_ref())?;
        let credentials = Credentials::of(&config.http_config)?;
        Ok(Self { client, url, credentials, alerts_max: config.max_alerts, clock })
    }

    async fn post(&self, notification: &Notification) -> Result<Response, SendError> {
        let url = parse_url(&read(&self.url).await?).map_err(config_error)?;
        let mut headers = HeaderMap::new();
        let key = HeaderValue::from_str(&notification.dedup_key).map_err(|e| internal(&e))?;
        headers.insert("Idempotency-Key", key);
        let mut request = self.client.post(url).json(&notification.webhook_payload(self.alerts_max));
        match &self.credentials {
            Credentials::None => {}
            Credentials::Header { scheme, source } => {
                let mut value = HeaderValue::from_str(&format!("{scheme} {}", read(source).await?))
                    .map_err(|_| config_error("the credentials have a character that no HTTP header may have"))?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            Credentials::Basic { username, source } => {
                request = request.basic_auth(username, Some(read(source).await?));
            }
        }
        request.headers(headers).send().await.map_err(transport_error)
    }
}

#[async_trait]
impl Notifier for WebhookNotifier {
    async fn notify(&self, notification: &Notification) -> Result<(), SendError> {
        let response = self.post(notification).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let asked = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
        let asked = asked.and_then(|v| retry_after(v, self.clock.now()));
        let (retry, reason) = judge(status, asked);
        Err(SendError::new(retry, reason, answer(status, response).await))
    }
}

impl Credentials {
    fn of(config: &HttpConfig) -> Result<Self, String> {
        if let Some(a) = &config.authorization {
            let source = ValueSource::of("credentials", a.credentials.as_ref(), a.credentials_file.as_ref())?;
            return Ok(Self::Header { scheme: a.r#type.clone(), source });
        }
        if let Some(b) = &config.basic_auth {
            let source = ValueSource::of("password", b.password.as_ref(), b.password_file.as_ref())?;
            return Ok(Self::Basic { username: b.username.clone(), source });
        }
        Ok(Self::None)
    }
}

/// Returns the value; a file is read anew each time, so that a token can be changed under a running process.
async fn read(source: &ValueSource) -> Result<String, SendError> {
    match source {
        ValueSource::Value(secret) => Ok(secret.expose().to_owned()),
        ValueSource::File(path) => tokio::fs::read_to_string(path)
            .await
            .map(|text| text.trim().to_owned())
            .map_err(|e| config_error(format!("{}: {e}", path.display()))),
    }
}

/// A file that is missing now may be there at the next attempt.
fn config_error(why: impl AsRef<str>) -> SendError {
    SendError::new(Retry::Backoff, Reason::Config, why)
}

fn internal(e: &dyn std::error::Error) -> SendError {
    SendError::new(Retry::Never, Reason::Internal, e.to_string())
}

/// The URL is taken out of the message, since it may hold a token; the cause says what matters.
fn transport_error(e: reqwest::Error) -> SendError {
    let reason = match () {
        () if e.is_connect() => Reason::Connect,
        () if e.is_timeout() => Reason::Timeout,
        () if e.is_builder() => return SendError::new(Retry::Never, Reason::Internal, e.without_url().to_string()),
        () => Reason::Broken,
    };
    let e = e.without_url();
    let mut detail = e.to_string();
    let mut cause = std::error::Error::source(&e);
    while let Some(c) = cause {
        detail = format!("{detail}: {c}");
        cause = c.source();
    }
    SendError::new(Retry::Backoff, reason, detail)
}

/// Says what an answer other than 2xx means; `asked` is its `Retry-After`.
fn judge(status: StatusCode, asked: Option<Duration>) -> (Retry, Reason) {
    let later = asked.map_or(Retry::Backoff, Retry::After);
    match status.as_u16() {
        429 => (later, Reason::RateLimited),
        408 | 425 | 500..=599 => (later, Reason::Server),
        401 | 403 => (Retry::Never, Reason::Unauthorized),
        300..=399 => (Retry::Never, Reason::Redirect),
        _ => (Retry::Never, Reason::Rejected),
    }
}

/// Reads `Retry-After`: a number of seconds, or a date, which may be past.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp::from_millis(date.as_millisecond()).since(now))
}

/// Says what the receiver answered, in few characters.
async fn answer(status: StatusCode, mut response: Response) -> String {
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - body.len())]),
            // The status says enough when the rest does not come.
            Ok(None) | Err(_) => break,
        }
    }
    let body: String = String::from_utf8_lossy(&body).trim().chars().take(DETAIL_CHARS_MAX).collect();
    if body.is_empty() { format!("answered {status}") } else { format!("answered {status}: {body}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let judge = |code, asked| judge(StatusCode::from_u16(code).unwrap(), asked);
        let minute = Duration::from_secs(60);
        assert_eq!(judge(429, Some(minute)), (Retry::After(minute), Reason::RateLimited));
        assert_eq!(judge(429, None), (Retry::Backoff, Reason::RateLimited));
        assert_eq!(judge(503, Some(minute)), (Retry::After(minute), Reason::Server));
        for code in [408, 425, 500, 502, 504] {
            assert_eq!(judge(code, None), (Retry::Backoff, Reason::Server), "{code}");
        }
        for code in [400, 404, 410, 413, 422] {
            assert_eq!(judge(code, Some(minute)), (Retry::Never, Reason::Rejected), "{code}");
        }
        assert_eq!(judge(401, None), (Retry::Never, Reason::Unauthorized));
        assert_eq!(judge(302, None), (Retry::Never, Reason::Redirect));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::parse_rfc3339("1994-11-06T08:49:00Z").unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(37)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        for bad in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
    }
}
