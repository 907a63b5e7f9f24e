//! The analysis of one partition: which series means what, and the resources they describe.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use forewarn_schemas::node::{family_of, node_of};
use forewarn_schemas::{
    Batch, Forecast, ForecastState, Labels, ResourceKey, Sample, SeriesId, SeriesSamples, TimeRange, Timestamp,
};

use crate::catalogue::{Catalogue, Harm, Part, Restart};
use crate::cell::{Cell, CellKey, Reading};
use crate::config::AnalyzeConfig;
use crate::fit::usable;
use crate::liveness::{Node, NodeStatus};
use crate::resource::{Around, Cells, Outcome, Resource};

mod objects;
mod snapshot;
mod sweep;
#[cfg(test)]
mod tests;

/// Time between sweeps of what is no longer used.
const SWEEP: Duration = Duration::from_secs(3_600);
/// A sample further ahead of its record than this is left out; the edge refuses it, so it is a test of the edge.
const AHEAD_MAX: Duration = Duration::from_secs(600);

/// Gives a fit the history it asks for.
///
/// What it returns must depend on the samples alone that were observed before the evaluation (in the pipeline: those
/// up to the offset the evaluation stands at), so that live equals replay.
pub trait History {
    /// Returns the samples of one series in `[start, end)`, sorted by time; none when the series is unknown.
    fn samples(&self, id: SeriesId, range: TimeRange) -> Vec<Sample>;
}

/// What an evaluation came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// When.
    pub at: Timestamp,
    /// Forecasts whose state, level or harm changed, and all that are rising or worse (a stale one that was rising
    /// included), by key.
    pub changed: Vec<Arc<Forecast>>,
    /// Resources that no longer exist or are no longer among those shown, by key.
    pub gone: Vec<ResourceKey>,
}

/// What a series' samples do.
#[derive(Debug, Clone, Copy)]
enum Role {
    Used(u32),
    Cell(u32, Reading),
    Up,
}

/// Where a series belongs; `roles` is a range of [`Analyzer::roles`].
#[derive(Debug, Clone, Copy)]
struct Slot {
    node: u32,
    first: u32,
    len: u32,
}

const UNBOUND: Slot = Slot { node: u32::MAX, first: 0, len: 0 };

/// Foresees what will run out, from one partition's samples. Pure: no I/O, no clock, no randomness but seeded.
///
/// Call [`observe`](Self::observe) for every record in order of offset, and [`evaluate`](Self::evaluate) at every
/// multiple of the step, after all records with `received_at <= at`.
#[derive(Debug)]
pub struct Analyzer {
    catalogue: Catalogue,
    config: AnalyzeConfig,
    /// By series id. Never in a snapshot: made again from the labels when a series is next seen.
    slots: Vec<Slot>,
    roles: Vec<Role>,
    nodes: Vec<Node>,
    node_index: HashMap<String, u32>,
    cells: Vec<Cell>,
    cell_index: HashMap<CellKey, u32>,
    /// Holes are resources that are gone; a sweep closes them.
    resources: Vec<Option<Box<Resource>>>,
    resource_index: BTreeMap<ResourceKey, u32>,
    /// Objects watched, by node and entry.
    watched: HashMap<(u32, u32), usize>,
    /// Objects that were too many to watch since the last sweep.
    unwatched: u64,
    last_at: Timestamp,
    /// Dropped with a change of the catalogue; reported by the next evaluation.
    dropped: Vec<ResourceKey>,
}

impl Analyzer {
    /// Makes the analysis of one partition, with nothing seen yet.
    pub fn new(catalogue: Catalogue, config: AnalyzeConfig) -> Self {
        Self {
            catalogue,
            config,
            slots: Vec::new(),
            roles: Vec::new(),
            nodes: Vec::new(),
            node_index: HashMap::new(),
            cells: Vec::new(),
            cell_index: HashMap::new(),
            resources: Vec::new(),
            resource_index: BTreeMap::new(),
            watched: HashMap::new(),
            unwatched: 0,
            last_at: Timestamp::MIN,
            dropped: Vec::new(),
        }
    }

