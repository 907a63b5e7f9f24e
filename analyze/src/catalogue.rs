//! The catalogue: which series say how much of what is used, and where it ends. It is data.
//!
//! [`Catalogue::builtin`] is `catalogue.yaml` beside this crate; [`Catalogue::extended`] lays a user's file of the same
//! form over it. Keys and meaning are in `docs/catalogue.md`. Parsing finds every mistake of a file, with the line of
//! the entry.

use std::collections::HashMap;
use std::time::Duration;

use forewarn_schemas::{Direction, Labels, ResourceKind, Selector, node};

use crate::error::AnalyzeError;

mod parse;
#[cfg(test)]
mod tests;

/// How often climbs of this resource end by themselves before the limit, when its own history cannot say yet.
///
/// It is the exponent `a` of the prior `P(the limit is reached | a share f of the way is done) = f^a`: scale-free, so
/// one number serves every size and speed. A resource's own climbs overrule it as soon as there are some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resets {
    /// Only a restart takes it back: atoms.
    Never,
    /// Processes, ports, descriptors: growth is most likely a leak.
    Rare,
    /// Memory: as likely as not.
    #[default]
    Some,
    /// Disks: rotation, clean-up and deletion are the rule.
    Usual,
}

impl Resets {
    pub(crate) fn exponent(self) -> f64 {
        match self {
            Self::Never => 0.2,
            Self::Rare => 0.4,
            Self::Some => 1.0,
            Self::Usual => 2.0,
        }
    }
}

/// Where the limit comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum LimitSource {
    /// A series, read live.
    Series(Selector),
    /// A number.
    Constant(f64),
    /// There is none: only harm counts.
    None,
}

/// How a harm series says it.
#[derive(Debug, Clone, PartialEq)]
pub enum Harm {
    /// A counter: an increase is harm.
    Counter(Selector),
    /// A gauge: any value but zero is harm.
    Gauge(Selector),
}

/// How a series tells that what it watches was started anew.
#[derive(Debug, Clone, PartialEq)]
pub enum Restart {
    /// The time of the start: a change is a restart.
    Start(Selector),
    /// The time since the start: a decrease is a restart.
    Uptime(Selector),
}

/// One thing that can run out.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name: `memory`, `disk`.
    pub resource: String,
    /// What it is counted in: `bytes` or a plural noun.
    pub unit: String,
    /// What reaching the limit means.
    pub kind: ResourceKind,
    /// Which way lies exhaustion.
    pub direction: Direction,
    /// The series of what is used (direction up) or left (down).
    pub used: Selector,
    /// Where it ends.
    pub limit: LimitSource,
    /// For direction down: the series of the whole, to say which share is used.
    pub capacity: Option<Selector>,
    /// Labels whose values, joined by `/`, name the object.
    pub object: Vec<String>,
    /// Labels that pair the limit and capacity with the use; `node` is the node's identity.
    pub on: Vec<String>,
    /// Series that mean exhausted whatever the level.
    pub harm: Vec<Harm>,
    /// Labels that pair harm with the use.
    pub harm_on: Vec<String>,
    /// Share used from which it is shown (`info`).
    pub minor: Option<f64>,
    /// Share used from which it is a ticket (`warning`).
    pub major: Option<f64>,
    /// How long the limit must be reached in effect before that counts as exhausted.
    pub full_for: Duration,
    /// How long before exhaustion a person wants to know.
    pub lead: Duration,
    /// What its climbs usually come to.
    pub resets: Resets,
    /// What more capacity helps against, for the scaling requests: `load`.
    pub scales_with: Option<String>,
    /// Series that tell of a restart.
    pub restart: Option<Restart>,
    /// Labels that pair the restart with the use.
    pub restart_on: Vec<String>,
}

impl Entry {
    /// Returns its identity across versions of the catalogue: resource and `used` selector.
    pub fn id(&self) -> String {
        format!("{}:{}", self.resource, self.used)
    }

    /// Returns the object that a series of this entry describes, empty when there is one only.
    pub fn object_of(&self, labels: &Labels) -> String {
        let parts: Vec<&str> = self.object.iter().filter_map(|n| labels.get(n)).collect();
        parts.join("/")
    }
}

/// Which part a series plays in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    Used,
    Limit,
    Capacity,
    Restart,
    Harm(u8),
    Up,
}

/// Everything that can run out, in order of preference.
#[derive(Debug, Clone)]
pub struct Catalogue {
    entries: Vec<Entry>,
    up: Vec<Selector>,
    by_metric: HashMap<String, Vec<(u32, Part)>>,
    any_metric: Vec<(u32, Part)>,
}

