//! The present climb against earlier ones.

use crate::catalogue::Entry;
use crate::screen::{Screen, compare};

use super::reach_of;

/// What the climbs say at one time.
pub(crate) struct ClimbView {
    /// The chance that the present climb reaches the limit rather than ends by itself.
    pub reach: f64,
    /// Earlier climbs that explain it.
    pub explaining: usize,
}

impl ClimbView {
    /// Looks at the climbs of `screen` on the way to `limit` (y-space).
    pub(crate) fn new(screen: &Screen, entry: &Entry, limit: f64, ratio: Option<f64>) -> Self {
        let low = screen.climb.low;
        let way = limit - low;
        let done = if way > 0.0 { (screen.y - low) / way } else { 1.0 };
        let (explaining, outgrown) = compare(&screen.climb, &screen.past, screen.y, limit, screen.noise);
        Self { reach: reach_of(entry, done, ratio, explaining, outgrown), explaining }
    }
}
