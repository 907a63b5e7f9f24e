//! `route` and `receivers`, with the words of `alertmanager.yml`.
//!
//! Parsing refuses unknown keys; [`AlertConfig::validate`] then names everything else that is wrong, each with the path
//! of the key, without touching network or disk. What is read here is given meaning by [`crate::route`] (the tree) and
//! [`crate::receiver`] (the integrations).
//!
//! # Source
//! Alertmanager documentation, "Configuration"; defaults are its, departures are said where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use forewarn_schemas::{MatchOp, Matcher, Selector, units};
use serde::{Deserialize, Deserializer, Serialize};

mod webhook;

#[cfg(test)]
mod tests;

pub(crate) use webhook::parse_url;
pub use webhook::{AuthorizationConfig, BasicAuthConfig, HttpConfig, ValueSource, WebhookConfig};

/// The receiver that a configuration without a route sends to: one log line per alert.
pub const DEFAULT_RECEIVER: &str = "log";

/// How alerts reach people.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertConfig {
    /// Root of the routing tree. Without it all alerts go to the only receiver there is, or else to the log, grouped
    /// by alert name, family and resource.
    pub route: Option<RouteConfig>,
    /// The named destinations.
    pub receivers: Vec<ReceiverConfig>,
    /// An alert that comes back within an hour of its end is flapping: from then on its end counts only when it has
    /// stayed away for this long, which bounds its pages to four an hour. Default `20m`; `0` is Alertmanager's
    /// behaviour. A key of ours.
    #[serde(with = "units::duration")]
    pub flap_hold: Duration,
}

impl Default for AlertConfig {
    fn default() -> Self {
        Self { route: None, receivers: Vec::new(), flap_hold: Duration::from_secs(20 * 60) }
    }
}

/// A node of the routing tree. What is left out is inherited from the parent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Whom to tell; needed at the root.
    pub receiver: Option<String>,
    /// Alerts that agree in these labels are notified together; `['...']` means every alert alone. Default: none, so
    /// that all alerts of the route are one group.
    pub group_by: Option<Vec<String>>,
    /// Whether the siblings after this one are tried too.
    pub r#continue: bool,
    /// All must be met: each `name="value"` (also `!=`, `=~`, `!~`), or several as `{a="b", c=~"d"}`.
    pub matchers: Vec<String>,
    /// The older form of equality matchers.
    pub r#match: BTreeMap<String, String>,
    /// The older form of regular expression matchers.
    pub match_re: BTreeMap<String, String>,
    /// How long a new group waits for more of the same. Default 30 s, and 10 s for a group with a critical alert.
    #[serde(deserialize_with = "optional_duration", serialize_with = "write_optional_duration")]
    pub group_wait: Option<Duration>,
    /// How long a group waits before it tells of a change. Default 5 m.
    #[serde(deserialize_with = "optional_duration", serialize_with = "write_optional_duration")]
    pub group_interval: Option<Duration>,
    /// How long until what has not changed is told again. Default 4 h.
    #[serde(deserialize_with = "optional_duration", serialize_with = "write_optional_duration")]
    pub repeat_interval: Option<Duration>,
    /// Its children, in the order in which they are tried.
    pub routes: Vec<RouteConfig>,
}

impl RouteConfig {
    /// Returns all matchers, old forms included.
    ///
    /// # Errors
    /// One sentence per matcher that cannot be read.
    pub fn matchers(&self) -> Result<Vec<Matcher>, Vec<String>> {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        for text in &self.matchers {
            let braced = if text.trim_start().starts_with('{') { text.trim().into() } else { format!("{{{text}}}") };
            match braced.parse::<Selector>() {
                Ok(selector) => out.extend(selector.0),
                Err(why) => errors.push(why),
            }
        }
        out.extend(self.r#match.iter().map(|(name, value)| Matcher::equal(name, value)));
        for (name, value) in &self.match_re {
            match Matcher::new(name, MatchOp::Regex, value) {
                Ok(matcher) => out.push(matcher),
                Err(why) => errors.push(why),
            }
        }
        if errors.is_empty() { Ok(out) } else { Err(errors) }
    }
}

/// A named destination with any number of integrations. One without any swallows its alerts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverConfig {
    /// Its name, unique.
    pub name: String,
    /// HTTP endpoints that take Alertmanager's payload.
    pub webhook_configs: Vec<WebhookConfig>,
    /// One log line per alert.
    pub log_configs: Vec<LogConfig>,
}

