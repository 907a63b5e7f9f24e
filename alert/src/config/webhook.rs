//! `webhook_configs`.

use std::path::PathBuf;
use std::time::Duration;

use forewarn_schemas::units;
use serde::{Deserialize, Serialize};

use super::Errors;
use crate::secret::Secret;

/// Sends Alertmanager's webhook payload, version 4.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Where to; a secret, since many carry a token.
    pub url: Option<Secret>,
    /// A file that holds the URL, read at every notification.
    pub url_file: Option<PathBuf>,
    /// Whether the end of an alert is told. Default true.
    pub send_resolved: bool,
    /// Most alerts in one notification, the worst first; 0 (default) means all.
    pub max_alerts: u64,
    /// How long one attempt may take. Default 10 s.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Credentials.
    pub http_config: HttpConfig,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            send_resolved: true,
            max_alerts: 0,
            timeout: Duration::from_secs(10),
            http_config: HttpConfig::default(),
        }
    }
}

/// How to identify to an HTTP endpoint; one of the two at most.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// The `Authorization` header.
    pub authorization: Option<AuthorizationConfig>,
    /// User and password.
    pub basic_auth: Option<BasicAuthConfig>,
}

/// The `Authorization` header: a type and credentials, in place or in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthorizationConfig {
    /// The scheme. Default `Bearer`.
    pub r#type: String,
    /// The credentials.
    pub credentials: Option<Secret>,
    /// A file that holds them, read at every notification.
    pub credentials_file: Option<PathBuf>,
}

impl Default for AuthorizationConfig {
    fn default() -> Self {
        Self { r#type: "Bearer".into(), credentials: None, credentials_file: None }
    }
}

/// Basic authentication; the password in place or in a file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BasicAuthConfig {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Option<Secret>,
    /// A file that holds it, read at every notification.
    pub password_file: Option<PathBuf>,
}

/// A value that stands in the configuration or in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// In place.
    Value(Secret),
    /// In a file, white space around it ignored.
    File(PathBuf),
}

impl ValueSource {
    /// Makes it of the two keys of which exactly one must be there; `key` names the first.
    pub(crate) fn of(key: &str, value: Option<&Secret>, file: Option<&PathBuf>) -> Result<Self, String> {
        match (value, file) {
            (Some(v), None) => Ok(Self::Value(v.clone())),
            (None, Some(f)) => Ok(Self::File(f.clone())),
            (None, None) => Err(format!("{key} or {key}_file is missing")),
            (Some(_), Some(_)) => Err(format!("{key} and {key}_file exclude each other")),
        }
    }
}

/// Names what is wrong with one webhook.
pub(super) fn check(path: &str, webhook: &WebhookConfig, errors: &mut Errors) {
    match ValueSource::of("url", webhook.url.as_ref(), webhook.url_file.as_ref()) {
        Err(why) => errors.add(path, why),
        Ok(ValueSource::Value(url)) => {
            if let Err(why) = parse_url(url.expose()) {
                errors.add(format!("{path}.url"), why);
            }
        }
        Ok(ValueSource::File(_)) => {}
    }
    if webhook.timeout.is_zero() {
        errors.add(format!("{path}.timeout"), "it must be more than 0");
    }
    let http = &webhook.http_config;
    if http.authorization.is_some() && http.basic_auth.is_some() {
        errors.add(format!("{path}.http_config"), "authorization and basic_auth exclude each other");
    }
    if let Some(auth) = &http.authorization {
        let path = format!("{path}.http_config.authorization");
        match ValueSource::of("credentials", auth.credentials.as_ref(), auth.credentials_file.as_ref()) {
            Err(why) => errors.add(path, why),
            Ok(ValueSource::Value(c)) if !is_header_value(&format!("{} {}", auth.r#type, c.expose())) => {
                errors.add(path, "it has a character that no HTTP header may have");
            }
            Ok(_) => {}
        }
    }
    if let Some(auth) = &http.basic_auth {
        let path = format!("{path}.http_config.basic_auth");
        if let Err(why) = ValueSource::of("password", auth.password.as_ref(), auth.password_file.as_ref()) {
            errors.add(path.clone(), why);
        }
        if auth.username.contains(':') {
            errors.add(format!("{path}.username"), "a user name cannot have a colon");
        }
    }
}

/// Reads an `http` or `https` URL. The message never repeats the URL: it may hold a token.
pub(crate) fn parse_url(text: &str) -> Result<reqwest::Url, String> {
    let url = reqwest::Url::parse(text).map_err(|e| format!("not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("not an http or https URL".into());
    }
    Ok(url)
}

fn is_header_value(text: &str) -> bool {
    reqwest::header::HeaderValue::from_str(text).is_ok()
}
