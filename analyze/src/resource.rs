//! One resource from sample to forecast: it owns its screen, outlook, decision and grades.

use std::collections::BTreeMap;
use std::sync::Arc;

use forewarn_schemas::forecast::{Level, Probabilities, Saw, TimeToExhaustion};
use forewarn_schemas::{
    Direction, Forecast, ForecastState, Horizon, ResourceKey, ResourceKind, Sample, SeriesId, Timestamp, is_stale,
};

use crate::History;
use crate::catalogue::{Entry, Harm, LimitSource};
use crate::cell::Cell;
use crate::codec::{Reader, State, state_struct};
use crate::config::AnalyzeConfig;
use crate::decide::{Decision, Evidence, Stage};
use crate::error::AnalyzeError;
use crate::fit::{self, Question, usable};
use crate::grade::Grades;
use crate::liveness::Node;
use crate::outlook::{Mixture, Outlook};
use crate::screen::{Cause, Screen, Seen};
use crate::sentence::{Beside, sentence};

mod climb_view;

use climb_view::ClimbView;

/// Share of the limit that is its reaching in effect, and the one below which that is over.
const FULL: f64 = 0.99;
const RELIEVED: f64 = 0.97;
/// How long an elastic resource must stay full, in seconds: it may yet be reclaimed.
const ELASTIC_FULL: f64 = 300.0;
/// How long what was paged for is held after its node was taken off, in seconds.
const LEFT_HOLD: f64 = 3_600.0;
/// A limit that moves by less is the same limit.
const LIMIT_CHANGE: f64 = 0.01;
/// Share of the time left by which the announced time may move at one evaluation.
const MOVE: f64 = 0.25;
/// Samples before a fit is tried.
const FIT_SAMPLES: u64 = 8;

/// The cells that a resource reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Cells {
    pub limit: Option<u32>,
    pub capacity: Option<u32>,
    pub restart: Option<u32>,
    pub harm: Vec<u32>,
}
state_struct!(Cells { limit, capacity, restart, harm });

impl Cells {
    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut u32> {
        self.limit.iter_mut().chain(&mut self.capacity).chain(&mut self.restart).chain(&mut self.harm)
    }
}

/// How long the level has been at the limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Full {
    run: u32,
    since: Timestamp,
    relieved: u32,
}
state_struct!(Full { run, since, relieved });

/// What was last shown.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shown {
    at: Timestamp,
    state: ForecastState,
    level: Option<Level>,
    harm: bool,
}
state_struct!(Shown { at, state, level, harm });

impl State for ForecastState {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(Self::ALL.iter().position(|s| s == self).expect("ALL holds every state") as u8);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        let i = usize::from(u8::take(input)?);
        Self::ALL.get(i).copied().ok_or_else(|| input.bad("a byte that is no state"))
    }
}

impl State for ResourceKey {
    fn put(&self, out: &mut Vec<u8>) {
        for text in [&self.node, &self.resource, &self.object] {
            text.put(out);
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        Ok(Self { node: State::take(input)?, resource: State::take(input)?, object: State::take(input)? })
    }
}

/// The state of one resource.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub key: ResourceKey,
    pub family: String,
    pub entry: u32,
    pub node: u32,
    /// The series that says how much is used.
    pub owner: SeriesId,
    pub fingerprint: u64,
    pub cells: Cells,
    /// Whether it is among the objects shown.
    pub visible: bool,
    pub screen: Screen,
    restarts: u64,
    /// The limit of the segment, in the resource's own direction.
    limit: Option<f64>,
    ended: Option<Timestamp>,
    full: Full,
    outlook: Option<Box<Outlook>>,
    eta: Option<f64>,
    decision: Decision,
    cuts: u64,
    grades: Grades,
    shown: Option<Shown>,
    forecast: Option<Arc<Forecast>>,
}

/// What an evaluation needs from around the resource.
pub(crate) struct Around<'a> {
    pub entry: &'a Entry,
    pub cells: &'a [Cell],
    pub node: &'a Node,
    pub config: &'a AnalyzeConfig,
    pub at: Timestamp,
    pub history: &'a dyn History,
}

/// What an evaluation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing that anybody needs to hear.
    Same,
    /// State, level or harm changed, or it is rising or worse.
    Changed,
    /// Its samples have ended for good.
    Gone,
}

