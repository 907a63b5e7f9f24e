//! One cycle: every part in turn, and the collector's own series.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use forewarn_schemas::{Batch, Labels, Timestamp, is_stale};

use super::cgroup::Cgroups;
use super::config::HostConfig;
use super::conntrack::Conntrack;
use super::descriptor::Descriptors;
use super::disk::Disks;
use super::error::Error;
use super::load::Load;
use super::memory::Memory;
use super::pid::Pids;
use super::pressure::Pressure;
use super::process::Processes;
use super::series::{Ledger, Out};
use super::statvfs;
use super::tree::{Tree, read_text};
use crate::status::Board;

/// One subject of the host.
pub(super) trait Part: fmt::Debug + Send {
    /// The value of the label `part` of `host_collect_errors_total`.
    fn name(&self) -> &'static str;

    /// Starts what takes time; called for all parts before the first one collects.
    fn begin(&mut self, _tree: &Tree) {}

    /// Reads and writes this cycle's samples. What was written before an error stays; nothing ends then.
    fn collect(&mut self, tree: &Tree, out: &mut Out<'_>) -> Result<(), Error>;
}

/// Reads the host, cycle by cycle. Holds what one cycle must know of the one before; needs no runtime.
#[derive(Debug)]
pub struct Collector {
    tree: Tree,
    node: String,
    facts: BTreeMap<String, String>,
    parts: Vec<Box<dyn Part>>,
    ledger: Ledger,
    board: Arc<Board>,
    skipped: u64,
}

impl Collector {
    /// Makes a collector over the roots of `config`; notices go to `board`. Reads the host's name, nothing else.
    pub fn new(config: &HostConfig, board: Arc<Board>) -> Self {
        Self::with_statvfs(config, board, statvfs::of_the_system())
    }

    pub(super) fn with_statvfs(config: &HostConfig, board: Arc<Board>, statvfs: statvfs::StatVfs) -> Self {
        let tree = Tree::new(&config.proc_root, &config.sys_root);
        let kernel = |file: &str| read_text(&tree.proc(file)).map(|t| t.trim().to_owned()).unwrap_or_default();
        let hostname = kernel("sys/kernel/hostname");
        let release = kernel("sys/kernel/osrelease");
        let named = config.node.clone().unwrap_or_else(|| hostname.clone());
        let node = if named.is_empty() { "localhost".to_owned() } else { named };
        let identity =
            vec![("node", node.clone()), ("family", config.family.clone()), ("job", super::SOURCE.to_owned())];
        // Disks last: they are asked first, and answer while the others are read.
        let parts: Vec<Box<dyn Part>> = vec![
            Box::new(Memory),
            Box::new(Pressure),
            Box::new(Descriptors),
            Box::new(Pids),
            Box::new(Load::default()),
            Box::new(Conntrack),
            Box::new(Processes::new(config.processes_top, &release, &tree)),
            Box::new(Cgroups::new(config.cgroups_max)),
            Box::new(Disks::new(config, statvfs)),
        ];
        let facts = [("hostname", hostname), ("kernel", release)].map(|(k, v)| (k.to_owned(), v));
        Self {
            ledger: Ledger::new(parts.len() + 1, identity),
            tree,
            node,
            facts: facts.into_iter().filter(|(_, v)| !v.is_empty()).collect(),
            parts,
            board,
            skipped: 0,
        }
    }

    /// Reads everything once: the samples of this cycle, all at `now`, and the stale markers of series that ended.
    ///
    /// Blocks while it reads, and at most 2 s for disks that do not answer (0.3 s in the first cycle).
    pub fn collect(&mut self, now: Timestamp) -> Batch {
        let started = Instant::now();
        self.ledger.begin(now);
        for part in &mut self.parts {
            part.begin(&self.tree);
        }
        for (i, part) in self.parts.iter_mut().enumerate() {
            match part.collect(&self.tree, &mut self.ledger.part(i, &self.board)) {
                Ok(()) => self.ledger.sweep(i),
                Err(e) => self.ledger.fail(i, &e),
            }
        }
        let errors = self.ledger.errors();
        let mut out = self.ledger.part(self.parts.len(), &self.board);
        for (part, errors) in self.parts.iter().zip(errors) {
            out.object(part.name(), &[("part", part.name())]).set("host_collect_errors_total", errors as f64);
        }
        out.set("host_collect_skipped_total", self.skipped as f64);
        out.set("host_up", 1.0);
        out.set("host_collect_duration_seconds", started.elapsed().as_secs_f64());
        self.ledger.finish()
    }

    /// Returns the label `node` of every series.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Returns facts about the host for a person.
    pub fn facts(&self) -> &BTreeMap<String, String> {
        &self.facts
    }

    /// Returns the last error of the latest cycle, empty when there was none.
    pub fn last_error(&self) -> &str {
        self.ledger.last_error()
    }

    /// Counts a cycle whose batch was not taken, and keeps its stale markers for the next one.
    pub(super) fn skipped(&mut self, markers: Vec<Labels>) {
        self.skipped += 1;
        self.ledger.keep_markers(markers);
    }
}

/// Returns the series that end in `batch`.
pub(super) fn stale_markers(batch: &Batch) -> Vec<Labels> {
    let ends = batch.series.iter().filter(|s| s.samples.iter().any(|sample| is_stale(sample.value)));
    ends.map(|s| s.labels.clone()).collect()
}

#[cfg(test)]
mod tests;
