//! A world of simulated series around an [`Analyzer`]: text scripts load series, move time and expect states.
//!
//! One command a line; `#` begins a comment:
//!
//! ```text
//! load SERIES constant V | line FROM PER_SECOND | saw LOW HIGH PERIOD | sine MEAN AMPLITUDE PERIOD
//!      [drift PER_SECOND] [noise SIGMA] [ar PHI] [every 10s]      samples come from now on; `last` as FROM or V goes on from where it is
//! stop SERIES | stale SERIES                   no more samples, without or with a stale marker
//! never KEY STATE[,STATE…]                     must not be seen while time moves, until `allow KEY`
//! run DURATION                                 moves time
//! until KEY STATE within DURATION              moves time until the state is reached; fails when it is not
//! expect KEY STATE | KEY absent                now
//! expect KEY level minor|major|none
//! expect KEY p50 between DURATION and DURATION | KEY p50 absent
//! expect KEY says TEXT…                        the sentence contains it
//! expect node NODE up|down|unknown
//! ```
//!
//! `KEY` is `node/resource` or `node/resource/object`. Beside the analyzer under test runs a second one that is
//! snapshotted and restored every now and then: both must say exactly the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use forewarn_analyze::{AnalyzeConfig, Analyzer, Catalogue, Evaluation, History};
use forewarn_schemas::forecast::Level;
use forewarn_schemas::matcher::Selector;
use forewarn_schemas::units::parse_duration;
use forewarn_schemas::{Batch, Forecast, Labels, METRIC_NAME, STALE_NAN, Sample, SeriesId, TimeRange, Timestamp};

/// What the built-in catalogue has no example of: an elastic resource.
const HEAP: &str = "
resources:
  - {resource: heap, unit: bytes, kind: elastic, used: jvm_used, limit: jvm_limit}
";

/// All samples ever loaded.
#[derive(Default)]
pub(crate) struct Memory {
    series: Vec<Vec<Sample>>,
    ids: HashMap<Labels, SeriesId>,
}

impl Memory {
    /// Returns the ids of a batch's series, new ones for new label sets, and keeps the samples.
    pub(crate) fn take(&mut self, batch: &Batch) -> Vec<SeriesId> {
        let mut out = Vec::new();
        for s in &batch.series {
            let next = SeriesId(self.ids.len() as u32);
            let id = *self.ids.entry(s.labels.clone()).or_insert(next);
            if id == next {
                self.series.push(Vec::new());
            }
            self.series[id.0 as usize].extend(&s.samples);
            out.push(id);
        }
        out
    }
}

impl History for Memory {
    fn samples(&self, id: SeriesId, range: TimeRange) -> Vec<Sample> {
        let list = self.series.get(id.0 as usize).map(Vec::as_slice).unwrap_or_default();
        if list.is_sorted_by_key(|s| s.ts) {
            let from = list.partition_point(|s| s.ts < range.start);
            let to = list.partition_point(|s| s.ts < range.end);
            return list[from..to.max(from)].to_vec();
        }
        let mut out: Vec<Sample> = list.iter().copied().filter(|s| range.contains(s.ts)).collect();
        out.sort_by_key(|s| s.ts);
        out
    }
}

/// Numbers from a seed (SplitMix64).
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

enum Shape {
    Constant(f64),
    Line(f64, f64),
    Saw(f64, f64, f64),
    Sine(f64, f64, f64),
}

struct Source {
    labels: Labels,
    shape: Shape,
    since: i64,
    every: i64,
    drift: f64,
    sigma: f64,
    phi: f64,
    wander: f64,
    last: f64,
    dice: Dice,
}

impl Source {
    fn value(&mut self, now: i64) -> f64 {
        let t = (now - self.since) as f64;
        let shape = match self.shape {
            Shape::Constant(v) => v,
            Shape::Line(from, slope) => from + slope * t,
            Shape::Saw(low, high, period) => low + (high - low) * (t / period).fract(),
            Shape::Sine(mean, amplitude, period) => mean + amplitude * (t / period * std::f64::consts::TAU).sin(),
        };
        let scale = (1.0 - self.phi * self.phi).sqrt();
        self.wander = self.phi * self.wander + scale * self.sigma * self.dice.normal();
        self.last = shape + self.drift * t + self.wander;
        self.last
    }
}

/// The world at one time.
pub(crate) struct World {
    pub(crate) analyzer: Analyzer,
    pub(crate) now: i64,
    pub(crate) memory: Memory,
    shadow: Analyzer,
    sources: Vec<Source>,
    never: BTreeMap<String, String>,
    dice: Dice,
    config: AnalyzeConfig,
}

