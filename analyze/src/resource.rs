//! One resource from sample to forecast: it owns its screen, outlook, decision and grades.

use std::sync::Arc;

use forewarn_schemas::forecast::Level;
use forewarn_schemas::{
    Forecast, ForecastState, Horizon, ResourceKey, ResourceKind, Sample, SeriesId, Timestamp, is_stale,
};

use crate::History;
use crate::catalogue::Entry;
use crate::cell::Cell;
use crate::codec::state_struct;
use crate::config::AnalyzeConfig;
use crate::decide::{Decision, Evidence, Stage};
use crate::fit::{self, Question, usable};
use crate::grade::Grades;
use crate::liveness::Node;
use crate::outlook::{Mixture, Outlook};
use crate::screen::{Cause, Screen, Seen};

mod climb_view;
mod measure;
mod report;
mod state;

use climb_view::ClimbView;
use measure::{limit_now, ratio, sign, void};

/// Share of the limit that is its reaching in effect, and the one below which that is over.
const FULL: f64 = 0.99;
const RELIEVED: f64 = 0.97;
/// Seconds after a page from which a fall is most likely the work of people.
const PEOPLE_ACT: f64 = 120.0;
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

/// Own intervals after a restart of the node in which a series must come back, or it ended with the old run.
const RESTART_PATIENCE: f64 = 3.0;

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
        // Nobody acts on a page within two minutes.
        let told = self.decision.stage >= Stage::Critical && received.seconds_since(self.decision.since) > PEOPLE_ACT;
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
        if void(entry, &self.cells, table) {
            self.limit = None;
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
        let restarted = self.cells.restart.map(|c| &a.cells[c as usize]).filter(|c| c.events > 0);
        match self.ended {
            // The node was started anew and this has not come back: it ended with what ran before.
            _ if restarted.is_some_and(|c| {
                c.event_at > self.screen.last
                    && a.at.seconds_since(c.event_received) > RESTART_PATIENCE * self.screen.interval.max(1.0)
            }) =>
            {
                true
            }
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
            // Vanished without a word. What was raised is held like anything silent: missing data resolves nothing.
            None if !self.key.object.is_empty()
                && self.decision.stage < Stage::Rising
                && node_alive(self.screen.received)
                && silent > object =>
            {
                true
            }
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
        let full_for = a.entry.full_for;
        let full = forecastable
            && self.full.run >= a.config.confirm_samples
            && (full_for.is_zero() || self.screen.last.seconds_since(self.full.since) >= full_for.as_secs_f64());
        let hold = a.config.harm_hold.as_secs_f64();
        let harm = self.last_harm(a.cells).is_some_and(|(_, seen)| a.at.seconds_since(seen) < hold);
        self.decision.update(
            &Evidence {
                at: a.at,
                total: self.screen.total,
                cuts: self.screen.cuts,
                cause: self.screen.cause,
                roomy: ratio.is_some_and(|r| r < a.entry.major.unwrap_or(1.0)),
                samples: self.screen.samples,
                age: self.screen.last.seconds_since(self.screen.since),
                line: self.outlook.as_ref().map(|o| o.since),
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
        let now = Shown { at: a.at, state, level: self.decision.level, harm: harm || self.decision.harmed() };
        let same = self.shown.is_some_and(|s| (s.state, s.level, s.harm) == (now.state, now.level, now.harm));
        let loud = self.decision.stage >= Stage::Rising;
        if !same || loud || fresh > 0 {
            self.shown = Some(now);
            self.forecast = Some(Arc::new(self.build(a.entry, a.cells, now)));
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

    /// Returns which harm was seen last, by its index, and when.
    fn last_harm(&self, cells: &[Cell]) -> Option<(usize, Timestamp)> {
        let seen = self.cells.harm.iter().enumerate().map(|(i, c)| (i, &cells[*c as usize]));
        seen.filter(|(_, c)| c.events > 0).map(|(i, c)| (i, c.event_received)).max_by_key(|(_, at)| *at)
    }

    pub(crate) fn forecast(&self) -> Option<&Arc<Forecast>> {
        self.forecast.as_ref()
    }

    pub(crate) fn state(&self) -> Option<ForecastState> {
        self.shown.map(|s| s.state)
    }
}
