//! From state to what is said.

use std::collections::BTreeMap;
use std::sync::Arc;

use forewarn_schemas::forecast::{Probabilities, Saw, TimeToExhaustion};
use forewarn_schemas::{Forecast, ForecastState};

use super::climb_view::ClimbView;
use super::measure::{limit_now, ratio, sign};
use super::{Resource, Shown};
use crate::catalogue::{Entry, Harm};
use crate::cell::Cell;
use crate::decide::Stage;
use crate::sentence::{Beside, sentence};

impl Resource {
    pub(super) fn build(&self, entry: &Entry, cells: &[Cell], shown: Shown) -> Forecast {
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
        let harm = self.last_harm(cells).filter(|_| shown.harm).map(|(i, when)| {
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
    pub(crate) fn rebuild(&mut self, entry: &Entry, cells: &[Cell]) {
        self.forecast = self.shown.map(|shown| Arc::new(self.build(entry, cells, shown)));
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