impl Resource {
    /// Makes a resource from its first usable sample.
    pub(crate) fn new(
        key: ResourceKey,
        family: String,
        (entry, definition): (u32, &Entry),
        node: u32,
        (owner, fingerprint): (SeriesId, u64),
        cells: Cells,
        table: &[Cell],
        (received, first): (Timestamp, Sample),
    ) -> Self {
        let restarts = cells.restart.map_or(0, |c| table[c as usize].events);
        let screen = Screen::new(received, first.ts, sign(definition) * first.value);
        Self {
            key,
            family,
            entry,
            node,
            owner,
            fingerprint,
            cells,
            visible: true,
            screen,
            restarts,
            limit: None,
            ended: None,
            full: Full::default(),
            outlook: None,
            eta: None,
            decision: Decision::default(),
            cuts: 0,
            grades: Grades::default(),
            shown: None,
            forecast: None,
        }
    }

    /// Takes in a sample of the owner.
    pub(crate) fn observe(&mut self, entry: &Entry, table: &[Cell], received: Timestamp, sample: Sample) {
        if is_stale(sample.value) {
            if sample.ts >= self.screen.last {
                self.ended = Some(received);
            }
            return;
        }
        if !usable(sample.value) {
            return;
        }
        self.sync(entry, table);
        let sign = sign(entry);
        let limit = limit_now(entry, &self.cells, table);
        let told = self.decision.stage >= Stage::Critical;
        let floor = entry.kind == ResourceKind::Elastic;
        let y = sign * sample.value;
        let seen = self.screen.observe(received, sample.ts, y, limit.map(|l| sign * l), floor, told);
        if seen == Seen::Late {
            return;
        }
        self.ended = None;
        let ratio = ratio(entry, &self.cells, table, limit, sample.value);
        let full = match (ratio, limit) {
            (Some(r), _) => Some((r >= FULL, r < RELIEVED)),
            (None, Some(l)) => Some((sample.value <= l, sample.value > l * (2.0 - RELIEVED))),
            (None, None) => None,
        };
        let (is_full, is_relieved) = full.unwrap_or((false, true));
        if is_full && self.full.run == 0 {
            self.full.since = sample.ts;
        }
        self.full.run = if is_full { self.full.run.saturating_add(1) } else { 0 };
        self.full.relieved = if is_relieved { self.full.relieved.saturating_add(1) } else { 0 };
    }

    /// Reads other cells from now on.
    pub(crate) fn pair(&mut self, cells: Cells, table: &[Cell]) {
        if cells.restart != self.cells.restart {
            self.restarts = cells.restart.map_or(0, |c| table[c as usize].events);
        }
        self.cells = cells;
    }

    /// Says whether another series of the same resource may take over: this one ended or went silent.
    pub(crate) fn orphaned(&self, received: Timestamp, config: &AnalyzeConfig) -> bool {
        self.ended.is_some() || received.seconds_since(self.screen.received) > self.patience(config)
    }

    /// Goes on with another series: what was learnt stays, the segment is cut. When it is one of another entry, whose
    /// values mean something else, only what was shown stays.
    pub(crate) fn hand_over(&mut self, next: Self) {
        if next.entry != self.entry {
            let (shown, forecast) = (self.shown, self.forecast.take());
            *self = Self { shown, forecast, ..next };
            return;
        }
        let Self { key: _, visible: _, screen, decision, grades, shown, cuts, eta, forecast, .. } =
            std::mem::replace(self, next);
        let fresh = std::mem::replace(&mut self.screen, screen);
        self.screen.cut_from(Cause::Source, fresh.last);
        self.screen.restart_with(fresh.received, fresh.last, fresh.y);
        (self.decision, self.grades, self.shown, self.cuts) = (decision, grades, shown, cuts);
        (self.eta, self.forecast) = (eta, forecast);
    }

    /// Cuts the segment when a restart or a limit change was seen since the last look.
    fn sync(&mut self, entry: &Entry, table: &[Cell]) {
        if let Some(cell) = self.cells.restart.map(|c| &table[c as usize])
            && cell.events != self.restarts
        {
            self.restarts = cell.events;
            self.screen.cut_from(Cause::Restart, cell.event_at);
        }
        let now = limit_now(entry, &self.cells, table);
        if let (Some(old), Some(new)) = (self.limit, now)
            && (new - old).abs() > LIMIT_CHANGE * old.abs().max(new.abs())
        {
            let raised = sign(entry) * (new - old) > 0.0;
            let cause = if raised { Cause::LimitRaised } else { Cause::LimitLowered };
            self.screen.cut_from(cause, self.screen.last);
            self.limit = now;
            self.full.run = 0;
        }
        self.limit = self.limit.or(now);
    }

    fn patience(&self, config: &AnalyzeConfig) -> f64 {
        config.stale_after.as_secs_f64().max(5.0 * self.screen.interval)
    }

