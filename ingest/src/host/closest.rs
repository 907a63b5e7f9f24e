//! Which objects are reported when there are more than the bound.

/// How much nearer a newcomer must be than one that was reported before: without it, objects at the edge of the bound
/// would take turns, and each turn ends a series and begins one.
const INCUMBENT: f64 = 1.25;

/// Keeps the `max` items with the largest share of their limit, in no particular order.
///
/// - `share`: `used / limit`; an infinite one (a limit of zero) comes first, NaN last.
/// - `incumbent`: whether the item was reported in the cycle before.
pub(super) fn keep_closest<T>(
    items: &mut Vec<T>,
    max: usize,
    share: impl Fn(&T) -> f64,
    incumbent: impl Fn(&T) -> bool,
) {
    if items.len() <= max {
        return;
    }
    let mut ranked: Vec<(f64, T)> = items
        .drain(..)
        .map(|item| {
            let s = share(&item);
            let s = if s.is_nan() { f64::NEG_INFINITY } else { s };
            (if incumbent(&item) { s * INCUMBENT } else { s }, item)
        })
        .collect();
    // Stable, so that equals keep the order they came in, which is that of their names.
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    items.extend(ranked.into_iter().take(max).map(|(_, item)| item));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_stay_and_incumbents_are_not_replaced_by_a_hair() {
        let mut items = vec![("a", 0.50), ("b", 0.55), ("c", 0.90), ("d", f64::NAN)];
        keep_closest(&mut items, 2, |i| i.1, |i| i.0 == "a");
        let mut names: Vec<_> = items.iter().map(|i| i.0).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "c"]);

        let mut items = vec![("a", 0.50), ("b", 0.70), ("c", f64::INFINITY)];
        keep_closest(&mut items, 2, |i| i.1, |i| i.0 == "a");
        assert!(items.iter().all(|i| i.0 != "a"));

        let mut few = vec![("x", 0.0)];
        keep_closest(&mut few, 2, |i| i.1, |_| false);
        assert_eq!(few.len(), 1);
    }
}
