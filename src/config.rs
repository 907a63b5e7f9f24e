//! The configuration: one YAML file. Each part's section is defined beside the part's code; this is the whole.
//!
//! Three steps: [`Config::parse`] reads the text, [`Config::validate`] checks it without touching a file or the network,
//! and `run` builds from it. `forewarn check-config` does the first two and prints every error.

pub mod yaml;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forewarn_alert::{AlertConfig, ReceiverConfig, RouteConfig};
use forewarn_ingest::beam::BeamConfig;
use forewarn_ingest::edge::EdgeConfig;
use forewarn_ingest::host::HostConfig;
use forewarn_schemas::ByteSize;
use forewarn_schemas::units::duration;
use serde::Deserialize;

use crate::web::WebConfig;
use yaml::Problem;

/// The whole configuration; every key has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data directory. Default `./forewarn-data`.
    pub data: PathBuf,
    /// The listener's address. Default `127.0.0.1:9797`.
    pub listen: SocketAddr,
    /// What is collected.
    pub collectors: Collectors,
    /// What is refused at the edge, and when it slows down.
    pub edge: EdgeConfig,
    /// The history.
    pub store: StoreSection,
    /// The forecasts.
    pub forecast: ForecastSection,
    /// What `/metrics` shows.
    pub exporter: ExporterSection,
    /// Limits of queries.
    pub query: QuerySection,
    /// Access to the listener.
    pub web: WebConfig,
    /// The tree of routes, as in `alertmanager.yml`. Default: everything to the log.
    pub route: Option<RouteConfig>,
    /// The receivers, as in `alertmanager.yml`.
    pub receivers: Vec<ReceiverConfig>,
}

/// The section `collectors`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collectors {
    /// This host.
    pub host: HostConfig,
    /// BEAM nodes.
    pub beam: BeamConfig,
}

/// The section `store`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// How long samples are kept. Default 15 d.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// The head is flushed at least this often. Default 5 min.
    #[serde(with = "duration")]
    pub flush_interval: Duration,
    /// The head is flushed when the un-flushed log is this large. Default 64 MiB.
    pub flush_bytes: ByteSize,
}

/// The section `forecast`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForecastSection {
    /// Time between evaluations. Default 10 s.
    #[serde(with = "duration")]
    pub step: Duration,
    /// Files that add resources to the built-in catalogue or replace its entries by name.
    pub catalogue_files: Vec<PathBuf>,
}

/// The section `exporter`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExporterSection {
    /// Resources exported at most. Default 5,000.
    pub max_resources: usize,
}

/// The section `query`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuerySection {
    /// A query ends with an error after this. Default 2 min.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Memory of one query. Default 256 MiB.
    pub memory_max: ByteSize,
    /// Rows of one answer. Default 1,000,000.
    pub rows_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "./forewarn-data".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 9797)),
            collectors: Collectors::default(),
            edge: EdgeConfig::default(),
            store: StoreSection::default(),
            forecast: ForecastSection::default(),
            exporter: ExporterSection::default(),
            query: QuerySection::default(),
            web: WebConfig::default(),
            route: None,
            receivers: Vec::new(),
        }
    }
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(15 * 86_400),
            flush_interval: Duration::from_secs(300),
            flush_bytes: ByteSize::mib(64),
        }
    }
}

impl Default for ForecastSection {
    fn default() -> Self {
        Self { step: Duration::from_secs(10), catalogue_files: Vec::new() }
    }
}

impl Default for ExporterSection {
    fn default() -> Self {
        Self { max_resources: 5_000 }
    }
}

impl Default for QuerySection {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(120), memory_max: ByteSize::mib(256), rows_max: 1_000_000 }
    }
}

impl Config {
    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// Every problem, those of [`Config::validate`] included.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let config: Self = yaml::parse(text)?;
        let problems = config.validate();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// As [`Config::parse`], and when the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        let text =
            std::fs::read_to_string(path).map_err(|e| vec![Problem::anywhere(format!("{}: {e}", path.display()))])?;
        Self::parse(&text)
    }

    /// Checks what the types cannot say; touches no file and no network.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = self.web.validate(self.listen);
        problems.extend(self.alerting().validate());
        let at_least = |name: &str, value: Duration, min: Duration| {
            (value < min).then(|| format!("{name} must be at least {}", forewarn_schemas::units::format_duration(min)))
        };
        let second = Duration::from_secs(1);
        problems.extend(at_least("forecast.step", self.forecast.step, second));
        problems.extend(at_least("store.flush_interval", self.store.flush_interval, second));
        problems.extend(at_least("store.retention", self.store.retention, Duration::from_secs(3_600)));
        problems.extend(at_least("query.timeout", self.query.timeout, second));
        if self.store.flush_bytes.bytes() < 1 << 20 {
            problems.push("store.flush_bytes must be at least 1MiB".into());
        }
        problems.into_iter().map(Problem::anywhere).collect()
    }

    /// Returns the part that is Alertmanager's.
    pub fn alerting(&self) -> AlertConfig {
        AlertConfig::new(self.route.clone(), self.receivers.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_the_empty_file_is_it() {
        let config = Config::parse("").unwrap();
        assert_eq!(config.listen, Config::default().listen);
        assert!(config.validate().is_empty());
    }

    #[test]
    fn every_error_of_a_file_with_its_line() {
        let text = "listn: 127.0.0.1:1\ncollectors:\n  beam:\n    intervall: 1s\nstore:\n  retention: 15 days\n";
        let problems: Vec<String> = Config::parse(text).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 3, "{problems:#?}");
        assert!(problems[0].contains("1:1") && problems[0].contains("did you mean \"listen\""), "{problems:#?}");
        assert!(problems[1].contains("4:5") && problems[1].contains("\"interval\""), "{problems:#?}");
        assert!(problems[2].starts_with("6:") && problems[2].contains("not a duration"), "{problems:#?}");
    }

    #[test]
    fn listening_beyond_loopback_is_refused_without_access_control() {
        let problems = Config::parse("listen: 0.0.0.0:9797").unwrap_err();
        assert!(problems[0].message.contains("web.insecure"));
    }
}
