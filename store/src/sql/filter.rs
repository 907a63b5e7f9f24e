//! Which filters of a query the store decides itself: bounds on `ts`, and whatever follows from a series' labels alone.
//!
//! The second kind is evaluated once per series by DataFusion's own expressions, so every operator and function works
//! and the answer is exact; equality and `IN` on one column or label are looked up in the label index first.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;
use forewarn_schemas::{Labels, TimeRange, Timestamp};

use super::access::{label_of, text_of};
use crate::index::{Ids, Key, LabelIndex, intersect};
use crate::rows::SampleColumn;

/// Columns that follow from the labels.
const SERIES_COLUMNS: [SampleColumn; 4] =
    [SampleColumn::Metric, SampleColumn::Node, SampleColumn::Family, SampleColumn::Labels];

/// Series looked at together.
const SERIES_BATCH: usize = 8192;

/// Says whether the store decides a filter completely.
pub(super) fn is_exact(expr: &Expr) -> bool {
    time_bounds(expr).is_some() || of_series(expr)
}

/// Says whether a filter follows from the labels of a series.
pub(super) fn of_series(expr: &Expr) -> bool {
    let columns = expr.column_refs();
    let known = |name: &str| SERIES_COLUMNS.iter().any(|c| c.field().name() == name);
    let pure = !expr
        .exists(|e| {
            Ok(matches!(
                e,
                Expr::ScalarSubquery(_)
                    | Expr::InSubquery(_)
                    | Expr::Exists(_)
                    | Expr::SetComparison(_)
                    | Expr::OuterReferenceColumn(..)
                    | Expr::AggregateFunction(_)
                    | Expr::WindowFunction(_)
                    | Expr::Placeholder(_)
            ))
        })
        .unwrap_or(true);
    !columns.is_empty() && columns.iter().all(|c| known(&c.name)) && pure && !expr.is_volatile()
}

/// Returns the range of all bounds on `ts` among the filters.
pub(super) fn time_range(filters: &[Expr]) -> TimeRange {
    filters
        .iter()
        .filter_map(time_bounds)
        .fold(TimeRange::ALL, |a, b| TimeRange::new(a.start.max(b.start), a.end.min(b.end)))
}

/// Returns the range that a filter on `ts` alone leaves.
fn time_bounds(expr: &Expr) -> Option<TimeRange> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let (a, b) = (time_bounds(left)?, time_bounds(right)?);
            Some(TimeRange::new(a.start.max(b.start), a.end.min(b.end)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (column, Expr::Literal(value, _)) if is_ts(column) => bound(*op, value),
            (Expr::Literal(value, _), column) if is_ts(column) => bound(op.swap()?, value),
            _ => None,
        },
        Expr::Between(b) if !b.negated && is_ts(&b.expr) => {
            let (Expr::Literal(low, _), Expr::Literal(high, _)) = (b.low.as_ref(), b.high.as_ref()) else {
                return None;
            };
            let (low, high) = (bound(Operator::GtEq, low)?, bound(Operator::LtEq, high)?);
            Some(TimeRange::new(low.start, high.end))
        }
        _ => None,
    }
}

