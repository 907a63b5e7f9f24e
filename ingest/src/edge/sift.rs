//! What is refused, whose series it is, and which partition that is. Nothing here waits or remembers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::RangeInclusive;

use forewarn_schemas::node::{FAMILY, NODE, family_of, node_of};
use forewarn_schemas::{Batch, LabelError, Labels, METRIC_NAME, Sample, SeriesSamples, Timestamp, partition_of};

use super::{Accepted, Parts};

pub(super) const TOO_OLD: &str = "too_old";
pub(super) const TOO_NEW: &str = "too_new";
pub(super) const CONFLICT: &str = "conflict";
pub(super) const NO_METRIC_NAME: &str = "no_metric_name";
pub(super) const CARDINALITY: &str = "cardinality";
pub(super) const LABELS: &str = "labels";

/// Every reason for which a sample can be refused.
///
/// `too_old` and `too_new`: its timestamp; `conflict`: the same request has another value of the same series and time
/// before it (the first is kept); `no_metric_name`: its series has no name; `cardinality`: a new series above the
/// limits; `labels`: its labels do not fit once `node` and `family` are among them.
pub const REASONS: [&str; 6] = [TOO_OLD, TOO_NEW, CONFLICT, NO_METRIC_NAME, CARDINALITY, LABELS];

/// A series that passed the checks, with its fingerprint.
pub(super) type Checked = (u64, SeriesSamples);

impl Accepted {
    pub(super) fn refuse(&mut self, reason: &'static str, samples: usize) {
        if samples > 0 {
            *self.refused.entry(reason).or_default() += samples;
        }
    }
}

/// Checks each series on its own and gives it its identity.
pub(super) fn check(batch: Batch, range: &RangeInclusive<Timestamp>) -> (Vec<Checked>, Accepted) {
    let mut accepted = Accepted::default();
    let mut out = Vec::with_capacity(batch.series.len());
    for SeriesSamples { labels, mut samples } in batch.series {
        if labels.get(METRIC_NAME).is_none() {
            accepted.refuse(NO_METRIC_NAME, samples.len());
            continue;
        }
        let mut drop_where = |reason, bad: &dyn Fn(Timestamp) -> bool| {
            let before = samples.len();
            samples.retain(|s| !bad(s.ts));
            accepted.refuse(reason, before - samples.len());
        };
        drop_where(TOO_OLD, &|ts| ts < *range.start());
        drop_where(TOO_NEW, &|ts| ts > *range.end());
        match identified(labels) {
            _ if samples.is_empty() => {}
            Ok(labels) => out.push((labels.fingerprint(), SeriesSamples { labels, samples })),
            Err(_) => accepted.refuse(LABELS, samples.len()),
        }
    }
    (out, accepted)
}

/// Adds `node` and `family` where they are missing.
fn identified(labels: Labels) -> Result<Labels, LabelError> {
    let labels = match labels.get(NODE) {
        Some(_) => labels,
        None => labels.with(NODE, node_of(&labels))?,
    };
    match labels.get(FAMILY) {
        Some(_) => Ok(labels),
        None => labels.with(FAMILY, &family_of(&labels)),
    }
}

/// Splits series by partition. Series that are there more than once become one, samples that are there more than once
/// are kept once, and of two values for one time the first is kept.
pub(super) fn split(series: Vec<Checked>, partitions: u32, accepted: &mut Accepted) -> Parts {
    let mut parts = Parts::new();
    let mut at: HashMap<u64, (forewarn_schemas::PartitionId, usize)> = HashMap::with_capacity(series.len());
    for (fingerprint, series) in series {
        let place = at.entry(fingerprint);
        if let Entry::Occupied(place) = &place {
            let (p, i) = *place.get();
            if let Some(same) = parts.get_mut(&p).map(|b: &mut Batch| &mut b.series[i])
                && same.labels == series.labels
            {
                same.samples.extend(series.samples);
                continue;
            }
        }
        let p = partition_of(node_of(&series.labels), partitions);
        let part = parts.entry(p).or_default();
        place.or_insert((p, part.series.len()));
        part.series.push(series);
    }
    for series in parts.values_mut().flat_map(|b| &mut b.series) {
        accepted.refuse(CONFLICT, keep_first(&mut series.samples));
        accepted.samples += series.samples.len();
    }
    parts
}

/// Adds `from` to `into`, as [`split`] does within a batch; what comes second is what would have got the higher offset.
/// Returns how many samples of `from` were dropped because they contradict one of `into`.
pub(super) fn merge(into: &mut Parts, from: Parts) -> usize {
    let mut conflicts = 0;
    for (p, batch) in from {
        let part = into.entry(p).or_default();
        let mut at: HashMap<Labels, usize> =
            part.series.iter().enumerate().map(|(i, s)| (s.labels.clone(), i)).collect();
        for series in batch.series {
            match at.entry(series.labels.clone()) {
                Entry::Occupied(same) => {
                    let same = &mut part.series[*same.get()];
                    same.samples.extend(series.samples);
                    conflicts += keep_first(&mut same.samples);
                }
                Entry::Vacant(new) => {
                    new.insert(part.series.len());
                    part.series.push(series);
                }
            }
        }
    }
    conflicts
}

/// Keeps the first sample of each time; returns how many of the others had another value.
fn keep_first(samples: &mut Vec<Sample>) -> usize {
    if samples.windows(2).all(|w| w[0].ts < w[1].ts) {
        return 0;
    }
    let mut seen: HashMap<Timestamp, u64> = HashMap::with_capacity(samples.len());
    let mut conflicts = 0;
    samples.retain(|s| match seen.entry(s.ts) {
        Entry::Vacant(new) => {
            new.insert(s.value.to_bits());
            true
        }
        Entry::Occupied(first) => {
            conflicts += usize::from(*first.get() != s.value.to_bits());
            false
        }
    });
    conflicts
}

/// Returns about how many bytes a record of these takes.
pub(super) fn bytes_of(parts: &Parts) -> usize {
    let series = parts.values().flat_map(|b| &b.series);
    series.map(|s| 32 + s.labels.text_bytes() + 24 * s.labels.len() + 16 * s.samples.len()).sum()
}
