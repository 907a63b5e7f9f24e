//! Predicates on labels, with the words and the meaning of Prometheus.

use std::fmt;
use std::str::FromStr;

use regex::Regex;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::label::{Labels, METRIC_NAME};

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

impl MatchOp {
    fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A predicate on one label; a label that is not there counts as the empty string.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    regex: Option<Regex>,
}

impl Matcher {
    /// Makes a matcher.
    ///
    /// # Errors
    /// A sentence when the regular expression does not compile (size is limited to 1 MiB compiled).
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, String> {
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(
                regex::RegexBuilder::new(&format!("^(?s:{value})$"))
                    .size_limit(1 << 20)
                    .build()
                    .map_err(|e| format!("matcher {name}{}{value:?}: {e}", op.sign()))?,
            ),
        };
        Ok(Self { name: name.into(), op, value: value.into(), regex })
    }

    /// Makes `name="value"`.
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), regex: None }
    }

    /// Returns the label's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how it compares.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// Returns what it compares with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Says whether a label of this value (empty when absent) meets it.
    pub fn matches_value(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => value == self.value,
            (MatchOp::NotEqual, _) => value != self.value,
            (MatchOp::Regex, Some(re)) => re.is_match(value),
            (MatchOp::NotRegex, Some(re)) => !re.is_match(value),
            (_, None) => unreachable!("a regex matcher always holds its regex"),
        }
    }

    /// Says whether the label set meets it.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name).unwrap_or_default())
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.sign(), self.value)
    }
}

/// Reads `name="value"` (quotes may be left out).
impl FromStr for Matcher {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut scan = Scan { rest: text.trim() };
        let m = scan.matcher()?;
        if scan.rest.is_empty() { Ok(m) } else { Err(format!("matcher {text:?}: {:?} is left over", scan.rest)) }
    }
}

/// A conjunction of matchers, written as Prometheus' vector selector: `metric{name="value",other=~"a|b"}`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selector(pub Vec<Matcher>);

impl Selector {
    /// Says whether the label set meets every matcher.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|m| m.matches(labels))
    }

    /// Returns the metric's name when the selector fixes it.
    pub fn metric(&self) -> Option<&str> {
        self.0.iter().find(|m| m.name == METRIC_NAME && m.op == MatchOp::Equal).map(|m| m.value.as_str())
    }
}

impl FromStr for Selector {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (metric, braces) = match text.find('{') {
            Some(i) => (text[..i].trim(), text[i..].trim()),
            None => (text.trim(), ""),
        };
        let mut matchers = Vec::new();
        if !metric.is_empty() {
            matchers.push(Matcher::equal(METRIC_NAME, metric));
        }
        if !braces.is_empty() {
            let inner = braces
                .strip_prefix('{')
                .and_then(|b| b.strip_suffix('}'))
                .ok_or_else(|| format!("selector {text:?}: the closing brace is missing"))?;
            let mut scan = Scan { rest: inner.trim() };
            while !scan.rest.is_empty() {
                matchers.push(scan.matcher()?);
                scan.rest = scan.rest.strip_prefix(',').unwrap_or(scan.rest).trim_start();
            }
        }
        if matchers.is_empty() { Err(format!("selector {text:?} is empty")) } else { Ok(Self(matchers)) }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = self.metric();
        f.write_str(metric.unwrap_or_default())?;
        let others: Vec<String> = self
            .0
            .iter()
            .filter(|m| !(m.name == METRIC_NAME && m.op == MatchOp::Equal))
            .map(ToString::to_string)
            .collect();
        if others.is_empty() && metric.is_some() { Ok(()) } else { write!(f, "{{{}}}", others.join(",")) }
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

struct Scan<'a> {
    rest: &'a str,
}

impl Scan<'_> {
    fn matcher(&mut self) -> Result<Matcher, String> {
        let name = if self.rest.starts_with('"') { self.quoted()? } else { self.bare(|c| !"=!~,{} \t".contains(c)) };
        if name.is_empty() {
            return Err(format!("a label name is missing before {:?}", self.rest));
        }
        self.rest = self.rest.trim_start();
        let (op, sign) = [MatchOp::Regex, MatchOp::NotRegex, MatchOp::NotEqual, MatchOp::Equal]
            .into_iter()
            .map(|op| (op, op.sign()))
            .find(|(_, s)| self.rest.starts_with(s))
            .ok_or_else(|| format!("after {name:?} one of = != =~ !~ is expected, not {:?}", self.rest))?;
        self.rest = self.rest[sign.len()..].trim_start();
        let value = if self.rest.starts_with('"') {
            self.quoted()?
        } else {
            self.bare(|c| !",{}".contains(c)).trim().to_owned()
        };
        self.rest = self.rest.trim_start();
        Matcher::new(&name, op, &value)
    }

    fn bare(&mut self, keep: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[i + 1..];
                    return Ok(out);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, c @ ('"' | '\\'))) => out.push(c),
                    // A backslash before anything else stays: it is most likely the regular expression's own.
                    Some((_, c)) => out.extend(['\\', c]),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(format!("the closing quote is missing in {:?}", self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_as_in_prometheus() {
        let s: Selector = r#"node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs", mountpoint="/", }"#.parse().unwrap();
        let l = |m, f| Labels::series(m, &[("fstype", f), ("mountpoint", "/")]).unwrap();
        assert!(s.matches(&l("node_filesystem_avail_bytes", "ext4")));
        assert!(s.matches(&l("node_filesystem_avail_bytes", "tmpfs2")), "anchored");
        assert!(!s.matches(&l("node_filesystem_avail_bytes", "tmpfs")));
        assert!(!s.matches(&l("other", "ext4")));
        assert_eq!(s.to_string().parse::<Selector>().unwrap(), s);
        assert_eq!(s.metric(), Some("node_filesystem_avail_bytes"));
    }

    #[test]
    fn an_absent_label_is_the_empty_string() {
        assert!("x!=\"a\"".parse::<Matcher>().unwrap().matches(&Labels::empty()));
        assert!("x=~\".*\"".parse::<Matcher>().unwrap().matches(&Labels::empty()));
        assert!(!"x=~\".+\"".parse::<Matcher>().unwrap().matches(&Labels::empty()));
    }

    #[test]
    fn malformed_selectors_say_why() {
        for bad in ["", "{}", "a{b}", "a{b=\"c}", "a{=\"c\"}", "a{b=~\"(\"}", "a{b=\"c\""] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }
}
