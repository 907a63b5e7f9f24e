//! Cgroups that have a limit: memory and processes, in v2 and v1 hierarchies.
//!
//! Used memory leaves out what the kernel takes back before it kills: page cache and reclaimable slab. The current
//! usage that the kernel shows holds both, so that every group with much I/O would seem to leak to its limit.
//!
//! A limit applies to all groups below, so the one that counts is the smallest on the way up. Only groups with a limit
//! of their own are reported: below them, theirs is the one that would be hit. A group that vanishes while it is read
//! is passed over.

mod memory;
mod tree;

use super::closest::keep_closest;
use super::collector::Part;
use super::error::Error;
use super::series::Out;
use super::text::{field, read_number};
use super::tree::{Tree, read_text_if_there};
use memory::Usage;
pub(crate) use memory::{MemoryFiles, used_by};
use tree::{Controllers, Group, Hierarchy};

/// The hierarchies are listed anew once per so many groups in cycles: in each cycle on most machines, more rarely
/// where there are thousands.
const LISTED_PER_CYCLE: usize = 500;

const TOO_MANY: &str = "there are too many cgroups, and the rest is not watched";

#[derive(Debug)]
pub(super) struct Cgroups {
    max: usize,
    hierarchies: Vec<Hierarchy>,
    /// Cycles until the hierarchies are listed anew.
    stands: usize,
}

/// The use of one resource by one group.
#[derive(Debug)]
struct Reading<'g, U> {
    group: &'g Group,
    usage: U,
    share: f64,
}

impl Cgroups {
    /// Makes the part; of each controller at most `max` groups are reported.
    pub(super) fn new(max: usize) -> Self {
        Self { max, hierarchies: Vec::new(), stands: 0 }
    }

    fn list(&mut self, tree: &Tree, out: &mut Out<'_>) {
        self.stands = self.stands.saturating_sub(1);
        if self.stands > 0 {
            return;
        }
        let (hierarchies, whole) = tree::list(&tree.sys("fs/cgroup"), &mut |e| out.error(&e));
        let groups: usize = hierarchies.iter().map(|h| h.groups.len()).sum();
        (self.hierarchies, self.stands) = (hierarchies, groups.div_ceil(LISTED_PER_CYCLE));
        if whole {
            out.mended(TOO_MANY);
        } else {
            out.notice(TOO_MANY, "remove cgroups that are empty; a service may leak them");
        }
    }
}

impl Part for Cgroups {
    fn name(&self) -> &'static str {
        "cgroups"
    }

    fn collect(&mut self, tree: &Tree, out: &mut Out<'_>) -> Result<(), Error> {
        self.list(tree, out);
        let (mut memory, mut pids) = (Vec::new(), Vec::new());
        for h in &self.hierarchies {
            match h.controllers {
                Controllers::V2 => {
                    read_memory(h, MemoryFiles::V2, &mut memory, out);
                    read_pids(h, &mut pids, out);
                }
                Controllers::V1Memory => read_memory(h, MemoryFiles::V1, &mut memory, out),
                Controllers::V1Pids => read_pids(h, &mut pids, out),
            }
        }
        keep_closest(&mut memory, self.max, |(_, r)| r.share, |(_, r)| out.knows(&r.group.path));
        keep_closest(&mut pids, self.max, |r| r.share, |r| out.knows(&r.group.path));
        for (files, reading) in &memory {
            write_memory(*files, reading, out);
        }
        for reading in &pids {
            write_pids(reading, out);
        }
        Ok(())
    }
}

