//! The plan node of both tables: a reader per partition of the store, and a line for `EXPLAIN`.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use crate::error::StoreError;
use crate::scan::external;

/// Takes a batch; says whether another is wanted.
pub(super) type Emit<'a> = &'a mut dyn FnMut(RecordBatch) -> bool;

/// Produces the batches of one partition; blocks.
pub(super) type Reader = Arc<dyn Fn(Emit<'_>) -> Result<(), StoreError> + Send + Sync>;

pub(super) struct StoreExec {
    name: &'static str,
    line: String,
    readers: Vec<Reader>,
    /// Rows after which a partition may stop.
    limit: Option<usize>,
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
        Self { name, line, readers, limit, properties: Arc::new(properties) }
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
