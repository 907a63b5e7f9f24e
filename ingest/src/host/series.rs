//! The series that this collector writes: labels built once per series, and what was written in the cycle before, so
//! that a series whose object is gone gets its stale marker.
//!
//! Series are held by part and object. A part that failed is not swept, and neither is an object that was marked as
//! unknown in this cycle: their series pause and go on later.

use std::collections::{HashMap, HashSet};

use forewarn_schemas::{Batch, Labels, STALE_NAN, Timestamp};

use super::SOURCE;
use super::error::Error;
use crate::status::Board;

/// Stale markers kept for a cycle that the intake refused; beyond it a series ends by falling silent.
const PENDING_MAX: usize = 10_000;

/// All series of one collector.
#[derive(Debug)]
pub(super) struct Ledger {
    identity: Vec<(&'static str, String)>,
    parts: Vec<PartSeries>,
    pending: Vec<Labels>,
    batch: Batch,
    cycle: u64,
    now: Timestamp,
}

#[derive(Debug, Default)]
struct PartSeries {
    objects: HashMap<Box<str>, Object>,
    errors: u64,
    last_error: String,
}

#[derive(Debug, Default)]
struct Object {
    series: Vec<Series>,
    /// The last cycle in which the object was there and could not be read.
    unknown: u64,
}

#[derive(Debug)]
struct Series {
    metric: &'static str,
    labels: Labels,
    written: u64,
}

impl Ledger {
    /// Makes the ledger of `parts` parts; `identity` is in the labels of every series.
    pub(super) fn new(parts: usize, identity: Vec<(&'static str, String)>) -> Self {
        Self {
            identity,
            parts: std::iter::repeat_with(PartSeries::default).take(parts).collect(),
            pending: Vec::new(),
            batch: Batch::default(),
            cycle: 0,
            now: Timestamp::default(),
        }
    }

    /// Begins a cycle whose samples are all of `now`.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.cycle += 1;
        self.now = now;
        for part in &mut self.parts {
            part.last_error.clear();
        }
    }

    /// Returns what one part writes to.
    pub(super) fn part<'a>(&'a mut self, index: usize, board: &'a Board) -> Out<'a> {
        Out {
            part: &mut self.parts[index],
            batch: &mut self.batch,
            identity: &self.identity,
            board,
            cycle: self.cycle,
            now: self.now,
        }
    }

    /// Ends the series of a part that were not written in this cycle, save those of unknown objects.
    pub(super) fn sweep(&mut self, index: usize) {
        let (cycle, now, batch) = (self.cycle, self.now, &mut self.batch);
        self.parts[index].objects.retain(|_, object| {
            if object.unknown != cycle {
                object.series.retain(|series| {
                    let keep = series.written == cycle;
                    if !keep {
                        batch.push(series.labels.clone(), now, STALE_NAN);
                    }
                    keep
                });
            }
            !object.series.is_empty()
        });
    }

    /// Counts the failure of a whole part.
    pub(super) fn fail(&mut self, index: usize, error: &Error) {
        self.parts[index].fail(error);
    }

    /// Returns errors so far, by part.
    pub(super) fn errors(&self) -> Vec<u64> {
        self.parts.iter().map(|p| p.errors).collect()
    }

    /// Returns the last error of this cycle, empty when there was none.
    pub(super) fn last_error(&self) -> &str {
        self.parts.iter().map(|p| p.last_error.as_str()).find(|e| !e.is_empty()).unwrap_or_default()
    }

    /// Takes back the stale markers of a batch that was not taken; they go out with the next one.
    pub(super) fn keep_markers(&mut self, markers: Vec<Labels>) {
        let room = PENDING_MAX.saturating_sub(self.pending.len());
        self.pending.extend(markers.into_iter().take(room));
    }

    /// Ends the cycle and returns its batch.
    pub(super) fn finish(&mut self) -> Batch {
        let mut batch = std::mem::take(&mut self.batch);
        if !self.pending.is_empty() {
            let written: HashSet<Labels> = batch.series.iter().map(|s| s.labels.clone()).collect();
            for labels in self.pending.drain(..).filter(|l| !written.contains(l)) {
                batch.push(labels, self.now, STALE_NAN);
            }
        }
        self.batch.series.reserve(batch.series.len());
        batch
    }
}

impl PartSeries {
    fn fail(&mut self, error: &Error) {
        tracing::debug!(%error, "a part of the host could not be read");
        self.errors += 1;
        self.last_error = error.to_string();
    }
}

/// What one part writes to during a cycle.
pub(super) struct Out<'a> {
    part: &'a mut PartSeries,
    batch: &'a mut Batch,
    identity: &'a [(&'static str, String)],
    board: &'a Board,
    cycle: u64,
    now: Timestamp,
}