/// `ts`, or `ts` cast to a finer unit, which compares the same.
fn is_ts(expr: &Expr) -> bool {
    match expr {
        Expr::Column(c) => c.name == "ts",
        Expr::Cast(cast) => {
            let finer = [TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
            let fine = matches!(cast.field.data_type(), DataType::Timestamp(unit, Some(_)) if finer.contains(unit));
            fine && is_ts(&cast.expr)
        }
        _ => false,
    }
}

fn bound(op: Operator, value: &ScalarValue) -> Option<TimeRange> {
    let (n, per_ms) = match value {
        ScalarValue::TimestampSecond(Some(s), _) => (s.checked_mul(1000)?, 1),
        ScalarValue::TimestampMillisecond(Some(ms), _) => (*ms, 1),
        ScalarValue::TimestampMicrosecond(Some(us), _) => (*us, 1000),
        ScalarValue::TimestampNanosecond(Some(ns), _) => (*ns, 1_000_000),
        _ => return None,
    };
    // The first whole millisecond not below the literal, and the first above it.
    let above = n.div_euclid(per_ms).checked_add(1)?;
    let not_below = if n.rem_euclid(per_ms) == 0 { n.div_euclid(per_ms) } else { above };
    // `TimeRange` cannot say "up to the last instant of time", so bounds near it are left to the engine.
    if above >= i64::MAX - 1 {
        return None;
    }
    let (above, not_below) = (Timestamp::from_millis(above), Timestamp::from_millis(not_below));
    Some(match op {
        Operator::GtEq => TimeRange::new(not_below, Timestamp::MAX),
        Operator::Gt => TimeRange::new(above, Timestamp::MAX),
        Operator::Lt => TimeRange::new(Timestamp::MIN, not_below),
        Operator::LtEq => TimeRange::new(Timestamp::MIN, above),
        Operator::Eq => TimeRange::new(not_below, above),
        _ => return None,
    })
}

/// Filters on series, ready to be applied.
#[derive(Debug)]
pub(super) struct SeriesFilter {
    terms: Vec<(Key, Vec<String>)>,
    exprs: Vec<Expr>,
}

impl SeriesFilter {
    pub(super) fn new(filters: &[Expr]) -> Self {
        let exprs: Vec<Expr> = filters.iter().filter(|f| of_series(f)).cloned().collect();
        let terms = exprs.iter().filter_map(term).collect();
        Self { terms, exprs }
    }

    /// Returns the series that the index alone leaves.
    pub(super) fn candidates(&self, index: &LabelIndex) -> Ids {
        let mut terms = self.terms.iter().map(|(key, values)| index.with_value(key, values));
        match terms.next() {
            Some(first) => terms.fold(first, |a, b| intersect(&a, &b)),
            None => index.all().map(|(id, _)| id).collect(),
        }
    }

    /// Keeps the series for which every filter is true.
    pub(super) fn apply(&self, state: &dyn Session, series: Vec<(u32, Labels)>) -> Result<Vec<(u32, Labels)>> {
        if self.exprs.is_empty() || series.is_empty() {
            return Ok(series);
        }
        let used = |c: &SampleColumn| {
            let name = c.field();
            self.exprs.iter().any(|e| e.column_refs().iter().any(|r| r.name == *name.name()))
        };
        let columns: Vec<SampleColumn> = SERIES_COLUMNS.into_iter().filter(used).collect();
        let fields: Vec<Field> = columns.iter().map(|c| c.field()).collect();
        let schema = Arc::new(Schema::new(fields));
        let df_schema = DFSchema::try_from(Arc::clone(&schema))?;
        let exprs = self.exprs.iter().map(|e| state.create_physical_expr(e.clone(), &df_schema));
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        let mut out = Vec::new();
        for chunk in series.chunks(SERIES_BATCH) {
            let arrays = columns.iter().filter_map(|c| c.of_series(chunk.iter().map(|(_, l)| l)));
            let batch = RecordBatch::try_new(Arc::clone(&schema), arrays.collect())?;
            let mut keep = vec![true; chunk.len()];
            for expr in &exprs {
                let result = expr.evaluate(&batch)?.into_array(chunk.len())?;
                let result = result.as_boolean();
                for (i, keep) in keep.iter_mut().enumerate() {
                    *keep &= result.is_valid(i) && result.value(i);
                }
            }
            out.extend(chunk.iter().zip(keep).filter(|(_, keep)| *keep).map(|(s, _)| s.clone()));
        }
        Ok(out)
    }

    /// Writes the filters for `EXPLAIN`.
    pub(super) fn describe(&self) -> String {
        let all: Vec<String> = self.exprs.iter().map(|e| e.human_display().to_string()).collect();
        all.join(" AND ")
    }
}

/// Reads a filter that the label index can answer: a column or label that equals a text, or one of several.
fn term(expr: &Expr) -> Option<(Key, Vec<String>)> {
    let (key, values) = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Literal(v, _), column) | (column, Expr::Literal(v, _)) => {
                (key(column)?, vec![text_of(v)?.to_owned()])
            }
            _ => return None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            // Short lists of `IN` are rewritten to this.
            let ((a, mut x), (b, y)) = (term(left)?, term(right)?);
            if a != b {
                return None;
            }
            x.extend(y);
            (a, x)
        }
        Expr::InList(list) if !list.negated => {
            let text = |e: &Expr| match e {
                Expr::Literal(v, _) => text_of(v).map(str::to_owned),
                _ => None,
            };
            (key(&list.expr)?, list.list.iter().map(text).collect::<Option<_>>()?)
        }
        _ => return None,
    };
    // A series without a metric has the empty one, which no posting knows.
    if values.iter().any(String::is_empty) { None } else { Some((key, values)) }
}