    /// Takes in a record's batch: O(1) per sample. Labels are looked at only when an id is new.
    ///
    /// - `received_at`: the record's;
    /// - `ids`: one per series of the batch, in its order; further series are left out. Ids are dense.
    pub fn observe(&mut self, received_at: Timestamp, batch: &Batch, ids: &[SeriesId]) {
        for (series, id) in batch.series.iter().zip(ids) {
            let slot = match self.slots.get(id.0 as usize) {
                Some(slot) if slot.node != UNBOUND.node && !self.lost(slot, received_at, *id) => *slot,
                _ => self.bind(received_at, series, *id),
            };
            let mut spoke = slot.len == 0;
            for i in slot.first..slot.first + slot.len {
                let role = self.roles[i as usize];
                spoke |= !matches!(role, Role::Up);
                for sample in &series.samples {
                    if sample.ts > received_at + AHEAD_MAX {
                        continue;
                    }
                    match role {
                        Role::Used(r) => self.observe_used(r, received_at, *sample, *id),
                        Role::Cell(c, reading) => {
                            self.cells[c as usize].observe(reading, received_at, sample.ts, sample.value);
                        }
                        Role::Up => self.nodes[slot.node as usize].hear(*id, received_at, sample.value),
                    }
                }
            }
            if let Some(last) = series.samples.iter().filter(|s| spoke && !s.value.is_nan()).map(|s| s.ts).max() {
                let node = &mut self.nodes[slot.node as usize];
                node.received = node.received.max(received_at);
                node.last = node.last.max(last.min(received_at + AHEAD_MAX));
            }
        }
    }

    /// Says whether a series must be bound again, because its resource is gone or belongs to a series that ended.
    fn lost(&self, slot: &Slot, received: Timestamp, id: SeriesId) -> bool {
        self.roles[slot.first as usize..(slot.first + slot.len) as usize].iter().any(|role| match role {
            Role::Used(r) => match &self.resources[*r as usize] {
                Some(resource) => resource.owner != id && resource.orphaned(received, &self.config),
                None => true,
            },
            Role::Cell(..) | Role::Up => false,
        })
    }

    fn observe_used(&mut self, index: u32, received: Timestamp, sample: Sample, id: SeriesId) {
        if let Some(resource) = self.resources[index as usize].as_mut().filter(|r| r.owner == id) {
            let entry = &self.catalogue.entries()[resource.entry as usize];
            resource.observe(entry, &self.cells, received, sample);
        }
    }

    /// Finds out what a series is, from its labels.
    fn bind(&mut self, received: Timestamp, series: &SeriesSamples, id: SeriesId) -> Slot {
        let labels = &series.labels;
        let node = self.node(labels);
        let first = self.roles.len() as u32;
        let mut complete = true;
        for (entry, part) in self.catalogue.parts_of(labels) {
            match part {
                Part::Up => {
                    self.nodes[node as usize].expect(labels);
                    self.roles.push(Role::Up);
                }
                Part::Used => match self.bind_used(received, series, id, node, entry) {
                    Bound::To(resource) => self.roles.push(Role::Used(resource)),
                    Bound::Not => {}
                    Bound::Later => complete = false,
                },
                part => {
                    let definition = &self.catalogue.entries()[entry as usize];
                    let reading = match part {
                        Part::Restart => match definition.restart {
                            Some(Restart::Uptime(_)) => Reading::Uptime,
                            _ => Reading::Start,
                        },
                        Part::Harm(i) => match definition.harm.get(usize::from(i)) {
                            Some(Harm::Gauge(_)) => Reading::Gauge,
                            _ => Reading::Counter,
                        },
                        _ => Reading::Level,
                    };
                    let cell = self.cell(CellKey { entry, part, join: definition.join(part, labels) });
                    self.roles.push(Role::Cell(cell, reading));
                }
            }
        }
        let slot = Slot { node, first, len: self.roles.len() as u32 - first };
        let place = id.0 as usize;
        if place >= self.slots.len() {
            self.slots.resize(place + 1, UNBOUND);
        }
        if !complete {
            // It has not had a usable value yet and is looked at again with its next samples.
            self.roles.truncate(first as usize);
            return Slot { len: 0, ..slot };
        }
        self.slots[place] = slot;
        slot
    }