    fn gone(&self, a: &Around<'_>) -> bool {
        let silent = a.at.seconds_since(self.screen.received);
        let quiet = self.decision.stage < Stage::Critical;
        let object = a.config.object_gone_after.as_secs_f64().max(20.0 * self.screen.interval);
        let node_alive = |since: Timestamp| a.node.received > since;
        match self.ended {
            // Deleted, not silent: the rest of the node goes on. One that was paged for is held a little longer,
            // because a crash ends series just as well.
            Some(end) if node_alive(end) => {
                let hold = if quiet { a.config.stale_after.as_secs_f64() } else { object };
                a.at.seconds_since(end) > hold
            }
            // Nobody watches the node any more: it was taken off on purpose, or it died and nobody restarted it.
            Some(end) if a.node.left.is_some() => {
                let hold = if quiet { object } else { LEFT_HOLD };
                a.at.seconds_since(end) > hold
            }
            None if !self.key.object.is_empty() && node_alive(self.screen.received) && silent > object => true,
            _ => silent > a.config.gone_after.as_secs_f64(),
        }
    }

    /// Evaluates at `a.at`.
    pub(crate) fn evaluate(&mut self, a: &Around<'_>) -> Outcome {
        self.sync(a.entry, a.cells);
        if self.gone(a) {
            return Outcome::Gone;
        }
        let fresh = self.screen.total - self.decision.total.min(self.screen.total);
        if self.cuts != self.screen.cuts {
            self.cuts = self.screen.cuts;
            self.outlook = None;
            self.eta = None;
            self.grades.cut(self.screen.cause == Cause::Reset);
        }
        let limit = limit_now(a.entry, &self.cells, a.cells).or(self.limit);
        let ratio = ratio(a.entry, &self.cells, a.cells, limit, sign(a.entry) * self.screen.y);
        let forecastable = matches!(a.entry.kind, ResourceKind::Hard | ResourceKind::Elastic);
        let target = limit.filter(|_| forecastable).map(|l| sign(a.entry) * l);
        if let Some(target) = target
            && fresh > 0
        {
            self.grades.follow(self.screen.last, self.screen.y);
            self.refit(a, target);
        }
        let view = target.map(|t| ClimbView::new(&self.screen, self.outlook.as_deref(), a.entry, t, ratio));
        let mixture = self.mix(a.at, view.as_ref());
        let elastic = a.entry.kind == ResourceKind::Elastic;
        let full = forecastable
            && self.full.run >= a.config.confirm_samples
            && (!elastic || self.screen.last.seconds_since(self.full.since) >= ELASTIC_FULL);
        let harm = self.harm(a).is_some();
        self.decision.update(
            &Evidence {
                at: a.at,
                total: self.screen.total,
                cuts: self.screen.cuts,
                cause: self.screen.cause,
                samples: self.screen.samples,
                age: self.screen.last.seconds_since(self.screen.since),
                climb: self.screen.last.seconds_since(self.screen.climb.start),
                full,
                relieved: self.full.relieved >= a.config.confirm_samples,
                harm,
                mixture: mixture.as_ref(),
                blind: self.screen.samples < FIT_SAMPLES,
                lead: a.entry.lead.as_secs_f64(),
                unreliable: self.grades.unreliable(),
            },
            a.config,
        );
        self.decision.follow_level(ratio, a.entry.minor, a.entry.major, fresh, a.config.confirm_samples);
        if fresh > 0
            && self.decision.stage >= Stage::Rising
            && let (Some(o), Some(target)) = (&self.outlook, target)
        {
            self.grades.wager(a.at, self.screen.y, o.slope.per_second, target);
        }
        let stale = a.at.seconds_since(self.screen.received) > self.patience(a.config);
        let state = self.decision.state(stale);
        let now = Shown { at: a.at, state, level: self.decision.level, harm };
        let same = self.shown.is_some_and(|s| (s.state, s.level, s.harm) == (now.state, now.level, now.harm));
        let loud = self.decision.stage >= Stage::Rising;
        if !same || loud || fresh > 0 {
            self.shown = Some(now);
            self.forecast = Some(Arc::new(self.build(a.entry, a.cells, a.config, now)));
        }
        if same && !loud { Outcome::Same } else { Outcome::Changed }
    }