impl World {
    pub(crate) fn new() -> Self {
        let config = AnalyzeConfig::default();
        let catalogue = Catalogue::builtin().extended(HEAP).expect("it is valid");
        Self {
            analyzer: Analyzer::new(catalogue.clone(), config.clone()),
            shadow: Analyzer::new(catalogue, config.clone()),
            now: 1_767_600_000,
            memory: Memory::default(),
            sources: Vec::new(),
            never: BTreeMap::new(),
            dice: Dice(1),
            config,
        }
    }

    pub(crate) fn forecast(&self, key: &str) -> Option<&Arc<Forecast>> {
        self.analyzer.forecasts().find(|f| f.key.to_string() == key)
    }

    /// Hands over a batch received now.
    pub(crate) fn observe(&mut self, batch: &Batch) {
        let ids = self.memory.take(batch);
        let received = Timestamp::from_secs(self.now);
        self.analyzer.observe(received, batch, &ids);
        self.shadow.observe(received, batch, &ids);
    }

    /// Evaluates now, both analyzers, and now and then interrupts the second.
    pub(crate) fn evaluate(&mut self) -> Evaluation {
        let at = Timestamp::from_secs(self.now);
        if self.dice.next().is_multiple_of(29) {
            let bytes = self.shadow.snapshot();
            self.shadow = Analyzer::restore(self.analyzer.catalogue().clone(), self.config.clone(), &bytes)
                .expect("own snapshot");
            assert_eq!(self.shadow.snapshot(), bytes, "a restored snapshot is not the same at {at}");
        }
        let said = self.analyzer.evaluate(at, &self.memory);
        let again = self.shadow.evaluate(at, &self.memory);
        assert_eq!(said, again, "interrupted and uninterrupted differ at {at}");
        said
    }

    /// Moves time by one second.
    pub(crate) fn tick(&mut self) -> Option<Evaluation> {
        self.now += 1;
        let mut batch = Batch::default();
        for source in &mut self.sources {
            if (self.now - source.since) % source.every == 0 {
                let value = source.value(self.now);
                batch.push(source.labels.clone(), Timestamp::from_secs(self.now), value);
            }
        }
        if !batch.series.is_empty() {
            self.observe(&batch);
        }
        (self.now % 10 == 0).then(|| self.evaluate())
    }

    fn run(&mut self, seconds: u64, line: &str, mut stop: impl FnMut(&Self) -> bool) -> bool {
        for _ in 0..seconds {
            if self.tick().is_none() {
                continue;
            }
            for (key, states) in &self.never {
                if let Some(f) = self.forecast(key) {
                    assert!(!states.split(',').any(|s| s == f.state.as_str()), "{line}: never {key}: {}", f.sentence);
                }
            }
            if stop(self) {
                return true;
            }
        }
        false
    }

    /// Runs a script; panics with the line that fails.
    pub(crate) fn check(&mut self, name: &str, script: &str) {
        let begin = self.now;
        for (number, text) in script.lines().enumerate() {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let elapsed = Duration::from_secs((self.now - begin) as u64);
            let line = format!("{name}:{} (at {elapsed:?}): {text}", number + 1);
            let words: Vec<&str> = text.split_whitespace().collect();
            match words.as_slice() {
                ["load", series, rest @ ..] => self.load(series, rest, number as u64),
                ["stop", series] => self.end(series, false),
                ["stale", series] => self.end(series, true),
                ["never", key, states] => drop(self.never.insert((*key).into(), (*states).into())),
                ["allow", key] => drop(self.never.remove(*key)),
                ["run", time] => drop(self.run(seconds(time), &line, |_| false)),
                ["until", key, state, "within", time] => {
                    let key = (*key).to_owned();
                    let reached = self
                        .run(seconds(time), &line, |w| w.forecast(&key).is_some_and(|f| f.state.as_str() == *state));
                    let took = Duration::from_secs((self.now - begin) as u64) - elapsed;
                    assert!(reached, "{line}: {:?}", self.forecast(&key).map(|f| &f.sentence));
                    println!("{name}: {text}: took {took:?}: {}", self.forecast(&key).expect("reached").sentence);
                }
                ["expect", "node", node, state] => {
                    let nodes = self.analyzer.nodes();
                    let up = nodes.iter().find(|n| n.node == *node).and_then(|n| n.up);
                    let said = match up {
                        Some(true) => "up",
                        Some(false) => "down",
                        None => "unknown",
                    };
                    assert_eq!(said, *state, "{line}");
                }
                ["expect", key, what @ ..] => self.expect(key, what, &line),
                _ => panic!("{line}: not understood"),
            }
        }
    }

