//! What the scenarios share.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use forewarn_schemas::{
    Batch, Labels, Offset, PartitionId, Record, RecordBody, Sample, SeriesSamples, TimeRange, Timestamp,
};
use forewarn_store::{BlockStore, SqlLimits, Store, StoreConfig, StoreError};
use futures::TryStreamExt;
use prometheus::Registry;

pub(crate) const P0: PartitionId = PartitionId(0);

pub(crate) fn ms(t: i64) -> Timestamp {
    Timestamp::from_millis(t)
}

pub(crate) fn range(start: i64, end: i64) -> TimeRange {
    TimeRange::new(ms(start), ms(end))
}

pub(crate) fn sample(t: i64, value: f64) -> Sample {
    Sample { ts: ms(t), value }
}

pub(crate) fn labels(metric: &str, node: &str) -> Labels {
    Labels::series(metric, &[("node", node)]).unwrap()
}

/// A record received at `received_at` ms, with one entry per series.
pub(crate) fn record(received_at: i64, series: &[(Labels, &[(i64, f64)])]) -> Record {
    let entry = |(labels, samples): &(Labels, &[(i64, f64)])| SeriesSamples {
        labels: labels.clone(),
        samples: samples.iter().map(|(t, v)| sample(*t, *v)).collect(),
    };
    let body = RecordBody::Samples(Batch { series: series.iter().map(entry).collect() });
    Record { received_at: ms(received_at), source: "test".into(), body }
}

pub(crate) fn open_with(
    blocks: Arc<dyn BlockStore>,
    partitions: u32,
    config: StoreConfig,
) -> Result<Store, StoreError> {
    Store::open(blocks, partitions, config, &Registry::new())
}

pub(crate) fn open(blocks: Arc<dyn BlockStore>) -> Store {
    open_with(blocks, 1, StoreConfig::default()).unwrap()
}

pub(crate) fn append(store: &Store, offset: u64, record: &Record) {
    store.append(P0, Offset(offset), record).unwrap();
}

/// Every series of partition 0 with all its samples, as (labels, [(ms, bits)]), sorted by labels, empty ones left out.
pub(crate) fn everything(store: &Store) -> Vec<(String, Vec<(i64, u64)>)> {
    let mut out = Vec::new();
    for (id, labels) in store.series(P0) {
        let samples = store.history(P0, id, TimeRange::ALL).unwrap();
        if !samples.is_empty() {
            out.push((labels.to_string(), samples.iter().map(|s| (s.ts.as_millis(), s.value.to_bits())).collect()));
        }
    }
    out.sort();
    out
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) async fn query_within(store: &Store, sql: &str, limits: SqlLimits) -> Result<Vec<RecordBatch>, StoreError> {
    let stream = store.sql(sql, limits).await?;
    stream.try_collect().await.map_err(|e| Store::query_error(&e))
}

/// Answers a query as lines of cells joined by `|`.
pub(crate) fn query(store: &Store, sql: &str) -> Vec<String> {
    let batches = runtime().block_on(query_within(store, sql, SqlLimits::default()));
    lines(&batches.unwrap_or_else(|e| panic!("{sql}: {e}")))
}

pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let mut out = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            out.push(cells.join("|"));
        }
    }
    out
}
