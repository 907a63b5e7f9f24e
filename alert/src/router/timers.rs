//! When something has to be looked at again: one time for each key.

use std::collections::{BTreeMap, BTreeSet};

use forewarn_schemas::{Fingerprint, Timestamp};

use crate::notification::{DeliveryId, GroupId};

/// What a timer wakes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// A group is to be flushed.
    Group(GroupId),
    /// A notification is to be tried again.
    Delivery(DeliveryId),
    /// An alert that is over may be forgotten.
    Expire(Fingerprint),
}

/// The timers, by key and by time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    times: BTreeMap<Wake, Timestamp>,
    order: BTreeSet<(Timestamp, Wake)>,
}

impl Timers {
    /// Sets or moves a timer.
    pub(super) fn set(&mut self, wake: Wake, at: Timestamp) {
        if let Some(before) = self.times.insert(wake.clone(), at) {
            self.order.remove(&(before, wake.clone()));
        }
        self.order.insert((at, wake));
    }

    /// Removes a timer, if it is there.
    pub(super) fn clear(&mut self, wake: &Wake) {
        if let Some(at) = self.times.remove(wake) {
            self.order.remove(&(at, wake.clone()));
        }
    }

    /// Returns the time of the first timer.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out all timers that are due at `now`, earliest first.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<Wake> {
        let mut out = Vec::new();
        while self.order.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, wake)) = self.order.pop_first() {
                self.times.remove(&wake);
                out.push(wake);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_for_each_key() {
        let (a, b) = (Wake::Expire(Fingerprint(1)), Wake::Expire(Fingerprint(2)));
        let at = Timestamp::from_secs;
        let mut t = Timers::default();
        t.set(a.clone(), at(5));
        t.set(b.clone(), at(3));
        t.set(a.clone(), at(1));
        assert_eq!(t.next(), Some(at(1)));
        t.clear(&b);
        t.clear(&b);
        assert_eq!(t.take_due(at(0)), []);
        assert_eq!(t.take_due(at(9)), [a]);
        assert_eq!(t.next(), None);
    }
}
