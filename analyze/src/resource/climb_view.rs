//! The present climb against earlier ones.

use forewarn_schemas::ResourceKind;

use crate::catalogue::Entry;
use crate::outlook::{Outlook, reach};
use crate::screen::{Screen, compare};

/// What the climbs say at one time.
pub(crate) struct ClimbView {
    /// The chance that the present climb reaches the limit rather than ends by itself.
    pub reach: f64,
    /// Earlier climbs that explain it.
    pub explaining: usize,
}

impl ClimbView {
    /// Looks at the climbs of `screen` on the way to `limit` (y-space). Of an elastic resource the floor climbs, so
    /// what is seen on the way of each collection says nothing; and before any collection was seen, it is as likely as
    /// not that there will be one.
    pub(crate) fn new(
        screen: &Screen,
        outlook: Option<&Outlook>,
        entry: &Entry,
        limit: f64,
        ratio: Option<f64>,
    ) -> Self {
        let share = |low: f64, now: f64| if limit > low { (now - low) / (limit - low) } else { 1.0 };
        let exponent = entry.resets.exponent();
        if entry.kind == ResourceKind::Elastic && screen.cycle().is_some() {
            let done = outlook.map_or(0.0, |o| {
                let rise = o.slope.per_second * o.fitted.seconds_since(o.since);
                share(o.level - rise, o.level)
            });
            return Self { reach: reach(exponent, done, None, 0, 0), explaining: 0 };
        }
        let elastic = entry.kind == ResourceKind::Elastic;
        let (explaining, outgrown) = compare(&screen.climb, &screen.past, screen.y, limit, screen.noise);
        let reach = reach(exponent, share(screen.climb.low, screen.y), ratio, explaining, outgrown);
        Self { reach: if elastic { 0.5 * reach } else { reach }, explaining }
    }
}
