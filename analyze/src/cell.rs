//! Values of the series that stand beside the used one: limits, capacities, restart markers and harm.
//!
//! A cell is found by its entry, its part and the text it is paired by, whichever of the paired series comes first;
//! several resources may read one cell.

use forewarn_schemas::Timestamp;

use crate::catalogue::Part;
use crate::codec::{Reader, State, state_struct};
use crate::error::AnalyzeError;
use crate::fit::usable;

/// A start time above this is written in milliseconds, any other in seconds.
const MILLISECONDS: f64 = 1e12;
/// Seconds by which a start may lie before the last sample of the run before: clocks differ. A start further back is the
/// same run after its clock was set.
const START_SLACK: f64 = 60.0;

/// Which cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CellKey {
    pub entry: u32,
    pub part: Part,
    pub join: String,
}
state_struct!(CellKey { entry, part, join });

impl State for Part {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Used => 0,
            Self::Limit => 1,
            Self::Capacity => 2,
            Self::Restart => 3,
            Self::Up => 4,
            Self::Harm(i) => 16 + i,
        });
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        Ok(match u8::take(input)? {
            0 => Self::Used,
            1 => Self::Limit,
            2 => Self::Capacity,
            3 => Self::Restart,
            4 => Self::Up,
            i @ 16..=31 => Self::Harm(i - 16),
            _ => return Err(input.bad("a byte that is no part")),
        })
    }
}

/// The last value and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    pub key: CellKey,
    pub value: Option<f64>,
    pub at: Timestamp,
    pub received: Timestamp,
    /// Restarts or harms seen so far.
    pub events: u64,
    /// When the last of them was observed, by the sample's time and by the record's.
    pub event_at: Timestamp,
    pub event_received: Timestamp,
}
state_struct!(Cell { key, value, at, received, events, event_at, event_received });

/// How a cell reads its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The value itself.
    Level,
    /// The time of a start: a change is a restart, unless the new one lies before the last sample.
    Start,
    /// The time since a start: a decrease is a restart.
    Uptime,
    /// A counter: an increase is harm.
    Counter,
    /// A gauge: any value but zero is harm.
    Gauge,
}

impl Cell {
    pub(crate) fn new(key: CellKey) -> Self {
        let never = Timestamp::MIN;
        Self { key, value: None, at: never, received: never, events: 0, event_at: never, event_received: never }
    }

    /// Takes in a sample; what is late or no number is left out.
    pub(crate) fn observe(&mut self, reading: Reading, received: Timestamp, ts: Timestamp, value: f64) {
        if !usable(value) || ts < self.at {
            return;
        }
        let before = self.value.replace(value);
        let seen = self.at;
        (self.at, self.received) = (ts, received);
        let event = match (reading, before) {
            (Reading::Level, _) => false,
            (Reading::Gauge, _) => value != 0.0,
            (Reading::Counter, Some(before)) => value > before,
            (Reading::Uptime, Some(before)) => value < before,
            // Start times are computed by some exporters as now minus uptime and jitter by a second or so.
            (Reading::Start, Some(before)) => {
                let second = if value > MILLISECONDS { 1_000.0 } else { 1.0 };
                let start = Timestamp::from_millis((value / second * 1_000.0) as i64);
                (value - before).abs() > 2.5 * second && start.seconds_since(seen) >= -START_SLACK
            }
            (Reading::Counter | Reading::Uptime | Reading::Start, None) => false,
        };
        if event {
            self.events += 1;
            (self.event_at, self.event_received) = (ts, received);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(reading: Reading, values: &[f64]) -> u64 {
        let mut cell = Cell::new(CellKey { entry: 0, part: Part::Limit, join: String::new() });
        for (i, v) in values.iter().enumerate() {
            let ts = Timestamp::from_secs(i as i64);
            cell.observe(reading, ts, ts, *v);
        }
        cell.events
    }

    #[test]
    fn restarts_and_harm() {
        assert_eq!(events(Reading::Start, &[1e9, 1e9 + 1.0, 1e9, f64::NAN, 1e9 + 60.0]), 1);
        assert_eq!(events(Reading::Start, &[1e12, 1e12 + 1e3]), 0);
        // Sampled at 0 s, 1 s and 2 s of the clock, so a start that moves within the past is the clock's doing.
        assert_eq!(events(Reading::Start, &[-9_000.0, -5_400.0, -9_000.0]), 0);
        assert_eq!(events(Reading::Start, &[-9_000.0, -58.0]), 1);
        assert_eq!(events(Reading::Start, &[1.5e12, 1.5e12 + 3e3]), 1);
        assert_eq!(events(Reading::Uptime, &[100.0, 110.0, 5.0, 15.0]), 1);
        assert_eq!(events(Reading::Counter, &[7.0, 7.0, 8.0, 0.0, 1.0]), 2);
        assert_eq!(events(Reading::Gauge, &[0.0, 1.0, 1.0, 0.0]), 2);
    }
}
