//! The label index of a partition: label set to id, id to label set, and postings from (name, value) to ids.
//!
//! Ids are dense and given in the order in which series are first seen; an id is never used again. An id whose labels
//! were lost with a damaged object stays a hole. Matchers work on postings, so a selection costs what it selects (and
//! for a regular expression the distinct values of one label), not a look at every label set.

use std::collections::HashMap;

use forewarn_schemas::label::METRIC_NAME;
use forewarn_schemas::node::{family_of, node_of};
use forewarn_schemas::{Labels, MatchOp, Matcher, SeriesId};

type Postings = HashMap<Box<str>, Vec<u32>, ahash::RandomState>;

/// What a term of a selection looks at: a label, or an identity derived from several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Label(String),
    Node,
    Family,
}

impl Key {
    pub(crate) fn metric() -> Self {
        Self::Label(METRIC_NAME.into())
    }
}

/// Series ids, ascending.
pub(crate) type Ids = Vec<u32>;

#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    by_labels: HashMap<Labels, u32, ahash::RandomState>,
    labels: Vec<Option<Labels>>,
    postings: HashMap<Box<str>, Postings, ahash::RandomState>,
    nodes: Postings,
    families: Postings,
}

impl LabelIndex {
    /// Number of ids given, holes included.
    pub(crate) fn len(&self) -> u32 {
        self.labels.len() as u32
    }

    /// Number of series whose labels are known.
    pub(crate) fn known(&self) -> usize {
        self.by_labels.len()
    }

    pub(crate) fn get(&self, id: SeriesId) -> Option<&Labels> {
        self.labels.get(id.0 as usize)?.as_ref()
    }

    /// Returns the id of a label set, giving the next one if it is new; `None` when ids have run out.
    pub(crate) fn resolve(&mut self, labels: &Labels) -> Option<SeriesId> {
        if let Some(id) = self.by_labels.get(labels) {
            return Some(SeriesId(*id));
        }
        let id = u32::try_from(self.labels.len()).ok().filter(|id| *id < u32::MAX)?;
        self.labels.push(None);
        self.fill(id, labels.clone());
        Some(SeriesId(id))
    }

    /// Makes ids up to `len` exist, as holes.
    pub(crate) fn reserve_ids(&mut self, len: u32) {
        if self.len() < len {
            self.labels.resize(len as usize, None);
        }
    }

    /// Gives a hole its labels; ignored when the id has some or the labels have an id.
    pub(crate) fn restore(&mut self, id: SeriesId, labels: Labels) {
        self.reserve_ids(id.0.saturating_add(1));
        if self.labels[id.0 as usize].is_none() && !self.by_labels.contains_key(&labels) {
            self.fill(id.0, labels);
        }
    }

    fn fill(&mut self, id: u32, labels: Labels) {
        for (name, value) in labels.iter() {
            let values = match self.postings.get_mut(name) {
                Some(values) => values,
                None => self.postings.entry(name.into()).or_default(),
            };
            post(values, value, id);
        }
        post(&mut self.nodes, node_of(&labels), id);
        post(&mut self.families, &family_of(&labels), id);
        self.labels[id as usize] = Some(labels.clone());
        self.by_labels.insert(labels, id);
    }

    /// All series, ascending.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &Labels)> {
        self.labels.iter().enumerate().filter_map(|(id, l)| Some((id as u32, l.as_ref()?)))
    }

    /// Series in which `key` has one of `values`, none of them empty.
    pub(crate) fn with_value(&self, key: &Key, values: &[String]) -> Ids {
        let postings = match key {
            Key::Label(name) => match self.postings.get(name.as_str()) {
                Some(p) => p,
                None => return Ids::new(),
            },
            Key::Node => &self.nodes,
            Key::Family => &self.families,
        };
        union(values.iter().filter_map(|v| postings.get(v.as_str())))
    }

    /// Series that meet every matcher; all of them when there is none.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> Ids {
        let mut found: Option<Ids> = None;
        // Matchers that the empty string meets are also met by series without the label, so they only take away.
        let (wide, narrow): (Vec<_>, Vec<_>) = matchers.iter().partition(|m| m.matches_value(""));
        for m in narrow {
            let ids = self.where_value(m, true);
            found = Some(match found {
                None => ids,
                Some(before) => intersect(&before, &ids),
            });
        }
        let mut found = found.unwrap_or_else(|| self.all().map(|(id, _)| id).collect());
        for m in wide {
            found = subtract(&found, &self.where_value(m, false));
        }
        found
    }

    /// Series that have the matcher's label, with a value that meets it (or does not).
    fn where_value(&self, m: &Matcher, meets: bool) -> Ids {
        let Some(postings) = self.postings.get(m.name()) else { return Ids::new() };
        match (m.op(), meets) {
            (MatchOp::Equal, true) | (MatchOp::NotEqual, false) => postings.get(m.value()).cloned().unwrap_or_default(),
            _ => union(postings.iter().filter(|(v, _)| m.matches_value(v) == meets).map(|(_, ids)| ids)),
        }
    }
}