    fn node(&mut self, labels: &Labels) -> u32 {
        let name = node_of(labels);
        if let Some(i) = self.node_index.get(name) {
            self.nodes[*i as usize].learn(labels);
            return *i;
        }
        let i = self.nodes.len() as u32;
        self.nodes.push(Node::new(name, labels));
        self.node_index.insert(name.to_owned(), i);
        i
    }

    fn cell(&mut self, key: CellKey) -> u32 {
        if let Some(i) = self.cell_index.get(&key) {
            return *i;
        }
        let i = self.cells.len() as u32;
        self.cells.push(Cell::new(key.clone()));
        self.cell_index.insert(key, i);
        i
    }

    fn bind_used(&mut self, received: Timestamp, series: &SeriesSamples, id: SeriesId, node: u32, entry: u32) -> Bound {
        let labels = &series.labels;
        let definition = &self.catalogue.entries()[entry as usize];
        let key = ResourceKey {
            node: node_of(labels).to_owned(),
            resource: definition.resource.clone(),
            object: definition.object_of(labels),
        };
        let known = self.resource_index.get(&key).copied();
        let resource = known.and_then(|i| self.resources[i as usize].as_deref());
        if let (Some(i), Some(resource)) = (known, resource)
            && resource.owner != id
            && !resource.orphaned(received, &self.config)
        {
            return Bound::To(i);
        }
        let owned = resource.is_some_and(|r| r.owner == id && r.entry == entry);
        let latest = received + AHEAD_MAX;
        let first = series.samples.iter().copied().find(|s| usable(s.value) && s.ts <= latest);
        let watched = self.watched.get(&(node, entry)).copied().unwrap_or(0);
        if known.is_none() && watched >= self.config.objects_watched_max {
            self.unwatched += 1;
            return Bound::Not;
        }
        let cells = self.cells_of(labels, entry);
        if let (Some(i), true) = (known, owned) {
            // After a restore or a sweep; the catalogue may pair it with other series now.
            if let Some(resource) = &mut self.resources[i as usize] {
                resource.pair(cells, &self.cells);
            }
            return Bound::To(i);
        }
        let Some(first) = first else { return known.map_or(Bound::Later, Bound::To) };
        let next = Resource::new(
            key.clone(),
            family_of(labels),
            (entry, &self.catalogue.entries()[entry as usize]),
            node,
            (id, labels.fingerprint()),
            cells,
            &self.cells,
            (received, first),
        );
        *self.watched.entry((node, entry)).or_default() += 1;
        if let Some(i) = known {
            if let Some(old) = &mut self.resources[i as usize] {
                count_down(&mut self.watched, (old.node, old.entry));
                old.hand_over(next);
            }
            return Bound::To(i);
        }
        let i = self.resources.len() as u32;
        self.resources.push(Some(Box::new(next)));
        self.resource_index.insert(key, i);
        Bound::To(i)
    }

    /// Returns the cells that a resource of these labels reads; makes those that are not there yet.
    fn cells_of(&mut self, labels: &Labels, entry: u32) -> Cells {
        let definition = &self.catalogue.entries()[entry as usize];
        let key = |part| CellKey { entry, part, join: definition.join(part, labels) };
        let keyed = |part| definition.selector(part).map(|_| key(part));
        let [limit, capacity, restart] = [Part::Limit, Part::Capacity, Part::Restart].map(keyed);
        let harm: Vec<CellKey> = (0..definition.harm.len()).filter_map(|i| keyed(Part::Harm(i as u8))).collect();
        let mut number = |key: Option<CellKey>| key.map(|k| self.cell(k));
        Cells {
            limit: number(limit),
            capacity: number(capacity),
            restart: number(restart),
            harm: harm.into_iter().filter_map(|k| number(Some(k))).collect(),
        }
    }

