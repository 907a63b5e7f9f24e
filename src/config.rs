//! The configuration: one YAML file. Each part's section is defined beside the part's code; this is the whole.
//!
//! Three steps: [`Config::read`] reads the file, [`Config::validate`] checks it without touching a file or the network,
//! and `run` builds from it. `forewarn check-config` does the first two and prints every error.

pub mod yaml;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forewarn_alert::AlertConfig;
use forewarn_alert::config::{ReceiverConfig, RouteConfig};
use forewarn_ingest::beam::BeamConfig;
use forewarn_ingest::edge::EdgeConfig;
use forewarn_ingest::host::HostConfig;
use forewarn_schemas::ByteSize;
use forewarn_schemas::units::duration;
use forewarn_store::StoreConfig;
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
    pub store: StoreConfig,
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
    /// How long an alert that keeps coming back must stay away until its end counts. Default 20 min.
    #[serde(with = "duration")]
    pub flap_hold: Duration,
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
            store: StoreConfig::default(),
            forecast: ForecastSection::default(),
            exporter: ExporterSection::default(),
            query: QuerySection::default(),
            web: WebConfig::default(),
            route: None,
            receivers: Vec::new(),
            flap_hold: AlertConfig::default().flap_hold,
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
    /// Returns the configuration if it is valid.
    ///
    /// # Errors
    /// Every problem of [`Config::validate`].
    pub fn validated(self) -> Result<Self, Vec<Problem>> {
        let problems = self.validate();
        if problems.is_empty() { Ok(self) } else { Err(problems) }
    }

    /// Names the sections in which it differs from `other` and that only a start applies.
    pub fn differs_from(&self, other: &Self) -> Vec<&'static str> {
        let sections = |c: &Self| {
            [
                ("data", format!("{:?}", c.data)),
                ("listen", format!("{:?}", c.listen)),
                ("collectors", format!("{:?}", c.collectors)),
                ("edge", format!("{:?}", c.edge)),
                ("store", format!("{:?}", c.store)),
                ("forecast", format!("{:?}", c.forecast)),
                ("exporter", format!("{:?}", c.exporter)),
                ("query", format!("{:?}", c.query)),
                ("web.tls_server_config", c.web.tls_server_config.is_some().to_string()),
                ("web.external_url", format!("{:?}", c.web.external_url)),
            ]
        };
        sections(self).into_iter().zip(sections(other)).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0).collect()
    }

    /// Reads a configuration file; whether it is valid is another question, since flags may change it.
    ///
    /// # Errors
    /// Every problem of the text, or that the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, Vec<Problem>> {
        let text = std::fs::read_to_string(path).map_err(|e| vec![Problem::anywhere(e.to_string())])?;
        yaml::parse(&text)
    }

    /// Checks what the types cannot say; touches no file and no network.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = self.web.validate(self.listen);
        problems.extend(self.alerting().validate().iter().map(ToString::to_string));
        problems.extend(self.store.validate());
        problems.extend(self.collectors.host.validate());
        problems.extend(self.collectors.beam.validate());
        let at_least = |name: &str, value: Duration, min: Duration| {
            (value < min).then(|| format!("{name} must be at least {}", forewarn_schemas::units::format_duration(min)))
        };
        let at_most = |name: &str, value: Duration, max: Duration| {
            (value > max).then(|| format!("{name} must be at most {}", forewarn_schemas::units::format_duration(max)))
        };
        problems.extend(at_most("forecast.step", self.forecast.step, Duration::from_secs(300)));
        problems.extend(at_most("edge.linger_max", self.edge.linger_max, Duration::from_secs(5)));
        problems.extend(at_least("edge.age_max", self.edge.age_max, Duration::from_secs(60)));
        let positive = |name: &str, value: usize| (value == 0).then(|| format!("{name} must be at least 1"));
        problems.extend(positive("edge.series_max", self.edge.series_max));
        problems.extend(positive("edge.series_per_source_max", self.edge.series_per_source_max));
        problems.extend(positive("exporter.max_resources", self.exporter.max_resources));
        problems.extend(positive("query.rows_max", self.query.rows_max));
        let second = Duration::from_secs(1);
        problems.extend(at_least("forecast.step", self.forecast.step, second));
        problems.extend(at_least("query.timeout", self.query.timeout, second));
        problems.into_iter().map(Problem::anywhere).collect()
    }

    /// Returns the part that is Alertmanager's.
    pub fn alerting(&self) -> AlertConfig {
        AlertConfig { route: self.route.clone(), receivers: self.receivers.clone(), flap_hold: self.flap_hold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_the_empty_file_is_it() {
        let config = yaml::parse::<Config>("").unwrap();
        assert_eq!(config.listen, Config::default().listen);
        assert!(config.validate().is_empty());
    }

    #[test]
    fn every_error_of_a_file_with_its_line() {
        let text = "listn: 127.0.0.1:1\ncollectors:\n  beam:\n    intervall: 1s\nstore:\n  retention: 15 days\n";
        let problems: Vec<String> = yaml::parse::<Config>(text).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 3, "{problems:#?}");
        assert!(problems[0].contains("1:1") && problems[0].contains("did you mean \"listen\""), "{problems:#?}");
        assert!(problems[1].contains("4:5") && problems[1].contains("\"interval\""), "{problems:#?}");
        assert!(problems[2].starts_with("6:") && problems[2].contains("not a duration"), "{problems:#?}");
    }

    #[test]
    fn listening_beyond_loopback_is_refused_without_access_control() {
        let problems = yaml::parse::<Config>("listen: 0.0.0.0:9797").unwrap().validate();
        assert!(problems[0].message.contains("web.insecure"));
    }
}
