//! What to watch, and how hard to look.

use std::path::PathBuf;
use std::time::Duration;

use erl_dist::node::NodeName;
use forewarn_schemas::ByteSize;
use forewarn_schemas::units::duration;
use serde::{Deserialize, Serialize};

/// The section `beam` of the configuration. Every field has a default, so an empty section watches the nodes of the
/// own user that are registered at the local epmd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BeamConfig {
    /// Whether the collector runs at all. Default `true`.
    pub enabled: bool,
    /// Time between two polls of a node, and between two looks at the local epmd. Default `10s`.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// Time between two scans for long mailboxes. Default `60s`.
    #[serde(with = "duration")]
    pub mailbox_interval: Duration,
    /// Whether nodes at the local epmd that belong to our own uid are joined by themselves. Default `true`.
    pub discover_local: bool,
    /// Names (the part before the `@`) that discovery leaves alone, where `*` stands for any text: command-line tools
    /// and remote shells, which come and go. Default `rabbitmqcli-*`, `rem-*`, `remsh*`, `*_maint_*`.
    pub discover_exclude: Vec<String>,
    /// The cookie file for nodes that name none. Default: `~/.erlang.cookie`, else
    /// `$XDG_CONFIG_HOME/erlang/.erlang.cookie`. Read again at every attempt to connect.
    pub cookie_file: Option<PathBuf>,
    /// Nodes to watch besides the discovered ones, on this machine or others. Default: none.
    pub nodes: Vec<NodeConfig>,
    /// Port of epmd. Default: the environment's `ERL_EPMD_PORT`, else `4369`.
    pub epmd_port: Option<u16>,
    /// Processes looked at in one mailbox scan; above, a rotating sample is. Registered ones are looked at always.
    /// Default `20000`.
    pub scan_processes_max: usize,
    /// Messages from which a mailbox is watched at every poll. Default `1000`.
    pub mailbox_watch_min: u64,
    /// Messages at which a mailbox counts as exhausted in effect, written as the limit of the mailbox series.
    /// Default `20000` (the major level of WombatOAM).
    pub mailbox_limit: u64,
    /// Largest message taken from a node; a longer one ends the connection before memory is set aside for it.
    /// Default `16MiB`.
    pub reply_bytes_max: ByteSize,
    /// Time that one call may take. Default `7s`.
    #[serde(with = "duration")]
    pub call_timeout: Duration,
    /// The collector's own node name. It stays as an atom on every watched node, so it should not change: where the
    /// host's name does (containers), write it whole, `forewarn@watch`; otherwise the host's name is added. Two
    /// collectors that watch the same node from the same host need two names. Default `forewarn`.
    pub name: String,
    /// Time after which a discovered node that unregistered from epmd and does not come back is forgotten: until
    /// then it is down. Default `1h`.
    #[serde(with = "duration")]
    pub forget_after: Duration,
    /// Below this age a discovered node that unregisters from epmd was a passer-by, and is forgotten at once instead of
    /// being down. Its age is the longest time that it was up while it was watched. Default `60s`.
    #[serde(with = "duration")]
    pub passing_max: Duration,
}

impl Default for BeamConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(10),
            mailbox_interval: Duration::from_secs(60),
            discover_local: true,
            discover_exclude: ["rabbitmqcli-*", "rem-*", "remsh*", "*_maint_*"].map(str::to_owned).into(),
            cookie_file: None,
            nodes: Vec::new(),
            epmd_port: None,
            scan_processes_max: 20_000,
            mailbox_watch_min: 1_000,
            mailbox_limit: 20_000,
            reply_bytes_max: ByteSize::mib(16),
            call_timeout: Duration::from_secs(7),
            name: "forewarn".into(),
            forget_after: Duration::from_secs(3600),
            passing_max: Duration::from_secs(60),
        }
    }
}

/// One node that a person named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The full node name, such as `rabbit@mq1.example.org`. We connect to its host part and nowhere else.
    pub name: String,
    /// File that holds its cookie. Default: the collector's.
    #[serde(default)]
    pub cookie_file: Option<PathBuf>,
    /// Environment variable that holds its cookie; not together with `cookie_file`.
    #[serde(default)]
    pub cookie_env: Option<String>,
    /// Port of the epmd on its host. Default: the collector's.
    #[serde(default)]
    pub epmd_port: Option<u16>,
}

