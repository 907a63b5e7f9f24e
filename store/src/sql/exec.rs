//! The plan node of both tables: a reader per partition of the store, and a line for `EXPLAIN`.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use super::access::text_of;
use crate::error::StoreError;
use crate::scan::external;

/// Takes a batch; says whether another is wanted.
pub(super) type Emit<'a> = &'a mut dyn FnMut(RecordBatch) -> bool;

/// Produces the batches of one partition; blocks.
pub(super) type Reader = Arc<dyn Fn(Emit<'_>) -> Result<(), StoreError> + Send + Sync>;

/// A column of a projection that a scan can do itself.
pub(super) enum Pick {
    /// A column of the scan, by index.
    Column(usize),
    /// A label out of the scan's column `labels`, by index and name.
    Label(usize, String),
}

/// Builds the scan that has the picks for its columns.
pub(super) type Narrow = Arc<dyn Fn(&[Pick], SchemaRef) -> Option<StoreExec> + Send + Sync>;

pub(super) struct StoreExec {
    name: &'static str,
    line: String,
    readers: Vec<Reader>,
    /// Rows after which a partition may stop.
    limit: Option<usize>,
    narrow: Option<Narrow>,
    properties: Arc<PlanProperties>,
}

impl StoreExec {
    pub(super) fn new(
        name: &'static str,
        line: String,
        schema: SchemaRef,
        readers: Vec<Reader>,
        limit: Option<usize>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(readers.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self { name, line, readers, limit, narrow: None, properties: Arc::new(properties) }
    }

    /// Lets a projection of plain columns and labels become part of the scan.
    pub(super) fn with_narrow(self, narrow: Narrow) -> Self {
        Self { narrow: Some(narrow), ..self }
    }
}

impl fmt::Debug for StoreExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.line)
    }
}

impl DisplayAs for StoreExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match kind {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "{}: {}", self.name, self.line)?;
                self.limit.map_or(Ok(()), |n| write!(f, ", limit={n}"))
            }
            DisplayFormatType::TreeRender => f.write_str(&self.line),
        }
    }
}

impl ExecutionPlan for StoreExec {
    fn name(&self) -> &str {
        self.name
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let picks = projection.expr().iter().map(|p| pick(p.expr.as_ref())).collect::<Option<Vec<_>>>();
        let (Some(narrow), Some(picks)) = (&self.narrow, picks) else { return Ok(None) };
        Ok(narrow(&picks, projection.schema()).map(|exec| Arc::new(exec) as _))
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let reader = Arc::clone(&self.readers[partition]);
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), 2);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            let mut emit = |batch: RecordBatch| {
                let batch = if batch.num_rows() > left { batch.slice(0, left) } else { batch };
                left -= batch.num_rows();
                // The receiver is gone when nobody waits for the answer.
                sender.blocking_send(Ok(batch)).is_ok() && left > 0
            };
            reader(&mut emit).map_err(external)
        });
        Ok(builder.build())
    }
}

/// Reads a column, or `get_field(labels, 'name')`.
fn pick(expr: &dyn PhysicalExpr) -> Option<Pick> {
    let any: &dyn Any = expr;
    if let Some(column) = any.downcast_ref::<Column>() {
        return Some(Pick::Column(column.index()));
    }
    let call = any.downcast_ref::<ScalarFunctionExpr>().filter(|f| f.name() == "get_field")?;
    let [map, name] = call.args() else { return None };
    let (map, name): (&dyn Any, &dyn Any) = (map.as_ref(), name.as_ref());
    let name = text_of(name.downcast_ref::<Literal>()?.value())?;
    Some(Pick::Label(map.downcast_ref::<Column>()?.index(), name.to_owned()))
}
