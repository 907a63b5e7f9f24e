//! The cookie: the only credential of Erlang's distribution, and full code execution for whoever has it.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest cookie taken, in bytes: an atom has at most 255 characters.
const COOKIE_BYTES_MAX: u64 = 1024;

/// A cookie. Prints as `<redacted>`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Cookie(String);

impl Cookie {
    /// Takes the text as a file or a variable has it: white space around it does not count, as in Erlang.
    pub(super) fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// Returns the secret, for the handshake only.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Where a node's cookie comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CookieSource {
    /// Erlang's own places: `~/.erlang.cookie`, else `$XDG_CONFIG_HOME/erlang/.erlang.cookie`.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// A cookie and where it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The cookie.
    pub(super) cookie: Cookie,
    /// Where, for messages.
    pub(super) place: String,
    /// Whether others than the owner can read the file. Erlang refuses such a file; we warn.
    pub(super) exposed: bool,
}

impl CookieSource {
    /// Says where the cookie is looked for, for messages.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Default => "~/.erlang.cookie".into(),
            Self::File(path) => path.display().to_string(),
            Self::Env(name) => format!("${name}"),
        }
    }

    /// Reads the cookie anew, so that a mended file is noticed.
    ///
    /// # Errors
    /// A sentence that names the place.
    pub(super) fn load(&self) -> Result<Found, String> {
        match self {
            Self::Env(name) => {
                let text = std::env::var(name).map_err(|_| format!("${name} is not set"))?;
                let cookie = Cookie::new(&text).ok_or_else(|| format!("${name} is empty"))?;
                Ok(Found { cookie, place: self.place(), exposed: false })
            }
            Self::File(path) => from_file(path),
            Self::Default => {
                let places = default_places(|name| std::env::var(name).ok());
                let there = places.iter().find(|p| p.exists()).or(places.first());
                from_file(there.ok_or("neither HOME nor XDG_CONFIG_HOME is set, so there is no cookie file")?)
            }
        }
    }
}

fn default_places(env: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let home = env("HOME").filter(|h| !h.is_empty()).map(PathBuf::from);
    let xdg = env("XDG_CONFIG_HOME").filter(|x| !x.is_empty()).map(PathBuf::from);
    let xdg = xdg.or_else(|| home.as_ref().map(|h| h.join(".config")));
    let first = home.map(|h| h.join(".erlang.cookie"));
    first.into_iter().chain(xdg.map(|x| x.join("erlang/.erlang.cookie"))).collect()
}

fn from_file(path: &Path) -> Result<Found, String> {
    let at = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let meta = std::fs::metadata(path).map_err(|e| at(&e))?;
    if !meta.is_file() || meta.len() > COOKIE_BYTES_MAX {
        return Err(at(&"not a small regular file"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| at(&e))?;
    let cookie = Cookie::new(&text).ok_or_else(|| at(&"empty"))?;
    Ok(Found { cookie, place: path.display().to_string(), exposed: meta.permissions().mode() & 0o077 != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_trims_and_tells_of_open_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let source = CookieSource::File(path.clone());
        assert!(source.load().unwrap_err().contains("/c: "));
        std::fs::write(&path, "  SECRET\n").unwrap();
        for (mode, exposed) in [(0o400, false), (0o600, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = source.load().unwrap();
            assert_eq!((found.cookie.expose(), found.exposed), ("SECRET", exposed), "{mode:o}");
            assert!(!format!("{found:?}").contains("SECRET"));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "\n").unwrap();
        assert!(source.load().unwrap_err().ends_with("empty"));
        assert!(CookieSource::Env("FOREWARN_NO_SUCH_VARIABLE".into()).load().is_err());
    }

    #[test]
    fn looks_where_erlang_does() {
        let places = |pairs: &'static [(&str, &str)]| {
            default_places(move |n| pairs.iter().find(|(k, _)| *k == n).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(places(&[]), Vec::<PathBuf>::new());
        let both = [PathBuf::from("/h/.erlang.cookie"), PathBuf::from("/h/.config/erlang/.erlang.cookie")];
        assert_eq!(places(&[("HOME", "/h")]), both);
        assert_eq!(places(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")])[1], Path::new("/x/erlang/.erlang.cookie"));
    }
}
