//! A resource as bytes.

use forewarn_schemas::{ForecastState, ResourceKey};

use super::Resource;
use crate::codec::{Reader, State};
use crate::error::AnalyzeError;

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