fn key(expr: &Expr) -> Option<Key> {
    if let Some(name) = label_of(expr) {
        return (name != forewarn_schemas::METRIC_NAME).then(|| Key::Label(name.to_owned()));
    }
    let Expr::Column(column) = expr else { return None };
    match column.name.as_str() {
        "metric" => Some(Key::metric()),
        "node" => Some(Key::Node),
        "family" => Some(Key::Family),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{cast, col, lit};

    fn ns(n: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(n), Some("+00:00".into())))
    }

    fn ms(n: i64) -> Expr {
        lit(ScalarValue::TimestampMillisecond(Some(n), Some("+00:00".into())))
    }

    fn millis(e: &Expr) -> Option<(i64, i64)> {
        time_bounds(e).map(|r| (r.start.as_millis(), r.end.as_millis()))
    }

    #[test]
    fn bounds_on_time_are_exact_to_the_millisecond() {
        const MIN: i64 = i64::MIN;
        const MAX: i64 = i64::MAX;
        assert_eq!(millis(&col("ts").gt_eq(ms(5))), Some((5, MAX)));
        assert_eq!(millis(&ms(5).lt(col("ts"))), Some((6, MAX)));
        assert_eq!(millis(&col("ts").lt(ns(5_000_001))), Some((MIN, 6)));
        assert_eq!(millis(&col("ts").lt_eq(ns(5_999_999))), Some((MIN, 6)));
        assert_eq!(millis(&col("ts").gt(ns(-1))), Some((0, MAX)));
        assert_eq!(millis(&col("ts").gt_eq(ns(-1))), Some((0, MAX)));
        assert_eq!(millis(&col("ts").eq(ns(5_000_001))), Some((6, 6)));
        assert_eq!(millis(&col("ts").between(ms(3), ms(4))), Some((3, 5)));
        assert_eq!(millis(&col("ts").gt(ms(3)).and(col("ts").lt(ms(9)))), Some((4, 9)));
        let finer = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
        assert_eq!(millis(&cast(col("ts"), finer).gt_eq(ns(1))), Some((1, MAX)));
        let coarser = DataType::Timestamp(TimeUnit::Second, Some("+00:00".into()));
        for other in [
            cast(col("ts"), coarser).gt_eq(ms(1)),
            col("ts").not_eq(ms(1)),
            col("ts").gt(ms(1)).or(col("ts").lt(ms(0))),
            col("value").gt(ms(1)),
            col("ts").not_between(ms(1), ms(2)),
            col("ts").lt_eq(ms(MAX)),
        ] {
            assert_eq!(millis(&other), None, "{other}");
        }
    }

    #[test]
    fn what_follows_from_the_labels_is_told_from_the_rest() {
        assert!(of_series(&col("metric").eq(lit("m")).or(col("node").like(lit("n%")))));
        assert!(!of_series(&col("metric").eq(lit("m")).and(col("value").gt(lit(1)))));
        assert!(!of_series(&lit(true)));
        assert_eq!(term(&col("node").in_list(vec![lit("a"), lit("b")], false)).unwrap().1, ["a", "b"]);
        assert_eq!(term(&col("node").eq(lit("a")).or(lit("b").eq(col("node")))).unwrap().1, ["a", "b"]);
        for other in [
            col("node").in_list(vec![lit("a")], true),
            col("metric").eq(lit("")),
            col("node").eq(lit("a")).or(col("metric").eq(lit("b"))),
            col("node").not_eq(lit("a")),
        ] {
            assert!(term(&other).is_none(), "{other}");
        }
    }
}
