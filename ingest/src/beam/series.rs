//! What is written: samples under the node's labels, and the markers that end a series.

use std::collections::HashSet;

use forewarn_schemas::{Batch, Labels, STALE_NAN, Timestamp};

/// The labels that all series of a node share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// The full node name.
    pub(super) node: String,
    /// Nodes that run the same: the release's name, else the node name before the `@`.
    pub(super) family: String,
    /// The release's name; empty (so absent) for plain Erlang.
    pub(super) release: String,
    /// `local` or `config`.
    pub(super) discovered: &'static str,
}

impl Base {
    /// Makes the labels of one series. `None` for values that no label can hold, which a node could make up.
    pub(super) fn labels(&self, metric: &str, process: &str) -> Option<Labels> {
        let pairs = [
            ("node", self.node.as_str()),
            ("family", &self.family),
            ("job", "beam"),
            ("release", &self.release),
            ("discovered", self.discovered),
            ("process", process),
        ];
        Labels::series(metric, &pairs).ok()
    }
}

/// Series that are written together, and which of them are alive.
#[derive(Debug, Default)]
pub(super) struct Scope {
    alive: HashSet<Labels>,
}

impl Scope {
    /// Adds a sample of each row to `batch`. When the rows are `complete`, series that had a sample before and have
    /// none now are ended; otherwise they only miss one.
    pub(super) fn write(&mut self, rows: Vec<(Labels, f64)>, complete: bool, ts: Timestamp, batch: &mut Batch) {
        let now: HashSet<Labels> = rows.iter().map(|(labels, _)| labels.clone()).collect();
        for (labels, value) in rows {
            batch.push(labels, ts, value);
        }
        if complete {
            for gone in self.alive.difference(&now) {
                batch.push(gone.clone(), ts, STALE_NAN);
            }
            self.alive = now;
        } else {
            self.alive.extend(now);
        }
    }

    /// Ends all series.
    pub(super) fn end(&mut self, ts: Timestamp, batch: &mut Batch) {
        for labels in self.alive.drain() {
            batch.push(labels, ts, STALE_NAN);
        }
    }
}

#[cfg(test)]
mod tests {
    use forewarn_schemas::is_stale;

    use super::*;

    fn base() -> Base {
        Base { node: "a@b".into(), family: "a".into(), release: String::new(), discovered: "local" }
    }

    #[test]
    fn labels_are_bounded() {
        let labels = base().labels("beam_mailbox_messages", "kernel").unwrap();
        let text = r#"beam_mailbox_messages{discovered="local",family="a",job="beam",node="a@b",process="kernel"}"#;
        assert_eq!(labels.to_string(), text);
        assert_eq!(base().labels("m", &"x".repeat(5000)), None);
    }

    #[test]
    fn only_what_is_gone_for_sure_is_ended() {
        let l = |name: &str| base().labels(name, "").unwrap();
        let mut scope = Scope::default();
        let ts = Timestamp::from_secs(1);
        let written = |scope: &mut Scope, rows: &[&str], complete| {
            let mut batch = Batch::default();
            scope.write(rows.iter().map(|n| (l(n), 1.0)).collect(), complete, ts, &mut batch);
            let stale = batch.series.iter().filter(|s| is_stale(s.samples[0].value));
            (batch.samples(), stale.map(|s| s.labels.metric().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(written(&mut scope, &["a", "b"], true), (2, vec![]));
        assert_eq!(written(&mut scope, &["a"], false), (1, vec![]));
        assert_eq!(written(&mut scope, &["a", "c"], true), (3, vec!["b".into()]));
        let mut batch = Batch::default();
        scope.end(ts, &mut batch);
        scope.end(ts, &mut batch);
        assert_eq!(batch.samples(), 2);
    }
}