/// Writes a line to forewarn's own log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Whether the end of an alert is told. Default true.
    pub send_resolved: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { send_resolved: true }
    }
}

/// Something that is wrong in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key: `route.routes[1].receiver`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl AlertConfig {
    /// Returns everything that is wrong; empty when nothing is.
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Errors(Vec::new());
        let mut names = BTreeSet::new();
        for (i, receiver) in self.receivers.iter().enumerate() {
            let path = format!("receivers[{i}]");
            if receiver.name.is_empty() {
                errors.add(format!("{path}.name"), "a receiver needs a name");
            } else if !names.insert(receiver.name.as_str()) {
                errors.add(format!("{path}.name"), format!("receiver {:?} is there twice", receiver.name));
            }
            for (j, webhook) in receiver.webhook_configs.iter().enumerate() {
                webhook::check(&format!("{path}.webhook_configs[{j}]"), webhook, &mut errors);
            }
        }
        match &self.route {
            None if self.receivers.len() > 1 => {
                errors.add("route", "it is missing, and there is more than one receiver to choose from");
            }
            None => {}
            Some(root) => {
                if root.receiver.is_none() {
                    errors.add("route.receiver", "the root route needs a receiver");
                }
                if !(root.matchers.is_empty() && root.r#match.is_empty() && root.match_re.is_empty()) {
                    errors.add("route.matchers", "the root route must match every alert, so it has no matchers");
                }
                if root.r#continue {
                    errors.add("route.continue", "the root route has no sibling to continue with");
                }
                check_route("route", root, &names, &mut errors);
            }
        }
        errors.0
    }

    /// Returns the route and receivers in effect: those given, or the defaults of an absent route.
    pub fn resolved(&self) -> (RouteConfig, Vec<ReceiverConfig>) {
        let mut receivers = self.receivers.clone();
        if let Some(route) = &self.route {
            return (route.clone(), receivers);
        }
        if receivers.is_empty() {
            let log = vec![LogConfig::default()];
            receivers.push(ReceiverConfig { name: DEFAULT_RECEIVER.into(), log_configs: log, ..Default::default() });
        }
        let route = RouteConfig {
            receiver: Some(receivers[0].name.clone()),
            group_by: Some(["alertname", "family", "resource"].map(String::from).to_vec()),
            ..Default::default()
        };
        (route, receivers)
    }
}

struct Errors(Vec<ConfigError>);

impl Errors {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(ConfigError { path: path.into(), message: message.into() });
    }
}

fn check_route(path: &str, route: &RouteConfig, receivers: &BTreeSet<&str>, errors: &mut Errors) {
    if let Some(name) = route.receiver.as_deref().filter(|n| !receivers.contains(n)) {
        errors.add(format!("{path}.receiver"), format!("there is no receiver {name:?}"));
    }
    for why in route.matchers().err().unwrap_or_default() {
        errors.add(format!("{path}.matchers"), why);
    }
    for (i, label) in route.group_by.iter().flatten().enumerate() {
        let twice = route.group_by.iter().flatten().take(i).any(|l| l == label);
        if label.is_empty() || twice {
            errors.add(format!("{path}.group_by"), format!("label {label:?} is empty or there twice"));
        } else if label == "..." && route.group_by.iter().flatten().count() > 1 {
            errors.add(format!("{path}.group_by"), "'...' stands alone: it means all labels");
        }
    }
    for (key, value) in [("group_interval", route.group_interval), ("repeat_interval", route.repeat_interval)] {
        if value == Some(Duration::ZERO) {
            errors.add(format!("{path}.{key}"), "it must be more than 0");
        }
    }
    for (i, child) in route.routes.iter().enumerate() {
        check_route(&format!("{path}.routes[{i}]"), child, receivers, errors);
    }
}

fn optional_duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(d)?;
    text.map(|t| units::parse_duration(&t).map_err(serde::de::Error::custom)).transpose()
}

fn write_optional_duration<S: serde::Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match d {
        Some(d) => s.serialize_some(&units::format_duration(*d)),
        None => s.serialize_none(),
    }
}
