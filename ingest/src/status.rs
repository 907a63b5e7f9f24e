//! What is watched, and what could not be done: the board that the collectors write and the page, `/api/v1/nodes` and
//! the first lines of the output read.

use std::collections::BTreeMap;
use std::sync::Mutex;

use forewarn_schemas::Timestamp;
use serde::Serialize;

/// Whether a target answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It answers.
    Up,
    /// It did, or should, and does not.
    Down,
    /// It was never joined: something must be mended first (a wrong cookie, a missing right).
    Refused,
}

/// One target of a collector.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// The node's identity, as in the label `node`.
    pub node: String,
    /// Its family.
    pub family: String,
    /// The collector: `host`, `beam`.
    pub collector: String,
    /// Whether a person named it in the configuration (else it was discovered).
    pub configured: bool,
    /// Whether it answers.
    pub health: Health,
    /// Since when it has this health.
    pub since: Timestamp,
    /// When it was last polled with success.
    pub last_poll: Option<Timestamp>,
    /// What went wrong last, empty when nothing did.
    pub error: String,
    /// Facts about it for a person: release, versions, address.
    pub facts: BTreeMap<String, String>,
}

/// Something that could not be done, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Notice {
    /// Which part says so: `host`, `beam`, `web`.
    pub source: String,
    /// What could not be done.
    pub message: String,
    /// What a person can do about it.
    pub mend: String,
}

/// The board: latest word on every target, and notices. Bounded by the number of targets.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    targets: BTreeMap<(String, String), Target>,
    notices: BTreeMap<(String, String), Notice>,
}

/// Notices kept at most; the oldest by key stay.
const NOTICES_MAX: usize = 1_000;

impl Board {
    /// Writes the latest word on a target; `since` is kept while the health stays the same.
    pub fn set(&self, mut target: Target) {
        let mut inner = self.lock();
        let key = (target.collector.clone(), target.node.clone());
        if let Some(old) = inner.targets.get(&key)
            && old.health == target.health
        {
            target.since = old.since;
        }
        inner.targets.insert(key, target);
    }

    /// Forgets a target that is gone for good (a discovered node that unregistered).
    pub fn forget(&self, collector: &str, node: &str) {
        self.lock().targets.remove(&(collector.to_owned(), node.to_owned()));
    }

    /// Adds a notice; the same source and message again replaces it. Returns whether it is new.
    pub fn notice(&self, source: &str, message: &str, mend: &str) -> bool {
        let mut inner = self.lock();
        let key = (source.to_owned(), message.to_owned());
        let known = inner.notices.contains_key(&key);
        if !known && inner.notices.len() >= NOTICES_MAX {
            return false;
        }
        inner.notices.insert(key, Notice { source: source.into(), message: message.into(), mend: mend.into() });
        !known
    }

    /// Takes a notice back when what it said is mended.
    pub fn mended(&self, source: &str, message: &str) {
        self.lock().notices.remove(&(source.to_owned(), message.to_owned()));
    }

    /// Returns all targets, by collector and node.
    pub fn targets(&self) -> Vec<Target> {
        self.lock().targets.values().cloned().collect()
    }

    /// Returns all notices, by source and message.
    pub fn notices(&self) -> Vec<Notice> {
        self.lock().notices.values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Each method leaves the maps whole, so a poisoned lock guards nothing worse than an unpoisoned one.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