    fn expect(&self, key: &str, what: &[&str], line: &str) {
        let found = self.forecast(key);
        if what == ["absent"] {
            return assert!(found.is_none(), "{line}: {found:?}");
        }
        let f = found.unwrap_or_else(|| panic!("{line}: there is no such resource"));
        let p50 = f.time_to_exhaustion.p50;
        match what {
            ["p50", "absent"] => assert_eq!(p50, None, "{line}: {}", f.sentence),
            ["p50", "between", low, "and", high] => {
                let range = seconds(low) as f64..=seconds(high) as f64;
                assert!(p50.is_some_and(|p| range.contains(&p)), "{line}: {p50:?}: {}", f.sentence);
            }
            ["level", level] => {
                let said = match f.level {
                    Some(Level::Major) => "major",
                    Some(Level::Minor) => "minor",
                    None => "none",
                };
                assert_eq!(said, *level, "{line}: {}", f.sentence);
            }
            ["says", words @ ..] => {
                let text = words.join(" ");
                assert!(f.sentence.contains(&text), "{line}: {}", f.sentence);
            }
            [state] => assert_eq!(f.state.as_str(), *state, "{line}: {}", f.sentence),
            _ => panic!("{line}: not understood"),
        }
    }

    fn load(&mut self, series: &str, words: &[&str], seed: u64) {
        let labels = labels(series);
        let old = self.sources.iter().position(|s| s.labels == labels).map(|i| self.sources.remove(i));
        let number = |w: &str| match w {
            "last" => old.as_ref().expect("`last` needs a series that was there").last,
            w => w.parse().unwrap_or_else(|_| panic!("{w:?} is no number")),
        };
        let mut source = Source {
            labels,
            shape: Shape::Constant(0.0),
            since: self.now,
            every: 10,
            drift: 0.0,
            sigma: 0.0,
            phi: 0.0,
            wander: 0.0,
            last: 0.0,
            dice: Dice(seed),
        };
        let mut rest = words;
        while let [word, more @ ..] = rest {
            rest = match (*word, more) {
                ("constant", [v, rest @ ..]) => {
                    source.shape = Shape::Constant(number(v));
                    rest
                }
                ("line", [from, slope, rest @ ..]) => {
                    source.shape = Shape::Line(number(from), number(slope));
                    rest
                }
                ("saw", [low, high, period, rest @ ..]) => {
                    source.shape = Shape::Saw(number(low), number(high), seconds(period) as f64);
                    rest
                }
                ("sine", [mean, amplitude, period, rest @ ..]) => {
                    source.shape = Shape::Sine(number(mean), number(amplitude), seconds(period) as f64);
                    rest
                }
                ("drift", [slope, rest @ ..]) => {
                    source.drift = number(slope);
                    rest
                }
                ("noise", [sigma, rest @ ..]) => {
                    source.sigma = number(sigma);
                    rest
                }
                ("ar", [phi, rest @ ..]) => {
                    source.phi = number(phi);
                    rest
                }
                ("every", [time, rest @ ..]) => {
                    source.every = seconds(time) as i64;
                    rest
                }
                _ => panic!("load {series}: {rest:?} is not understood"),
            };
        }
        self.sources.push(source);
    }

    fn end(&mut self, series: &str, marker: bool) {
        let labels = labels(series);
        let before = self.sources.len();
        self.sources.retain(|s| s.labels != labels);
        assert!(self.sources.len() < before, "{series} is not loaded");
        if marker {
            let mut batch = Batch::default();
            batch.push(labels, Timestamp::from_secs(self.now), STALE_NAN);
            self.observe(&batch);
        }
    }
}

fn seconds(text: &str) -> u64 {
    parse_duration(text).unwrap_or_else(|e| panic!("{e}")).as_secs()
}

/// Reads `metric{name="value",…}`.
pub(crate) fn labels(series: &str) -> Labels {
    let selector: Selector = series.parse().unwrap_or_else(|e| panic!("{e}"));
    let pairs = selector.0.iter().map(|m| (m.name(), m.value()));
    let out = Labels::from_pairs(pairs).expect("labels of a script are few and short");
    assert!(out.get(METRIC_NAME).is_some(), "{series} has no metric");
    out
}
