//! The store: all partitions of one directory or bucket.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use forewarn_schemas::{Labels, Matcher, Offset, PartitionId, Record, Sample, SeriesId, TimeRange, Timestamp};
use prometheus::Registry;

use crate::block_store::BlockStore;
use crate::config::{SqlLimits, StoreConfig};
use crate::error::StoreError;
use crate::layout::Layout;
use crate::manifest::Chain;
use crate::metrics::Metrics;
use crate::partition::{FlushJob, Partition, PartitionStats, Retained, View};
use crate::rows::{RowShape, SampleColumn};
use crate::scan;
use crate::shared::{Problem, Shared};
use crate::sql::Engine;

/// The rolling history. Clones are the same store.
///
/// One thread per partition appends and begins flushes; any number read. No method but [`Store::sql`] is `async`, and
/// those that do I/O (`open`, `flush`, [`FlushJob::run`], `history`, `snapshot`, `retain`) belong on a blocking thread.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    partitions: Vec<Arc<Partition>>,
    engine: Engine,
}

impl Store {
    /// Opens a store, creating it when there is none. The caller holds the directory's lock.
    ///
    /// Everything is read before anything is changed; then what crashes left behind is swept.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a store of a newer forewarn and [`StoreError::Layout`] for another number of partitions,
    /// both with nothing changed; [`StoreError::Damaged`] for a broken manifest. Damaged blocks are no error: they are in
    /// [`Store::problems`].
    pub fn open(
        blocks: Arc<dyn BlockStore>,
        partitions: u32,
        config: StoreConfig,
        registry: &Registry,
    ) -> Result<Self, StoreError> {
        let found = Layout::read(blocks.as_ref())?;
        if let Some(layout) = &found
            && layout.partitions != partitions
        {
            let found = format!("{} partitions", layout.partitions);
            return Err(StoreError::Layout { found, wanted: partitions.to_string() });
        }
        let metrics = Metrics::register(registry, partitions)?;
        let store = Self::load(Shared::new(blocks, config, metrics, false), partitions)?;
        let blocks = &store.0.shared.blocks;
        if found.is_none() {
            if let Some(stray) = blocks.list("")?.iter().find(|o| o.path.contains("/manifest/")) {
                return Err(StoreError::damaged("store.json", format!("missing, but there is {}", stray.path)));
            }
            blocks.discard_partial("")?;
            Layout::new(partitions).create(blocks.as_ref())?;
        }
        for partition in &store.0.partitions {
            partition.sweep()?;
        }
        Ok(store)
    }

    /// Opens an existing store to read; nothing is changed, not even what a crash left behind. For directories that no
    /// server holds.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no store; otherwise as [`Store::open`].
    pub fn open_read_only(blocks: Arc<dyn BlockStore>, config: StoreConfig) -> Result<Self, StoreError> {
        let layout = Layout::read(blocks.as_ref())?.ok_or_else(|| StoreError::NotFound("store.json".into()))?;
        let metrics = Metrics::register(&Registry::new(), layout.partitions)?;
        Self::load(Shared::new(blocks, config, metrics, true), layout.partitions)
    }

    fn load(shared: Shared, partitions: u32) -> Result<Self, StoreError> {
        let shared = Arc::new(shared);
        let mut chains = Vec::new();
        for p in (0..partitions).map(PartitionId) {
            chains.push((p, Chain::open(Arc::clone(&shared.blocks), p)?));
        }
        let mut list = Vec::new();
        for (p, chain) in chains {
            list.push(Arc::new(Partition::load(Arc::clone(&shared), p, chain)?));
        }
        let engine = Engine::new(list.clone(), Arc::clone(&shared));
        Ok(Self(Arc::new(Inner { shared, partitions: list, engine })))
    }

    fn partition(&self, p: PartitionId) -> Result<&Arc<Partition>, StoreError> {
        self.0.partitions.get(p.0 as usize).ok_or(StoreError::NoPartition(p))
    }

    /// Returns the number of partitions.
    pub fn partitions(&self) -> u32 {
        self.0.partitions.len() as u32
    }

    /// Returns the offset from which the log is to be read: the end of the manifest. 0 for an unknown partition.
    pub fn checkpoint(&self, p: PartitionId) -> Offset {
        self.partition(p).map(|p| p.checkpoint()).unwrap_or_default()
    }

    /// Returns the analyzer's snapshot that was published with the last flush; `None` when that had none, or when it is
    /// damaged (then it is in [`Store::problems`]).
    pub fn snapshot(&self, p: PartitionId) -> Option<Bytes> {
        self.partition(p).ok()?.snapshot()
    }