    /// Fits again when that may say something new; see `docs/forecasting.md`, "When a fit is made".
    fn refit(&mut self, a: &Around<'_>, target: f64) {
        let horizon = Horizon::D7.seconds();
        let gap = target - self.screen.y;
        let watched = self.decision.stage >= Stage::Rising || self.screen.suspects(gap, horizon);
        if !watched || self.screen.samples < FIT_SAMPLES {
            self.outlook = None;
            return;
        }
        let stands = self.outlook.as_ref().is_some_and(|o| {
            !o.outgrown(self.screen.last) && o.expects(self.screen.last, self.screen.y, self.screen.noise)
        });
        if stands {
            return;
        }
        let question = Question {
            series: self.owner,
            screen: &self.screen,
            at: a.at,
            sign: sign(a.entry),
            limit: target,
            floor: self.screen.cycle().filter(|_| a.entry.kind == ResourceKind::Elastic),
            fingerprint: self.fingerprint,
            error: self.grades.error(),
            resamples: a.config.resamples,
        };
        self.outlook = fit::fit(&question, a.history).map(Box::new);
    }

    /// Mixes the models, and moves the announced time towards the fitted one by a quarter of what is left at most.
    fn mix(&mut self, at: Timestamp, view: Option<&ClimbView>) -> Option<Mixture> {
        let (outlook, view) = (self.outlook.as_ref()?, view?);
        let median = outlook.median_from(at);
        let now = at.as_secs_f64();
        if self.decision.stage < Stage::Rising || outlook.share <= 0.0 {
            self.eta = None;
        } else {
            let aim = now + median;
            let eta = self.eta.unwrap_or(aim);
            let room = MOVE * (eta - now).max(60.0);
            self.eta = Some(aim.clamp(eta - room, eta + room));
        }
        Some(outlook.mix(at, view.reach, self.stretch(outlook, at)))
    }

    fn stretch(&self, outlook: &Outlook, at: Timestamp) -> f64 {
        let median = outlook.median_from(at);
        match self.eta {
            Some(eta) if median > 0.0 => ((eta - at.as_secs_f64()) / median).max(0.0),
            _ => 1.0,
        }
    }

    /// Returns which harm was seen last, by its index, and when, if that is not too long ago.
    fn harm(&self, a: &Around<'_>) -> Option<(usize, Timestamp)> {
        self.harm_at(a.cells, a.config, a.at)
    }

    fn harm_at(&self, cells: &[Cell], config: &AnalyzeConfig, at: Timestamp) -> Option<(usize, Timestamp)> {
        let hold = config.harm_hold.as_secs_f64();
        let seen = self.cells.harm.iter().enumerate().map(|(i, c)| (i, &cells[*c as usize]));
        seen.filter(|(_, c)| c.events > 0 && at.seconds_since(c.event_received) < hold)
            .map(|(i, c)| (i, c.event_received))
            .max_by_key(|(_, at)| *at)
    }

    fn build(&self, entry: &Entry, cells: &[Cell], config: &AnalyzeConfig, shown: Shown) -> Forecast {
        let limit = limit_now(entry, &self.cells, cells).or(self.limit);
        let used = sign(entry) * self.screen.y;
        let ratio = ratio(entry, &self.cells, cells, limit, used);
        let outlook = self.outlook.as_deref();
        let view = limit.map(|l| ClimbView::new(&self.screen, outlook, entry, sign(entry) * l, ratio));
        let mixture = outlook.zip(view.as_ref()).map(|(o, v)| o.mix(shown.at, v.reach, self.stretch(o, shown.at)));
        let exhausted = shown.state == ForecastState::Exhausted;
        let (time_to_exhaustion, probability) = match &mixture {
            _ if exhausted => {
                let now = Some(0.0);
                (
                    TimeToExhaustion { p10: now, p50: now, p90: now },
                    Probabilities { m30: 1.0, h2: 1.0, h24: 1.0, d7: 1.0 },
                )
            }
            Some(m) => (m.time_to_exhaustion(), m.probabilities()),
            None => Default::default(),
        };
        let models = match &mixture {
            Some(m) => m.models(),
            None if limit.is_some() => BTreeMap::from([("flat".to_owned(), 1.0)]),
            None => BTreeMap::new(),
        };
        let saw = match outlook {
            Some(o) => {
                Saw { since: o.since, samples: o.samples + (self.screen.total - o.total), last: self.screen.last }
            }
            None => Saw { since: self.screen.since, samples: self.screen.samples, last: self.screen.last },
        };
        let mut forecast = Forecast {
            key: self.key.clone(),
            family: self.family.clone(),
            kind: entry.kind,
            direction: entry.direction,
            unit: entry.unit.clone(),
            at: shown.at,
            state: shown.state,
            used: Some(used),
            limit,
            used_ratio: ratio,
            slope: outlook.map(|o| o.slope),
            time_to_exhaustion,
            probability,
            models,
            saw,
            error_ratio: self.grades.error(),
            harm: shown.harm,
            level: shown.level,
            sentence: String::new(),
        };
        let harm = self.harm_at(cells, config, shown.at).map(|(i, when)| {
            let selector = entry.harm.get(i).map(|h| match h {
                Harm::Counter(s) | Harm::Gauge(s) => s,
            });
            (selector.and_then(|s| s.metric()).unwrap_or("a harm series"), when)
        });
        let beside = Beside {
            cause: self.screen.cause,
            harm,
            explaining: view.map_or(0, |v| v.explaining),
            received: self.screen.received,
        };
        forecast.sentence = sentence(&forecast, &beside);
        forecast
    }