impl BeamConfig {
    /// Returns everything that is wrong, each with the path of the key; no I/O.
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let least = Duration::from_millis(100);
        for (key, value) in [
            ("interval", self.interval),
            ("mailbox_interval", self.mailbox_interval),
            ("call_timeout", self.call_timeout),
        ] {
            if value < least {
                wrong.push(format!("beam.{key}: must be at least 100ms"));
            }
        }
        if self.scan_processes_max == 0 || self.mailbox_watch_min == 0 || self.mailbox_limit == 0 {
            wrong.push("beam: scan_processes_max, mailbox_watch_min and mailbox_limit must be above 0".into());
        }
        if !(ByteSize(64 << 10)..=ByteSize::mib(256)).contains(&self.reply_bytes_max) {
            wrong.push("beam.reply_bytes_max: must be between 64KiB and 256MiB".into());
        }
        let plain = |s: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            !s.is_empty() && s.len() <= 100 && s.chars().all(allowed)
        };
        if !self.name.splitn(2, '@').all(plain) {
            let form = "letters, digits, '_', '-' and '.', with or without @host";
            wrong.push(format!("beam.name: {:?} must be {form}", self.name));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (i, node) in self.nodes.iter().enumerate() {
            if let Err(why) = node.name.parse::<NodeName>() {
                wrong.push(format!("beam.nodes[{i}].name: {:?} is not name@host: {why}", node.name));
            }
            if !seen.insert(&node.name) {
                wrong.push(format!("beam.nodes[{i}].name: {:?} is there twice", node.name));
            }
            if node.cookie_file.is_some() && node.cookie_env.is_some() {
                wrong.push(format!("beam.nodes[{i}]: cookie_file and cookie_env exclude each other"));
            }
        }
        wrong
    }

    /// Says whether discovery leaves a node of this name (before the `@`) alone.
    pub(super) fn leaves_out(&self, alive: &str) -> bool {
        self.discover_exclude.iter().any(|pattern| matches(pattern, alive))
    }

    /// Returns the port of epmd: the configured one, else `ERL_EPMD_PORT`, else 4369.
    pub(super) fn epmd_port(&self) -> u16 {
        let from_env = || std::env::var("ERL_EPMD_PORT").ok()?.parse().ok();
        self.epmd_port.or_else(from_env).unwrap_or(erl_dist::epmd::DEFAULT_EPMD_PORT)
    }
}

/// Says whether `name` is what `pattern` says, where each `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let (between, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_and_shells_are_left_out() {
        let config = BeamConfig::default();
        for name in ["rabbitmqcli-12-rabbit", "rem-1a2b-emqx", "remsh77", "emqx_maint_9", "_maint_"] {
            assert!(config.leaves_out(name), "{name}");
        }
        for name in ["rabbit", "rabbitmq", "remote", "premsh", "maint", "a_maint"] {
            assert!(!config.leaves_out(name), "{name}");
        }
        assert!(matches("*", "") && matches("a*b*c", "axbxbc") && matches("a**", "a"));
        assert!(!matches("a*a", "a") && !matches("a*b*c", "acb") && !matches("", "a"));
    }

    #[test]
    fn defaults_are_valid_and_errors_name_the_key() {
        for name in ["forewarn", "forewarn@watch.example.org"] {
            let good = BeamConfig { name: name.into(), ..BeamConfig::default() };
            assert_eq!(good.validate(), Vec::<String>::new());
        }
        let node = |name: &str| NodeConfig {
            name: name.into(),
            cookie_file: Some("a".into()),
            cookie_env: Some("B".into()),
            epmd_port: None,
        };
        let bad = BeamConfig {
            interval: Duration::ZERO,
            name: "a b".into(),
            reply_bytes_max: ByteSize(1),
            scan_processes_max: 0,
            nodes: vec![node("nohost"), node("a@b"), node("a@b")],
            ..BeamConfig::default()
        };
        let wrong = bad.validate().join("\n");
        for part in ["interval", "beam.name", "reply_bytes", "scan_proc", "nodes[0].name", "nodes[2].name", "exclude"] {
            assert!(wrong.contains(part), "{part} is not in\n{wrong}");
        }
    }
}