    /// Takes a record of the log into the head. Samples may come in any order of time; offsets only rise.
    ///
    /// Returns an id per entry of the record's batch, in its order; none for a control record. A record below the next
    /// offset was taken before: it is counted, not applied, and its ids are returned all the same. Holes between offsets
    /// are allowed.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::NoPartition`], [`StoreError::OutOfIds`].
    pub fn append(&self, p: PartitionId, offset: Offset, record: &Record) -> Result<Vec<SeriesId>, StoreError> {
        self.partition(p)?.append(offset, record)
    }

    /// Says whether the head has gathered enough to be flushed, seen from a record of `received_at`. After a failed flush
    /// it says no for ten seconds.
    pub fn flush_due(&self, p: PartitionId, received_at: Timestamp) -> bool {
        self.partition(p).is_ok_and(|p| p.flush_due(received_at))
    }

    /// Flushes everything appended so far and publishes it with the analyzer's snapshot of that offset. Returns the
    /// offset below which the log is no longer needed.
    ///
    /// # Errors
    /// As [`FlushJob::run`].
    pub fn flush(&self, p: PartitionId, snapshot: Option<Bytes>) -> Result<Offset, StoreError> {
        self.begin_flush(p, snapshot)?.run()
    }

    /// Freezes the head, in the thread that appends, so that `snapshot` and the flush agree on the offset; the returned
    /// job may run on another thread while appends go on.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::NoPartition`].
    pub fn begin_flush(&self, p: PartitionId, snapshot: Option<Bytes>) -> Result<FlushJob, StoreError> {
        self.partition(p)?.begin_flush(snapshot)
    }

    /// Returns the samples of one series within a range, sorted by time, one per time.
    ///
    /// Reads the blocks directly, without a query plan. An unknown series has none.
    ///
    /// # Errors
    /// [`StoreError::NoPartition`]; [`StoreError::Io`] when a block cannot be read. Damaged blocks are left out and
    /// reported.
    pub fn history(&self, p: PartitionId, id: SeriesId, range: TimeRange) -> Result<Vec<Sample>, StoreError> {
        self.partition(p)?.history(id, range)
    }

    /// Returns every series of a partition with its labels, ascending by id.
    pub fn series(&self, p: PartitionId) -> Vec<(SeriesId, Labels)> {
        self.partition(p).map(|p| p.series()).unwrap_or_default()
    }

    /// Returns the labels of a series.
    pub fn labels(&self, p: PartitionId, id: SeriesId) -> Option<Labels> {
        self.partition(p).ok()?.labels(id)
    }

    /// Streams the samples of the series that meet every matcher, within a range, sorted by (partition, series id, time),
    /// each exactly once, with the columns asked for.
    ///
    /// Call it within a Tokio runtime; the work is done on its blocking threads and ends when the stream is dropped.
    pub fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        columns: &[SampleColumn],
    ) -> SendableRecordBatchStream {
        let views: Vec<View> =
            self.0.partitions.iter().map(|p| p.view(|index| index.select(matchers), range)).collect();
        scan::stream(views, range, RowShape::of(columns))
    }

    /// Answers a SQL query over the tables `samples` and `series` (`docs/sql.md`). Only questions are allowed: `SELECT`,
    /// `EXPLAIN`, `SHOW`, `DESCRIBE`.
    ///
    /// Cancel safe: dropping the future or the stream ends the query.
    ///
    /// # Errors
    /// [`StoreError::Query`] when the text is wrong or asks for something else; later, from the stream, an error of
    /// DataFusion that [`Store::query_error`] turns into [`StoreError::Limit`] or [`StoreError::Engine`].
    pub async fn sql(&self, text: &str, limits: SqlLimits) -> Result<SendableRecordBatchStream, StoreError> {
        self.0.engine.sql(text, limits).await
    }

    /// Turns an error of a query's stream into one of the store, by what the caller can do about it.
    pub fn query_error(error: &datafusion::error::DataFusionError) -> StoreError {
        crate::sql::query_error(error)
    }

    /// Drops whole blocks that are older than the retention, by the earlier of `now` and the newest `received_at` in the
    /// log; at most one step in an hour. See [`StoreConfig::retention_step`]. Call it as often as is convenient.
    ///
    /// # Errors
    /// As the storage has them; a partition that failed is tried again the next time.
    pub fn retain(&self, now: Timestamp) -> Result<Retained, StoreError> {
        let mut total = Retained::default();
        for partition in &self.0.partitions {
            let part = partition.retain(now)?;
            total.blocks += part.blocks;
            total.samples += part.samples;
            total.bytes += part.bytes;
        }
        Ok(total)
    }

    /// Returns figures per partition.
    pub fn stats(&self) -> Vec<PartitionStats> {
        self.0.partitions.iter().map(|p| p.stats()).collect()
    }

    /// Returns what is damaged or missing, as far as it was looked at; answers are without it.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.shared.problems()
    }
}