impl Catalogue {
    /// Returns the catalogue that comes with forewarn.
    pub fn builtin() -> Self {
        let raw = parse::parse(include_str!("../catalogue.yaml"));
        let (entries, up) = raw.unwrap_or_else(|e| panic!("the built-in catalogue is tested to parse: {e:?}"));
        Self::new(entries.into_iter().filter_map(|(e, enabled)| enabled.then_some(e)).collect(), up)
    }

    /// Reads a catalogue that stands alone.
    ///
    /// # Errors
    /// [`AnalyzeError::Catalogue`] with every mistake found.
    pub fn parse(text: &str) -> Result<Self, AnalyzeError> {
        Self::new(Vec::new(), Vec::new()).extended(text)
    }

    /// Returns this catalogue with a user's file laid over it: an entry with the same `resource` and `used` replaces,
    /// `enabled: false` drops, any other is added; `up`, when given, replaces.
    ///
    /// # Errors
    /// [`AnalyzeError::Catalogue`] with every mistake found.
    pub fn extended(&self, text: &str) -> Result<Self, AnalyzeError> {
        let (added, up) = parse::parse(text).map_err(AnalyzeError::Catalogue)?;
        let mut entries = self.entries.clone();
        for (entry, enabled) in added {
            let place = entries.iter().position(|e| e.id() == entry.id());
            match (place, enabled) {
                (Some(i), true) => entries[i] = entry,
                (Some(i), false) => drop(entries.remove(i)),
                (None, true) => entries.push(entry),
                (None, false) => {}
            }
        }
        Ok(Self::new(entries, if up.is_empty() { self.up.clone() } else { up }))
    }

    fn new(entries: Vec<Entry>, up: Vec<Selector>) -> Self {
        let mut out = Self { entries, up, by_metric: HashMap::new(), any_metric: Vec::new() };
        let mut parts: Vec<(u32, Part, Option<String>)> = Vec::new();
        for (i, selector) in out.up.iter().enumerate() {
            parts.push((i as u32, Part::Up, selector.metric().map(str::to_owned)));
        }
        for (i, entry) in out.entries.iter().enumerate() {
            for part in entry.parts() {
                let metric = entry.selector(part).and_then(Selector::metric).map(str::to_owned);
                parts.push((i as u32, part, metric));
            }
        }
        for (i, part, metric) in parts {
            match metric {
                Some(m) => out.by_metric.entry(m).or_default().push((i, part)),
                None => out.any_metric.push((i, part)),
            }
        }
        out
    }

    /// Returns the entries, in order of preference.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the parts that a series plays.
    pub(crate) fn parts_of(&self, labels: &Labels) -> Vec<(u32, Part)> {
        let named = self.by_metric.get(labels.metric()).into_iter().flatten();
        let mut out: Vec<(u32, Part)> = named
            .chain(&self.any_metric)
            .copied()
            .filter(|(i, part)| match part {
                Part::Up => self.up[*i as usize].matches(labels),
                part => self.entries[*i as usize].selector(*part).is_some_and(|s| s.matches(labels)),
            })
            .collect();
        out.sort_unstable();
        out
    }
}

impl Entry {
    fn parts(&self) -> Vec<Part> {
        let mut out = vec![Part::Used, Part::Limit, Part::Capacity, Part::Restart];
        out.extend((0..self.harm.len()).map(|i| Part::Harm(i as u8)));
        out.retain(|p| self.selector(*p).is_some());
        out
    }

    pub(crate) fn selector(&self, part: Part) -> Option<&Selector> {
        match part {
            Part::Used => Some(&self.used),
            Part::Limit => match &self.limit {
                LimitSource::Series(s) => Some(s),
                LimitSource::Constant(_) | LimitSource::None => None,
            },
            Part::Capacity => self.capacity.as_ref(),
            Part::Restart => self.restart.as_ref().map(|r| match r {
                Restart::Start(s) | Restart::Uptime(s) => s,
            }),
            Part::Harm(i) => self.harm.get(usize::from(i)).map(|h| match h {
                Harm::Counter(s) | Harm::Gauge(s) => s,
            }),
            Part::Up => None,
        }
    }

    /// Returns the text by which series of one part are paired.
    pub(crate) fn join(&self, part: Part, labels: &Labels) -> String {
        let on = match part {
            Part::Restart => &self.restart_on,
            Part::Harm(_) => &self.harm_on,
            Part::Used | Part::Limit | Part::Capacity | Part::Up => &self.on,
        };
        let mut out = String::new();
        for name in on {
            let value = if name == node::NODE { node::node_of(labels) } else { labels.get(name).unwrap_or_default() };
            out.push_str(value);
            out.push('\u{1f}');
        }
        out
    }
}
