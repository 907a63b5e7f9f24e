//! The section `web` of the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::access::Role;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// The section `web`: exporter-toolkit's words for TLS and basic auth, and bearer tokens with roles.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// Serves HTTPS with this certificate; default plain HTTP.
    pub tls_server_config: Option<TlsServerConfig>,
    /// User names with bcrypt hashes. They have the role `operate`.
    pub basic_auth_users: BTreeMap<String, Secret>,
    /// Tokens for programs.
    pub bearer_tokens: Vec<BearerToken>,
    /// Further names (without port) that the listener answers to, beside IP addresses, `localhost` and the host's own.
    pub hosts: Vec<String>,
    /// Allows listening beyond loopback without users or tokens. Default false.
    pub insecure: bool,
    /// Where people reach the page, for links in notifications. Default: the listener's own address.
    pub external_url: Option<String>,
}

/// Certificate and key, both PEM files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsServerConfig {
    /// The certificate chain.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// A token and what it may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BearerToken {
    /// The token itself; better is `token_file`.
    #[serde(default)]
    token: Option<Secret>,
    /// A file that holds the token.
    #[serde(default)]
    token_file: Option<PathBuf>,
    /// What it may do.
    pub role: Role,
}

impl BearerToken {
    /// Returns the token, read from its file if it is in one.
    ///
    /// # Errors
    /// A sentence naming the file and why it cannot be read, or that it is empty.
    pub fn secret(&self) -> Result<Secret, String> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), None) => token.0.clone(),
            (None, Some(path)) => {
                std::fs::read_to_string(path).map_err(|e| format!("token_file {}: {e}", path.display()))?
            }
            _ => return Err("web.bearer_tokens: each needs exactly one of token and token_file".into()),
        };
        let text = text.trim();
        if text.is_empty() { Err("web.bearer_tokens: a token is empty".into()) } else { Ok(Secret(text.into())) }
    }
}

impl WebConfig {
    /// Says whether anybody must show who they are.
    pub fn is_protected(&self) -> bool {
        !self.basic_auth_users.is_empty() || !self.bearer_tokens.is_empty()
    }

    /// Checks the section without touching a file.
    pub fn validate(&self, listen: SocketAddr) -> Vec<String> {
        let mut problems = Vec::new();
        if !listen.ip().is_loopback() && !self.is_protected() && !self.insecure {
            problems.push(format!(
                "listen {listen} is reachable from other machines and web has no users or tokens: set \
                 web.basic_auth_users or web.bearer_tokens, or web.insecure: true if that is meant"
            ));
        }
        for (user, hash) in &self.basic_auth_users {
            if !["$2a$", "$2b$", "$2y$"].iter().any(|p| hash.0.starts_with(p)) || hash.0.len() != 60 {
                problems.push(format!("web.basic_auth_users: the value of {user:?} is not a bcrypt hash"));
            }
        }
        for token in &self.bearer_tokens {
            if token.token.is_some() == token.token_file.is_some() {
                problems.push("web.bearer_tokens: each needs exactly one of token and token_file".into());
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_only_with_access_control_or_by_intent() {
        let mut web = WebConfig::default();
        let beyond: SocketAddr = "0.0.0.0:9797".parse().unwrap();
        assert!(web.validate("127.0.0.1:9797".parse().unwrap()).is_empty());
        assert!(web.validate("[::1]:9797".parse().unwrap()).is_empty());
        assert_eq!(web.validate(beyond).len(), 1);
        web.insecure = true;
        assert!(web.validate(beyond).is_empty());
        web.insecure = false;
        web.bearer_tokens = serde_saphyr::from_str("[{token: abc, role: read}]").unwrap();
        assert!(web.validate(beyond).is_empty());
    }

    #[test]
    fn secrets_are_not_printed() {
        let web: WebConfig = serde_saphyr::from_str(
            "{basic_auth_users: {ann: hash-canary}, bearer_tokens: [{token: tok-canary, role: read}]}",
        )
        .unwrap();
        assert!(!format!("{web:?}").contains("canary"));
        assert_eq!(web.validate("127.0.0.1:1".parse().unwrap()).len(), 1, "not a bcrypt hash");
    }
}