    /// Makes the forecast again that was last shown, after a restore.
    pub(crate) fn rebuild(&mut self, entry: &Entry, cells: &[Cell], config: &AnalyzeConfig) {
        self.forecast = self.shown.map(|shown| Arc::new(self.build(entry, cells, config, shown)));
    }

    pub(crate) fn forecast(&self) -> Option<&Arc<Forecast>> {
        self.forecast.as_ref()
    }

    pub(crate) fn state(&self) -> Option<ForecastState> {
        self.shown.map(|s| s.state)
    }

    /// Orders objects of one resource: the one to show first is the smallest.
    pub(crate) fn rank(&self) -> (u8, u64, bool, u64) {
        let stage = match self.decision.stage {
            Stage::Exhausted => 0,
            Stage::Critical => 1,
            Stage::Rising => 2,
            Stage::Quiet => 3,
        };
        let forecast = self.forecast.as_ref();
        let p50 = forecast.and_then(|f| f.time_to_exhaustion.p50).map_or(u64::MAX, |t| t as u64);
        let ratio = forecast.and_then(|f| f.used_ratio).unwrap_or(0.0).clamp(0.0, 2.0);
        (stage, if stage < 3 { p50 } else { 0 }, !self.visible && stage == 3, 40 - (ratio * 20.0) as u64)
    }
}

impl State for Resource {
    fn put(&self, out: &mut Vec<u8>) {
        self.key.put(out);
        self.family.put(out);
        self.entry.put(out);
        self.node.put(out);
        self.owner.put(out);
        self.fingerprint.put(out);
        self.cells.put(out);
        self.visible.put(out);
        self.screen.put(out);
        self.restarts.put(out);
        self.limit.put(out);
        self.ended.put(out);
        self.full.put(out);
        self.outlook.put(out);
        self.eta.put(out);
        self.decision.put(out);
        self.cuts.put(out);
        self.grades.put(out);
        self.shown.put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        Ok(Self {
            key: State::take(input)?,
            family: State::take(input)?,
            entry: State::take(input)?,
            node: State::take(input)?,
            owner: State::take(input)?,
            fingerprint: State::take(input)?,
            cells: State::take(input)?,
            visible: State::take(input)?,
            screen: State::take(input)?,
            restarts: State::take(input)?,
            limit: State::take(input)?,
            ended: State::take(input)?,
            full: State::take(input)?,
            outlook: State::take(input)?,
            eta: State::take(input)?,
            decision: State::take(input)?,
            cuts: State::take(input)?,
            grades: State::take(input)?,
            shown: State::take(input)?,
            forecast: None,
        })
    }
}

fn sign(entry: &Entry) -> f64 {
    match entry.direction {
        Direction::Up => 1.0,
        Direction::Down => -1.0,
    }
}

/// Returns the limit now, in the resource's own direction; `None` when there is none, or only a number that means
/// "unlimited": zero upwards, or absurdly large.
fn limit_now(entry: &Entry, cells: &Cells, table: &[Cell]) -> Option<f64> {
    let limit = match entry.limit {
        LimitSource::Constant(n) => Some(n),
        LimitSource::Series(_) => cells.limit.and_then(|c| table[c as usize].value),
        LimitSource::None => None,
    };
    limit.filter(|l| match entry.direction {
        Direction::Up => *l > 0.0,
        Direction::Down => *l >= 0.0,
    })
}

/// Returns the share in use.
fn ratio(entry: &Entry, cells: &Cells, table: &[Cell], limit: Option<f64>, value: f64) -> Option<f64> {
    let limit = limit?;
    let ratio = match entry.direction {
        Direction::Up => value / limit,
        Direction::Down => {
            let whole = table[cells.capacity? as usize].value.filter(|c| *c > limit)?;
            (whole - value) / (whole - limit)
        }
    };
    Some(ratio.max(0.0)).filter(|r| r.is_finite())
}
