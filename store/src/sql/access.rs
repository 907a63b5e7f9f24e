//! `labels['mount']`: the value of a key of a map, null when it is not there.

use datafusion::common::{DFSchema, Result};
use datafusion::functions::core::get_field;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, GetFieldAccess, lit};
use datafusion::scalar::ScalarValue;

/// Plans subscripts by text as `get_field`, which DataFusion does only together with all its functions of lists.
#[derive(Debug)]
pub(super) struct LabelAccess;

impl ExprPlanner for LabelAccess {
    fn plan_field_access(&self, raw: RawFieldAccessExpr, _: &DFSchema) -> Result<PlannerResult<RawFieldAccessExpr>> {
        match raw.field_access {
            GetFieldAccess::NamedStructField { name } => {
                Ok(PlannerResult::Planned(get_field().call(vec![raw.expr, lit(name)])))
            }
            other => Ok(PlannerResult::Original(RawFieldAccessExpr { field_access: other, expr: raw.expr })),
        }
    }
}

/// Returns the label's name if an expression is `labels['name']`.
pub(super) fn label_of(expr: &Expr) -> Option<&str> {
    let Expr::ScalarFunction(f) = expr else { return None };
    let [Expr::Column(column), Expr::Literal(name, _)] = f.args.as_slice() else { return None };
    if f.func.name() == "get_field" && column.name == "labels" { text_of(name) } else { None }
}

/// Returns the text of a literal.
pub(super) fn text_of(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(Some(s)) | ScalarValue::Utf8View(Some(s)) | ScalarValue::LargeUtf8(Some(s)) => Some(s),
        _ => None,
    }
}