/// Calls `own` for each group, parents first, and then `with_limit` for those with a limit of their own, with the
/// smallest limit on the way up.
fn read_limits<'g, L>(
    hierarchy: &'g Hierarchy,
    out: &mut Out<'_>,
    own: impl Fn(&Group) -> Result<L, Error>,
    hard: impl Fn(&L) -> Option<u64>,
    mut with_limit: impl FnMut(&'g Group, L, Option<u64>) -> Result<(), Error>,
) {
    let mut effective: Vec<Option<u64>> = Vec::with_capacity(hierarchy.groups.len());
    for group in &hierarchy.groups {
        let above = group.parent.and_then(|p| effective.get(p).copied().flatten());
        let limit = own(group).and_then(|limits| {
            let smallest = [hard(&limits), above].into_iter().flatten().min();
            with_limit(group, limits, smallest)?;
            Ok(smallest)
        });
        effective.push(limit.unwrap_or_else(|e| {
            if !e.is_gone() {
                out.error(&e);
                out.unknown(&group.path);
            }
            above
        }));
    }
}

fn read_memory<'g>(
    hierarchy: &'g Hierarchy,
    files: MemoryFiles,
    readings: &mut Vec<(MemoryFiles, Reading<'g, Usage>)>,
    out: &mut Out<'_>,
) {
    let own = |group: &Group| memory::limits(files, &group.dir);
    read_limits(
        hierarchy,
        out,
        own,
        |l| l.hard,
        |group, own, limit| {
            if own.hard.is_none() && own.high.is_none() {
                return Ok(());
            }
            let usage = Usage { used: memory::used(files, &group.dir)?, limit, high: own.high };
            let nearest = [limit, own.high].into_iter().flatten().min();
            let share = nearest.map_or(0.0, |limit| usage.used as f64 / limit as f64);
            readings.push((files, Reading { group, usage, share }));
            Ok(())
        },
    );
}

fn write_memory(files: MemoryFiles, reading: &Reading<'_, Usage>, out: &mut Out<'_>) {
    let Reading { group, usage, .. } = reading;
    let harm = memory::harm(files, &group.dir, usage.high.is_some());
    let labels = [("cgroup", &*group.path)];
    let mut object = out.object(&group.path, &labels);
    object.set("host_cgroup_memory_used_bytes", usage.used as f64);
    let counts = harm.as_ref().map(|h| h.metrics()).unwrap_or_default();
    let levels = [
        ("host_cgroup_memory_limit_bytes", usage.limit.map(|v| v as f64)),
        ("host_cgroup_memory_high_bytes", usage.high.map(|v| v as f64)),
    ];
    for (metric, value) in levels.into_iter().chain(counts) {
        if let Some(value) = value {
            object.set(metric, value);
        }
    }
    report(harm.err(), group, out);
}

fn read_pids<'g>(hierarchy: &'g Hierarchy, readings: &mut Vec<Reading<'g, (u64, u64)>>, out: &mut Out<'_>) {
    let own = |group: &Group| memory::limit(&group.dir.join("pids.max"));
    read_limits(
        hierarchy,
        out,
        own,
        |l| *l,
        |group, own, limit| {
            if let (Some(_), Some(limit)) = (own, limit) {
                let used = read_number(&group.dir.join("pids.current"))?;
                readings.push(Reading { group, usage: (used, limit), share: used as f64 / limit as f64 });
            }
            Ok(())
        },
    );
}

fn write_pids(reading: &Reading<'_, (u64, u64)>, out: &mut Out<'_>) {
    let Reading { group, usage: (used, limit), .. } = reading;
    let path = group.dir.join("pids.events");
    let refused = read_text_if_there(&path).and_then(|text| match text {
        // There is no such file before 4.8.
        None => Ok(None),
        Some(text) => field(&text, "max").map(Some).ok_or_else(|| Error::malformed(&path, "max")),
    });
    let labels = [("cgroup", &*group.path)];
    let mut object = out.object(&group.path, &labels);
    object.set("host_cgroup_pids_used", *used as f64);
    object.set("host_cgroup_pids_limit", *limit as f64);
    if let Ok(Some(refused)) = refused {
        object.set("host_cgroup_pids_max_total", refused as f64);
    }
    report(refused.err(), group, out);
}

/// Counts an error of one group, whose series then do not end.
fn report(error: Option<Error>, group: &Group, out: &mut Out<'_>) {
    if let Some(e) = error.filter(|e| !e.is_gone()) {
        out.error(&e);
        out.unknown(&group.path);
    }
}

#[cfg(test)]
mod tests;