impl Out<'_> {
    /// Writes a sample of a series that the host has once.
    pub(super) fn set(&mut self, metric: &'static str, value: f64) {
        self.object("", &[]).set(metric, value);
    }

    /// Returns what the samples of one object are written to.
    ///
    /// - `key`: unique within the part; the same `labels` go with it each time.
    pub(super) fn object<'o>(&'o mut self, key: &str, labels: &'o [(&'static str, &'o str)]) -> ObjectOut<'o> {
        if !self.part.objects.contains_key(key) {
            self.part.objects.insert(key.into(), Object::default());
        }
        // A second lookup rather than an owned key for each call.
        let object = self.part.objects.get_mut(key).expect("was inserted above");
        ObjectOut {
            object,
            batch: self.batch,
            identity: self.identity,
            labels,
            errors: &mut self.part.errors,
            cycle: self.cycle,
            now: self.now,
        }
    }

    /// Says whether the object was written in an earlier cycle and has not ended.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.part.objects.contains_key(key)
    }

    /// Marks an object as there but not readable this time: its series do not end.
    pub(super) fn unknown(&mut self, key: &str) {
        if let Some(object) = self.part.objects.get_mut(key) {
            object.unknown = self.cycle;
        }
    }

    /// Counts an error that costs one object, not the part.
    pub(super) fn error(&mut self, error: &Error) {
        self.part.fail(error);
    }

    /// Tells people what could not be done, and how to mend it.
    pub(super) fn notice(&self, message: &str, mend: &str) {
        if self.board.notice(SOURCE, message, mend) {
            tracing::info!(message, mend, "notice of the host collector");
        }
    }

    /// Takes a notice back.
    pub(super) fn mended(&self, message: &str) {
        self.board.mended(SOURCE, message);
    }
}

/// What the samples of one object are written to.
pub(super) struct ObjectOut<'a> {
    object: &'a mut Object,
    batch: &'a mut Batch,
    identity: &'a [(&'static str, String)],
    labels: &'a [(&'static str, &'a str)],
    errors: &'a mut u64,
    cycle: u64,
    now: Timestamp,
}

impl ObjectOut<'_> {
    /// Writes a sample; the second of one series in a cycle is dropped, because the edge would refuse both.
    pub(super) fn set(&mut self, metric: &'static str, value: f64) {
        if let Some(series) = self.object.series.iter_mut().find(|s| s.metric == metric) {
            if series.written != self.cycle {
                series.written = self.cycle;
                self.batch.push(series.labels.clone(), self.now, value);
            }
            return;
        }
        let own = self.labels.iter().copied();
        let pairs = self.identity.iter().map(|(n, v)| (*n, v.as_str())).chain(own).collect::<Vec<_>>();
        match Labels::series(metric, &pairs) {
            Ok(labels) => {
                self.batch.push(labels.clone(), self.now, value);
                self.object.series.push(Series { metric, labels, written: self.cycle });
            }
            // A path longer than a label may be.
            Err(_) => *self.errors += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(1, vec![("node", "n".into())])
    }

    fn cycle(ledger: &mut Ledger, board: &Board, ok: bool, write: impl Fn(&mut Out<'_>)) -> Vec<(String, f64)> {
        ledger.begin(Timestamp::from_secs(1));
        write(&mut ledger.part(0, board));
        if ok {
            ledger.sweep(0);
        }
        ledger.finish().series.iter().map(|s| (s.labels.to_string(), s.samples[0].value)).collect()
    }

    fn markers(samples: &[(String, f64)]) -> usize {
        samples.iter().filter(|(_, v)| forewarn_schemas::is_stale(*v)).count()
    }

    #[test]
    fn a_series_that_is_gone_gets_one_marker() {
        let (mut l, board) = (ledger(), Board::default());
        let first = cycle(&mut l, &board, true, |out| {
            out.set("a", 1.0);
            out.object("x", &[("mount", "x")]).set("b", 2.0);
            out.object("x", &[("mount", "x")]).set("b", 3.0);
        });
        assert_eq!(first, [("a{node=\"n\"}".into(), 1.0), ("b{mount=\"x\",node=\"n\"}".into(), 2.0)]);
        let second = cycle(&mut l, &board, true, |out| out.set("a", 1.0));
        assert_eq!((second.len(), markers(&second)), (2, 1));
        let third = cycle(&mut l, &board, true, |out| out.set("a", 1.0));
        assert_eq!((third.len(), markers(&third)), (1, 0));
        let back = cycle(&mut l, &board, true, |out| out.object("x", &[("mount", "x")]).set("b", 4.0));
        assert_eq!((back.len(), markers(&back)), (2, 1));
    }

    #[test]
    fn a_failed_part_and_an_unknown_object_end_nothing() {
        let (mut l, board) = (ledger(), Board::default());
        let write = |out: &mut Out<'_>| out.object("x", &[("mount", "x")]).set("b", 2.0);
        cycle(&mut l, &board, true, write);
        assert!(cycle(&mut l, &board, false, |_| ()).is_empty());
        assert!(cycle(&mut l, &board, true, |out| out.unknown("x")).is_empty());
        assert_eq!(markers(&cycle(&mut l, &board, true, |_| ())), 1);
    }

    #[test]
    fn markers_not_taken_go_out_later_unless_the_series_is_back() {
        let (mut l, board) = (ledger(), Board::default());
        let both = |out: &mut Out<'_>| {
            out.set("a", 1.0);
            out.set("b", 1.0);
        };
        cycle(&mut l, &board, true, both);
        cycle(&mut l, &board, true, |_| ());
        let lost = ["a", "b"].map(|m| Labels::series(m, &[("node", "n")]).unwrap());
        l.keep_markers(lost.to_vec());
        let next = cycle(&mut l, &board, true, |out| out.set("a", 5.0));
        assert_eq!(next[0], ("a{node=\"n\"}".into(), 5.0));
        assert_eq!((next.len(), markers(&next)), (2, 1));
        assert_eq!(cycle(&mut l, &board, true, |out| out.set("a", 5.0)).len(), 1);
    }

    #[test]
    fn labels_that_are_too_long_cost_one_error() {
        let (mut l, board) = (ledger(), Board::default());
        let long = "x".repeat(5000);
        assert!(cycle(&mut l, &board, true, |out| out.object("x", &[("mount", &long)]).set("b", 1.0)).is_empty());
        assert_eq!(l.errors(), [1]);
    }
}
