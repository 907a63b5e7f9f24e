//! Whether nodes are up: what their `up` series say, and silence.

use std::time::Duration;

use forewarn_schemas::node::{FAMILY, family_of};
use forewarn_schemas::{Labels, SeriesId, Timestamp, is_stale};

use crate::codec::state_struct;

/// `up` series kept per node.
const VOICES_MAX: usize = 8;

/// A node as seen now.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// Its identity.
    pub node: String,
    /// Its family.
    pub family: String,
    /// Whether it is up: what its `up` series say when they are fresh (one of several is enough), else `false` when that
    /// is what they said last, else `true` while its other samples are fresh, else `None`: silence proves nothing.
    pub up: Option<bool>,
    /// Since when.
    pub since: Timestamp,
    /// Time of its newest sample, `up` series not counted.
    pub last_sample: Timestamp,
    /// Whether somebody watches it on purpose, so that it is missed when it is silent: an `up` series says so.
    pub configured: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Voice {
    series: SeriesId,
    up: bool,
    received: Timestamp,
    interval: f64,
}
state_struct!(Voice { series, up, received, interval });

/// What is kept of a node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub name: String,
    pub family: String,
    named_family: bool,
    /// Newest sample, by its own time and by the record's; `MIN` while there is none.
    pub last: Timestamp,
    pub received: Timestamp,
    voices: Vec<Voice>,
    up: Option<bool>,
    since: Timestamp,
    configured: bool,
    /// When its last `up` series was ended: nobody watches it any more.
    pub left: Option<Timestamp>,
}
state_struct!(Node { name, family, named_family, last, received, voices, up, since, configured, left });

impl Node {
    pub(crate) fn new(name: &str, labels: &Labels) -> Self {
        Self {
            name: name.to_owned(),
            family: family_of(labels),
            named_family: labels.get(FAMILY).is_some(),
            last: Timestamp::MIN,
            received: Timestamp::MIN,
            voices: Vec::new(),
            up: None,
            since: Timestamp::MIN,
            configured: false,
            left: None,
        }
    }

    /// Takes over the family of a series that names one.
    pub(crate) fn learn(&mut self, labels: &Labels) {
        if let (false, Some(family)) = (self.named_family, labels.get(FAMILY)) {
            self.family = family.to_owned();
            self.named_family = true;
        }
    }

    /// Learns from the labels of an `up` series that the node will be missed when it is silent; one that a collector
    /// found by itself (`discovered="local"`) may have been stopped on purpose.
    pub(crate) fn expect(&mut self, labels: &Labels) {
        self.configured |= labels.get("discovered") != Some("local");
    }

    /// Takes in a sample of an `up` series.
    pub(crate) fn hear(&mut self, series: SeriesId, received: Timestamp, value: f64) {
        if is_stale(value) {
            self.voices.retain(|v| v.series != series);
            if self.voices.is_empty() {
                self.left = Some(received);
            }
        }
        if value.is_nan() {
            return;
        }
        self.left = None;
        let up = value != 0.0;
        if let Some(v) = self.voices.iter_mut().find(|v| v.series == series) {
            let interval = received.seconds_since(v.received).max(0.0);
            *v = Voice { series, up, received: v.received.max(received), interval };
        } else if self.voices.len() < VOICES_MAX {
            self.voices.push(Voice { series, up, received, interval: 0.0 });
        }
    }

    /// Brings the status up to `at`. What is down stays down when its `up` series go silent, until they are ended or
    /// `gone_after` has passed.
    pub(crate) fn evaluate(&mut self, at: Timestamp, stale_after: Duration, gone_after: Duration) {
        let patience = stale_after.as_secs_f64();
        let fresh = |received: Timestamp, interval: f64| at.seconds_since(received) <= patience.max(5.0 * interval);
        let mut said = self.voices.iter().filter(|v| fresh(v.received, v.interval)).map(|v| v.up).peekable();
        let remembered = |v: &Voice| at.seconds_since(v.received) <= gone_after.as_secs_f64();
        let up = match said.peek() {
            Some(_) => Some(said.any(|up| up)),
            None if self.up == Some(false) && self.voices.iter().any(remembered) => Some(false),
            None if fresh(self.received, 0.0) => Some(true),
            None => None,
        };
        if up != self.up || self.since == Timestamp::MIN {
            (self.up, self.since) = (up, at);
        }
    }

    /// Returns when anything was last heard of it.
    pub(crate) fn heard(&self) -> Timestamp {
        self.voices.iter().map(|v| v.received).fold(self.received, Timestamp::max)
    }

    pub(crate) fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.name.clone(),
            family: self.family.clone(),
            up: self.up,
            since: self.since,
            last_sample: self.last,
            configured: self.configured,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_is_down_stays_down_in_silence() {
        let t = Timestamp::from_secs;
        let patience = Duration::from_secs(60);
        let mut n = Node::new("a", &Labels::default());
        n.hear(SeriesId(1), t(100), 0.0);
        n.evaluate(t(100), patience, DAY);
        n.evaluate(t(4_000), patience, DAY);
        assert_eq!((n.up, n.since), (Some(false), t(100)));
        let mut ended = n.clone();
        ended.hear(SeriesId(1), t(4_000), forewarn_schemas::STALE_NAN);
        ended.evaluate(t(4_010), patience, DAY);
        assert_eq!(ended.up, None, "nobody watches it any more");
        n.evaluate(t(100 + 86_401), patience, DAY);
        assert_eq!(n.up, None, "forgotten");
    }

    #[test]
    fn up_series_first_then_samples_then_silence() {
        let t = Timestamp::from_secs;
        let patience = Duration::from_secs(60);
        let mut n = Node::new("a", &Labels::from_pairs([("job", "j")]).unwrap());
        assert_eq!(n.family, "j");
        (n.received, n.last) = (t(100), t(100));
        n.evaluate(t(100), patience, DAY);
        assert_eq!((n.up, n.configured), (Some(true), false));
        n.expect(&Labels::from_pairs([("discovered", "local")]).unwrap());
        n.hear(SeriesId(1), t(110), 0.0);
        n.evaluate(t(110), patience, DAY);
        assert_eq!((n.up, n.since, n.configured), (Some(false), t(110), false));
        n.expect(&Labels::from_pairs([("job", "j")]).unwrap());
        assert!(n.status().configured);
        n.hear(SeriesId(2), t(120), 1.0);
        n.evaluate(t(120), patience, DAY);
        assert_eq!(n.up, Some(true), "one of two jobs sees it");
        n.evaluate(t(300), patience, DAY);
        assert_eq!((n.up, n.since), (None, t(300)));
        n.hear(SeriesId(1), t(310), forewarn_schemas::STALE_NAN);
        assert_eq!(n.left, None);
        n.hear(SeriesId(2), t(310), forewarn_schemas::STALE_NAN);
        assert_eq!(n.left, Some(t(310)));
    }
}
