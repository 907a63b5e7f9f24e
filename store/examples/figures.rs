//! Prints the store's figures on one stream: samples appended per second, seconds and bytes of a flush, milliseconds of
//! a look at one series and of SQL. `cargo run --release -p forewarn-store --example figures -- [NODES]`
//!
//! The stream is fixed: NODES x 12 gauges every 10 s for an hour, flushed every 5 minutes; walks, saw-teeth and constants.

use std::sync::Arc;
use std::time::Instant;

use forewarn_schemas::{
    Batch, Labels, Offset, PartitionId, Record, RecordBody, Sample, SeriesId, SeriesSamples, TimeRange, Timestamp,
};
use forewarn_store::{LocalBlocks, SqlLimits, Store, StoreConfig};
use forewarn_vfs::StdVfs;
use futures::TryStreamExt;

const P: PartitionId = PartitionId(0);
const METRICS: usize = 12;
const STEPS: usize = 360;
const FLUSH_STEPS: usize = 30;
const T0: i64 = 1_767_225_600_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let nodes: usize = std::env::args().nth(1).map_or(Ok(500), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let blocks = Arc::new(LocalBlocks::new(Arc::new(StdVfs), dir.path()));
    let store = Store::open(blocks.clone(), 1, StoreConfig::default(), &prometheus::Registry::new())?;
    let labels: Vec<Labels> =
        (0..nodes * METRICS).map(|i| series_labels(i / METRICS, i % METRICS)).collect::<Result<_, _>>()?;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut values: Vec<f64> = (0..labels.len()).map(|i| (i % METRICS * 1_000_003) as f64).collect();
    let (mut append, mut flush, mut offset) = (0.0, 0.0, 0u64);
    for step in 0..STEPS {
        let at = T0 + step as i64 * 10_000;
        for first in (0..labels.len()).step_by(2000) {
            let mut batch = Batch::default();
            for i in first..(first + 2000).min(labels.len()) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                values[i] = next_value(values[i], i % METRICS, random >> 33);
                let ts = Timestamp::from_millis(at + (i / METRICS % 100) as i64);
                batch
                    .series
                    .push(SeriesSamples { labels: labels[i].clone(), samples: vec![Sample { ts, value: values[i] }] });
            }
            let record = Record {
                received_at: Timestamp::from_millis(at),
                source: "figures".into(),
                body: RecordBody::Samples(batch),
            };
            let start = Instant::now();
            store.append(P, Offset(offset), &record)?;
            append += start.elapsed().as_secs_f64();
            offset += 1;
        }
        if step % FLUSH_STEPS == FLUSH_STEPS - 1 {
            let start = Instant::now();
            store.flush(P, None)?;
            flush += start.elapsed().as_secs_f64();
        }
    }
    let stats = store.stats().remove(0);
    let millions = stats.block_samples as f64 / 1e6;
    println!("{} series, {:.2} M samples, {} blocks", stats.series, millions, stats.blocks);
    println!("append: {:.2} M samples/s", millions / append);
    println!("flush: {:.2} s per M samples", flush / millions);
    println!("disk: {:.3} B/sample", stats.block_bytes as f64 / stats.block_samples as f64);

    let start = Instant::now();
    let store = Store::open(blocks, 1, StoreConfig::default(), &prometheus::Registry::new())?;
    println!("open: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let one = |id: u32| -> Result<f64, forewarn_store::StoreError> {
        let start = Instant::now();
        assert_eq!(store.history(P, SeriesId(id), TimeRange::ALL)?.len(), STEPS);
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    println!("history of one series over {} blocks: first {:.2} ms", stats.blocks, one(0)?);
    let mut times = (0..50).map(|i| one(i * 7 % stats.series as u32)).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f64::total_cmp);
    println!("history of one series, warm: median {:.2} ms", times[25]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for sql in [
        "SELECT ts, value FROM samples WHERE node = 'n7' AND metric = 'metric_3'",
        "SELECT ts, value FROM samples WHERE node = 'n7' AND metric = 'metric_3' AND ts >= '2026-01-01T00:50:00Z'",
        "SELECT labels['dc'], avg(value) FROM samples WHERE metric = 'metric_3' GROUP BY 1",
        "SELECT metric, max(value) FROM samples GROUP BY metric",
        "SELECT count(*) FROM samples",
    ] {
        let mut times = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            runtime.block_on(async {
                let stream = store.sql(sql, SqlLimits::default()).await.map_err(Box::new)?;
                stream.try_collect::<Vec<_>>().await?;
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!("{:.1} ms: {sql}", times[2]);
    }
    Ok(())
}

fn series_labels(node: usize, metric: usize) -> Result<Labels, forewarn_schemas::LabelError> {
    Labels::series(
        &format!("metric_{metric}"),
        &[
            ("node", &format!("n{node}")),
            ("dc", &format!("dc{}", node % 5)),
            ("family", &format!("f{}", node % 40)),
            ("job", "figures"),
            ("instance", &format!("10.0.{}.{}:9100", node / 250, node % 250)),
        ],
    )
}

fn next_value(last: f64, metric: usize, random: u64) -> f64 {
    match metric {
        0..=3 => last + (random % 41) as f64 - 20.0,
        4 | 5 => (last + 4096.0) % 5e8,
        6 => (random % 10_000) as f64 / 100.0,
        7 => last + (random % 1000) as f64 / 1e9,
        8 => last + 1.0,
        _ => last,
    }
}
