//! Label sets: the identity of a series, an alert or a target.
//!
//! A [`Labels`] is sorted by name, holds each name once and no empty value (an empty value means "not there", as in
//! Prometheus). Clones share one allocation. The metric's name is the label [`METRIC_NAME`].

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Largest number of labels in one set.
pub const LABELS_MAX: usize = 64;
/// Largest label name, in bytes.
pub const LABEL_NAME_BYTES_MAX: usize = 256;
/// Largest label value, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 4096;

/// Why a list of pairs is not a label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// A label without a name.
    #[error("label with an empty name")]
    EmptyName,
    /// The same name twice.
    #[error("label {0:?} is there twice")]
    Duplicate(String),
    /// A name longer than [`LABEL_NAME_BYTES_MAX`].
    #[error("label name of {0} bytes is longer than {LABEL_NAME_BYTES_MAX}")]
    NameTooLong(usize),
    /// A value longer than [`LABEL_VALUE_BYTES_MAX`].
    #[error("value of label {name:?} has {bytes} bytes, more than {LABEL_VALUE_BYTES_MAX}")]
    ValueTooLong {
        /// The label's name.
        name: String,
        /// Length of its value.
        bytes: usize,
    },
    /// More than [`LABELS_MAX`] labels.
    #[error("{0} labels are more than {LABELS_MAX}")]
    TooMany(usize),
}

type Pair = (Box<str>, Box<str>);

/// A sorted label set without duplicates or empty values.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[Pair]>);

impl Labels {
    /// Builds a set from pairs in any order; pairs with an empty value are dropped.
    ///
    /// # Errors
    /// [`LabelError`] for an empty or repeated name, or when a limit of this module is exceeded.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, LabelError>
    where
        N: Into<Box<str>>,
        V: Into<Box<str>>,
    {
        let mut list: Vec<Pair> = Vec::new();
        for (name, value) in pairs {
            let (name, value): Pair = (name.into(), value.into());
            if name.is_empty() {
                return Err(LabelError::EmptyName);
            }
            if name.len() > LABEL_NAME_BYTES_MAX {
                return Err(LabelError::NameTooLong(name.len()));
            }
            if value.len() > LABEL_VALUE_BYTES_MAX {
                return Err(LabelError::ValueTooLong { name: name.into(), bytes: value.len() });
            }
            if !value.is_empty() {
                list.push((name, value));
            }
        }
        if list.len() > LABELS_MAX {
            return Err(LabelError::TooMany(list.len()));
        }
        list.sort_unstable();
        if let Some(twice) = list.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(LabelError::Duplicate(twice[0].0.to_string()));
        }
        Ok(Self(list.into()))
    }

    /// Builds the labels of a series of `metric`.
    ///
    /// # Errors
    /// As [`Labels::from_pairs`].
    pub fn series(metric: &str, pairs: &[(&str, &str)]) -> Result<Self, LabelError> {
        Self::from_pairs(std::iter::once((METRIC_NAME, metric)).chain(pairs.iter().copied()))
    }

    /// Returns the empty set.
    pub fn empty() -> Self {
        Self(Arc::from([]))
    }

    /// Returns the value of `name`, or `None` when the label is not there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok().map(|i| self.0[i].1.as_ref())
    }

    /// Returns the metric's name, or the empty string.
    pub fn metric(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or_default()
    }

    /// Iterates over (name, value), sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))
    }

    /// Returns the number of labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a copy in which `name` has `value`; an empty value removes the label.
    ///
    /// # Errors
    /// As [`Labels::from_pairs`].
    pub fn with(&self, name: &str, value: &str) -> Result<Self, LabelError> {
        let others = self.iter().filter(|(n, _)| *n != name);
        Self::from_pairs(others.chain(std::iter::once((name, value))))
    }

    /// Returns a copy that has only the labels for which `keep` is true.
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(n, _)| keep(n)).cloned().collect())
    }

    /// Returns the number of bytes of all names and values.
    pub fn text_bytes(&self) -> usize {
        self.0.iter().map(|(n, v)| n.len() + v.len()).sum()
    }

    /// Hashes the set: FNV-1a, 64 bits, over each name and value followed by the byte 0xff.
    ///
    /// # Source
    /// Prometheus `common/model`, `LabelSet.Fingerprint`, which Alertmanager shows in its API.
    pub fn fingerprint(&self) -> u64 {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut add = |bytes: &[u8]| {
            for b in bytes.iter().chain(&[0xff]) {
                hash = (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for (name, value) in self.iter() {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        hash
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

/// Writes `metric{name="value",…}` with Prometheus' escapes.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric())?;
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().filter(|(n, _)| *n != METRIC_NAME).enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{comma}{name}=\"{value}\"")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        Self::from_pairs(map).map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for Labels {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Labels".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object", "additionalProperties": {"type": "string"}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_unique_and_without_empty_values() {
        let l = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", "")]).unwrap();
        assert_eq!(l.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(Labels::from_pairs([("a", "1"), ("a", "2")]), Err(LabelError::Duplicate("a".into())));
        assert_eq!(Labels::from_pairs([("", "1")]), Err(LabelError::EmptyName));
        assert!(matches!(Labels::from_pairs([("a", "x".repeat(5000))]), Err(LabelError::ValueTooLong { .. })));
        assert!(matches!(Labels::from_pairs((0..65).map(|i| (format!("l{i}"), "v"))), Err(LabelError::TooMany(65))));
    }

    #[test]
    fn with_replaces_and_an_empty_value_removes() {
        let l = Labels::series("up", &[("job", "x")]).unwrap();
        assert_eq!(l.with("job", "y").unwrap().get("job"), Some("y"));
        assert_eq!(l.with("job", "").unwrap().get("job"), None);
        assert_eq!(l.to_string(), r#"up{job="x"}"#);
    }

    #[test]
    fn fingerprint_is_that_of_prometheus() {
        // The empty set's fingerprint is the FNV-1a offset basis in common/model.
        assert_eq!(Labels::empty().fingerprint(), 14_695_981_039_346_656_037);
        let one = Labels::from_pairs([("name", "garland, briggs"), ("fear", "love is not enough")]).unwrap();
        // Computed by an independent implementation of the documented formula (Python).
        assert_eq!(one.fingerprint(), 0x507a62d79ee76c9a);
    }
}