fn post(postings: &mut Postings, value: &str, id: u32) {
    let ids = match postings.get_mut(value) {
        Some(ids) => ids,
        None => postings.entry(value.into()).or_default(),
    };
    // Ids come in ascending order, except when holes are filled after damage.
    match ids.last() {
        Some(last) if *last > id => {
            if let Err(at) = ids.binary_search(&id) {
                ids.insert(at, id);
            }
        }
        _ => ids.push(id),
    }
}

fn union<'a>(lists: impl Iterator<Item = &'a Ids>) -> Ids {
    let mut lists = lists.peekable();
    let Some(first) = lists.next() else { return Ids::new() };
    let mut out = first.clone();
    if lists.peek().is_some() {
        for list in lists {
            out.extend_from_slice(list);
        }
        out.sort_unstable();
        out.dedup();
    }
    out
}

/// Ids in both ascending lists.
pub(crate) fn intersect(a: &[u32], b: &[u32]) -> Ids {
    let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let mut rest = many;
    let mut out = Ids::new();
    for id in few {
        rest = &rest[rest.partition_point(|other| other < id)..];
        if rest.first() == Some(id) {
            out.push(*id);
        }
    }
    out
}

fn subtract(a: &[u32], b: &[u32]) -> Ids {
    let mut rest = b;
    let keep = |id: &&u32| {
        rest = &rest[rest.iter().take_while(|other| other < id).count()..];
        rest.first() != Some(*id)
    };
    a.iter().filter(keep).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series() -> impl Strategy<Value = Vec<Labels>> {
        let pairs = prop::collection::btree_map("[abc]", "[xyz]?", 0..4);
        prop::collection::vec(pairs.prop_map(|p| Labels::from_pairs(p).unwrap()), 0..20)
    }

    fn matcher() -> impl Strategy<Value = Matcher> {
        let op = prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]);
        let value = prop::sample::select(vec!["", "x", "y", "z", "x|y", "[y-z]?", ".*", ".+", "(x|)", "q"]);
        ("[abcd]", op, value).prop_map(|(n, op, v)| Matcher::new(&n, op, v).unwrap())
    }

    proptest! {
        #[test]
        fn a_selection_is_what_a_look_at_every_label_set_finds(
            all in series(),
            matchers in prop::collection::vec(matcher(), 0..4),
        ) {
            let mut index = LabelIndex::default();
            for l in &all {
                index.resolve(l).unwrap();
            }
            let slow: Ids =
                index.all().filter(|(_, l)| matchers.iter().all(|m| m.matches(l))).map(|(id, _)| id).collect();
            prop_assert_eq!(index.select(&matchers), slow);
        }
    }

    #[test]
    fn ids_are_dense_stable_and_never_reused() {
        let mut index = LabelIndex::default();
        let l = |v: &str| Labels::series("m", &[("node", v)]).unwrap();
        assert_eq!(index.resolve(&l("a")), Some(SeriesId(0)));
        assert_eq!(index.resolve(&l("b")), Some(SeriesId(1)));
        assert_eq!(index.resolve(&l("a")), Some(SeriesId(0)));
        index.reserve_ids(5);
        assert_eq!(index.resolve(&l("c")), Some(SeriesId(5)));
        index.restore(SeriesId(3), l("lost"));
        assert_eq!(index.get(SeriesId(3)), Some(&l("lost")));
        assert_eq!(index.get(SeriesId(4)), None);
        assert_eq!(index.with_value(&Key::metric(), &["m".into()]), [0, 1, 3, 5]);
        assert_eq!(index.with_value(&Key::Node, &["b".into(), "lost".into()]), [1, 3]);
    }
}