    /// Evaluates everything at `at`, which must not be before the last evaluation (then nothing is said).
    ///
    /// - `history`: what fits ask for; see [`History`].
    pub fn evaluate(&mut self, at: Timestamp, history: &dyn History) -> Evaluation {
        let mut out = Evaluation { at, changed: Vec::new(), gone: Vec::new() };
        if at < self.last_at {
            return out;
        }
        for node in &mut self.nodes {
            node.evaluate(at, self.config.stale_after, self.config.gone_after);
        }
        out.gone.append(&mut self.dropped);
        let mut crowded = Vec::new();
        for place in &mut self.resources {
            let Some(resource) = place else { continue };
            let around = Around {
                entry: &self.catalogue.entries()[resource.entry as usize],
                cells: &self.cells,
                node: &self.nodes[resource.node as usize],
                config: &self.config,
                at,
                history,
            };
            let group = (resource.node, resource.entry);
            match resource.evaluate(&around) {
                Outcome::Gone => {
                    self.resource_index.remove(&resource.key);
                    count_down(&mut self.watched, group);
                    if resource.visible {
                        out.gone.push(resource.key.clone());
                    }
                    *place = None;
                    continue;
                }
                Outcome::Changed if resource.visible => out.changed.extend(resource.forecast().cloned()),
                Outcome::Changed | Outcome::Same => {}
            }
            if self.watched.get(&group).is_some_and(|n| *n > self.config.objects_max) {
                crowded.push(group);
            }
        }
        if !crowded.is_empty() {
            crowded.sort_unstable();
            crowded.dedup();
            self.choose_objects(&crowded, &mut out);
        }
        let sweep_of = |t: Timestamp| t.as_millis().div_euclid(SWEEP.as_millis() as i64);
        if self.last_at > Timestamp::MIN && sweep_of(at) > sweep_of(self.last_at) {
            self.sweep(at);
        }
        self.last_at = at;
        out.changed.sort_by(|a, b| a.key.cmp(&b.key));
        out.gone.sort();
        out
    }

    /// Returns the latest forecast of every resource shown, by key.
    pub fn forecasts(&self) -> impl Iterator<Item = &Arc<Forecast>> {
        self.live().filter(|r| r.visible).filter_map(Resource::forecast)
    }

    /// Returns the series that says how much of a resource is used.
    pub fn series_of(&self, key: &ResourceKey) -> Option<SeriesId> {
        let place = *self.resource_index.get(key)?;
        self.resources[place as usize].as_deref().map(|r| r.owner)
    }

    /// Counts resources by name and state, those not shown included.
    pub fn counts(&self) -> BTreeMap<(String, ForecastState), usize> {
        let mut out = BTreeMap::new();
        for resource in self.live() {
            if let Some(state) = resource.state() {
                *out.entry((resource.key.resource.clone(), state)).or_default() += 1;
            }
        }
        out
    }

    /// Returns how many objects were too many to watch since the last hourly sweep.
    pub fn unwatched(&self) -> u64 {
        self.unwatched
    }

    /// Returns the nodes seen within the last day, by name.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        let mut out: Vec<NodeStatus> = self.nodes.iter().map(Node::status).collect();
        out.sort_by(|a, b| a.node.cmp(&b.node));
        out
    }

    /// Returns the catalogue in use.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn live(&self) -> impl Iterator<Item = &Resource> {
        self.resource_index.values().filter_map(|i| self.resources[*i as usize].as_deref())
    }
}

enum Bound {
    To(u32),
    /// Never, until the next sweep: there are too many.
    Not,
    /// Not with these samples.
    Later,
}

fn count_down(watched: &mut HashMap<(u32, u32), usize>, group: (u32, u32)) {
    if let Some(n) = watched.get_mut(&group) {
        *n = n.saturating_sub(1);
    }
}
