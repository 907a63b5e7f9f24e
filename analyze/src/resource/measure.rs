//! What is in use of what, in the resource's own direction.

use forewarn_schemas::Direction;

use super::Cells;
use crate::catalogue::{Entry, LimitSource};
use crate::cell::Cell;

/// Returns the factor that makes a value a level in y-space.
pub(super) fn sign(entry: &Entry) -> f64 {
    match entry.direction {
        Direction::Up => 1.0,
        Direction::Down => -1.0,
    }
}

/// Returns the limit now, in the resource's own direction; `None` when there is none, or only a number that means
/// "unlimited": zero upwards, or absurdly large.
pub(super) fn limit_now(entry: &Entry, cells: &Cells, table: &[Cell]) -> Option<f64> {
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
pub(super) fn ratio(entry: &Entry, cells: &Cells, table: &[Cell], limit: Option<f64>, value: f64) -> Option<f64> {
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
