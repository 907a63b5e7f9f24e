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

/// Says whether there is nothing to run out of: downwards, the whole is known and not above the limit, as with the
/// pseudo file systems whose size is 0.
pub(super) fn void(entry: &Entry, cells: &Cells, table: &[Cell]) -> bool {
    let value = |cell: Option<u32>| cell.and_then(|c| table[c as usize].value);
    let limit = match entry.limit {
        LimitSource::Constant(n) => Some(n),
        LimitSource::Series(_) => value(cells.limit),
        LimitSource::None => None,
    };
    entry.direction == Direction::Down && matches!((value(cells.capacity), limit), (Some(c), Some(l)) if c <= l)
}

/// Returns the limit now, in the resource's own direction; `None` when there is none, or only a number that means
/// "unlimited": zero upwards, or absurdly large; or when the whole is no larger than the limit (see [`void`]).
pub(super) fn limit_now(entry: &Entry, cells: &Cells, table: &[Cell]) -> Option<f64> {
    let limit = match entry.limit {
        LimitSource::Constant(n) => Some(n),
        LimitSource::Series(_) => cells.limit.and_then(|c| table[c as usize].value),
        LimitSource::None => None,
    };
    limit.filter(|_| !void(entry, cells, table)).filter(|l| match entry.direction {
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
