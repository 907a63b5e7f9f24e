use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use forewarn_schemas::record::{encode_control, encode_samples};
use forewarn_schemas::{Labels, RecordBody, STALE_NAN, Sample, SeriesSamples, partition_of};
use forewarn_vfs::{SimVfs, Vfs};
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::log::{Appending, Chunk, EmbeddedLog, EmbeddedLogConfig, MemoryLog};

const NOW: i64 = 1_700_000_000_000;
const P: PartitionId = PartitionId(0);

/// A clock that can go back, as no `Clock` should.
#[derive(Debug)]
struct Rebel(AtomicI64);

impl Clock for Rebel {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(SeqCst))
    }
}

struct Bench {
    log: Arc<dyn Log>,
    clock: Arc<Rebel>,
    edge: Arc<Edge>,
    registry: Registry,
}

fn bench_on(log: Arc<dyn Log>, config: EdgeConfig) -> Bench {
    let (clock, registry) = (Arc::new(Rebel(NOW.into())), Registry::new());
    let edge = Arc::new(Edge::new(Arc::clone(&log), clock.clone(), config, &registry).unwrap());
    Bench { log, clock, edge, registry }
}

fn bench(partitions: u32, config: EdgeConfig) -> Bench {
    bench_on(Arc::new(MemoryLog::new(partitions)), config)
}

fn labels(metric: &str, pairs: &[(&str, &str)]) -> Labels {
    Labels::series(metric, pairs).unwrap()
}

fn at(ms: i64, value: f64) -> Sample {
    Sample { ts: Timestamp::from_millis(ms), value }
}

fn one(metric: &str, value: f64) -> Batch {
    batch([(labels(metric, &[("node", "n")]), vec![at(NOW, value)])])
}

fn batch<const N: usize>(series: [(Labels, Vec<Sample>); N]) -> Batch {
    Batch { series: series.into_iter().map(|(labels, samples)| SeriesSamples { labels, samples }).collect() }
}

impl Bench {
    async fn records(&self, p: PartitionId) -> Vec<Record> {
        let chunk = self.log.read(p, Offset(0), usize::MAX).await.unwrap();
        chunk.records.iter().map(|(_, r)| Record::decode(r).unwrap()).collect()
    }

    async fn samples(&self, p: PartitionId) -> Vec<Batch> {
        let body = |r: Record| match r.body {
            RecordBody::Samples(batch) => batch,
            RecordBody::Control(json) => panic!("{json}"),
        };
        self.records(p).await.into_iter().map(body).collect()
    }

    async fn waiting(&self, batch: Batch) -> Result<Accepted, SubmitError> {
        self.edge.submit("test", batch, Urgency::Waiting).await
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap_or_else(|| panic!("{name}"));
        let is_it = |m: &&prometheus::proto::Metric| m.get_label().iter().all(|l| l.value() == label);
        let metric = family.get_metric().iter().find(is_it).unwrap_or_else(|| panic!("{name} {label}"));
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }
}

fn refused(pairs: &[(&'static str, usize)]) -> BTreeMap<&'static str, usize> {
    pairs.iter().copied().collect()
}

#[tokio::test]
async fn each_refusal_has_its_reason_and_the_rest_is_taken() {
    let b = bench(1, EdgeConfig { series_per_source_max: 3, ..EdgeConfig::default() });
    let day = 24 * 3_600_000;
    let long = "v".repeat(4096);
    let many: Vec<(String, String)> = (0..62).map(|i| (format!("l{i}"), "v".into())).collect();
    let full = Labels::from_pairs(many.into_iter().chain([("__name__".into(), "m".into())])).unwrap();
    let accepted = b
        .waiting(batch([
            (labels("a", &[("node", "n")]), vec![at(NOW - day, 1.0), at(NOW - day - 1, 2.0), at(NOW + 600_000, 3.0)]),
            (labels("b", &[("node", "n")]), vec![at(NOW + 600_001, 1.0), at(NOW + 700_000, 1.0)]),
            (Labels::from_pairs([("node", "n")]).unwrap(), vec![at(NOW, 1.0)]),
            (full, vec![at(NOW, 1.0)]),
            (labels("job", &[("job", &long), ("role", &long)]), vec![at(NOW, 1.0)]),
            (labels("c", &[("node", "n")]), vec![at(NOW, 1.0), at(NOW, 1.0), at(NOW, 2.0), at(NOW + 1, 2.0)]),
            (labels("d", &[("node", "n")]), vec![at(NOW, 1.0)]),
            (labels("e", &[("node", "n")]), vec![at(NOW, 1.0), at(NOW + 1, 1.0)]),
            (labels("c", &[("node", "n")]), vec![at(NOW + 2, 1.0), at(NOW + 1, 9.0), at(NOW, 1.0)]),
        ]))
        .await
        .unwrap();
    let want =
        [("too_old", 1), ("too_new", 2), ("no_metric_name", 1), ("labels", 2), ("conflict", 2), ("cardinality", 2)];
    assert_eq!(accepted, Accepted { samples: 6, refused: refused(&want) });
    let kept = &b.samples(P).await[0].series;
    let kept: Vec<_> = kept.iter().map(|s| (s.labels.metric(), s.samples.as_slice())).collect();
    assert_eq!(
        kept,
        [
            ("a", &[at(NOW - day, 1.0), at(NOW + 600_000, 3.0)][..]),
            ("c", &[at(NOW, 1.0), at(NOW + 1, 2.0), at(NOW + 2, 1.0)]),
            ("d", &[at(NOW, 1.0)]),
        ]
    );
    for (reason, samples) in want {
        assert_eq!(b.metric("forewarn_edge_refused_samples_total", reason), samples as f64, "{reason}");
    }
    assert_eq!(b.metric("forewarn_edge_series", ""), 3.0);
}

#[tokio::test]
async fn a_batch_of_nothing_but_refusals_leaves_no_record() {
    let b = bench(1, EdgeConfig::default());
    let accepted = b.waiting(batch([(labels("a", &[]), vec![at(0, 1.0)])])).await.unwrap();
    assert_eq!(accepted, Accepted { samples: 0, refused: refused(&[("too_old", 1)]) });
    assert_eq!(b.waiting(Batch::default()).await.unwrap(), Accepted::default());
    assert_eq!(b.log.bounds(P).end, Offset(0));
}

#[tokio::test]
async fn identity_is_added_and_decides_the_partition() {
    let b = bench(2, EdgeConfig::default());
    let odd =
        [f64::NAN, f64::from_bits(0x7ff8_0000_dead_beef), STALE_NAN, -0.0, f64::INFINITY, f64::MIN_POSITIVE / 2.0];
    let nodes = ["a", "b", "c", "d", "e"];
    let series = nodes.map(|n| {
        let samples = odd.iter().enumerate().map(|(i, v)| at(NOW + i as i64, *v)).collect();
        (labels("m", &[("instance", n), ("job", "j")]), samples)
    });
    b.waiting(batch(series)).await.unwrap();
    b.waiting(batch([(labels("bare", &[]), vec![at(NOW, 1.0)])])).await.unwrap();
    let mut seen = 0;
    for p in [P, PartitionId(1)] {
        for series in b.samples(p).await.into_iter().flat_map(|b| b.series) {
            let node = series.labels.get("node").unwrap();
            assert_eq!(partition_of(node, 2), p);
            if series.labels.metric() == "bare" {
                assert_eq!((node, series.labels.get("family")), ("_", Some("_")));
            } else {
                assert_eq!((Some(node), series.labels.get("family")), (series.labels.get("instance"), Some("j")));
                assert!(series.samples.iter().zip(odd).all(|(s, v)| s.value.to_bits() == v.to_bits()));
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 6);
    assert!(b.log.bounds(P).end > Offset(0) && b.log.bounds(PartitionId(1)).end > Offset(0));
}

#[tokio::test]
async fn received_at_never_goes_back_in_a_partition() {
    let b = bench(2, EdgeConfig::default());
    let mut tasks = Vec::new();
    for task in 0..8 {
        let (edge, clock) = (Arc::clone(&b.edge), Arc::clone(&b.clock));
        tasks.push(tokio::spawn(async move {
            for i in 0..50i64 {
                clock.0.store(NOW + (i * 37 + task * 11) % 100 - 50, SeqCst);
                let node = format!("n{}", i % 5);
                let series = (labels("m", &[("node", &node)]), vec![at(NOW, i as f64)]);
                edge.submit(&format!("s{task}"), batch([series]), Urgency::Waiting).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let mut records = 0;
    for p in [P, PartitionId(1)] {
        let stamps: Vec<_> = b.records(p).await.iter().map(|r| r.received_at).collect();
        assert!(stamps.is_sorted());
        records += stamps.len();
    }
    assert_eq!(records, 400);
}

#[tokio::test(start_paused = true)]
async fn who_lingers_goes_with_others_of_its_source_and_who_waits_goes_at_once() {
    let b = bench(1, EdgeConfig::default());
    let start = Instant::now();
    let lingering = |source: &'static str, batch: Batch| {
        let edge = Arc::clone(&b.edge);
        tokio::spawn(async move { edge.submit(source, batch, Urgency::Lingering).await.map(|a| (a, Instant::now())) })
    };
    let first = lingering("host", one("a", 1.0));
    let other = lingering("beam", one("x", 1.0));
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Of two values for one time the earlier arrival is kept, as the lower offset would be.
    let second = lingering(
        "host",
        batch([
            (labels("a", &[("node", "n")]), vec![at(NOW, 2.0), at(NOW + 1, 2.0)]),
            (labels("b", &[("node", "n")]), vec![at(NOW, 2.0)]),
        ]),
    );
    tokio::task::yield_now().await;
    assert_eq!(b.log.bounds(P).end, Offset(0));
    b.waiting(one("w", 1.0)).await.unwrap();
    assert_eq!(b.log.bounds(P).end, Offset(1));
    assert_eq!(start.elapsed(), Duration::from_millis(100));
    for (task, samples, conflicts) in [(first, 1, None), (second, 2, Some(&1)), (other, 1, None)] {
        let (accepted, when) = task.await.unwrap().unwrap();
        assert_eq!((accepted.samples, accepted.refused.get("conflict")), (samples, conflicts));
        assert_eq!(when - start, Duration::from_millis(250));
    }
    let records = b.records(P).await;
    let mut sources: Vec<_> = records.iter().map(|r| r.source.as_str()).collect();
    sources.sort_unstable();
    assert_eq!(sources, ["beam", "host", "test"]);
    let host = records.into_iter().find(|r| r.source == "host").unwrap();
    let merged = batch([
        (labels("a", &[("node", "n"), ("family", "n")]), vec![at(NOW, 1.0), at(NOW + 1, 2.0)]),
        (labels("b", &[("node", "n"), ("family", "n")]), vec![at(NOW, 2.0)]),
    ]);
    assert_eq!(host.body, RecordBody::Samples(merged));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_fills_a_record_does_not_linger() {
    let b = bench(1, EdgeConfig::default());
    let start = Instant::now();
    let samples = (0..40_000).map(|i| at(NOW - i, i as f64)).collect();
    let large = batch([(labels("m", &[("node", "n")]), samples)]);
    b.edge.submit("import", large, Urgency::Lingering).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn a_submitter_that_goes_away_takes_nothing_with_it() {
    let b = bench(1, EdgeConfig::default());
    let gone =
        tokio::time::timeout(Duration::from_millis(10), b.edge.submit("host", one("a", 1.0), Urgency::Lingering));
    assert!(gone.await.is_err());
    b.edge.submit("host", one("b", 1.0), Urgency::Lingering).await.unwrap();
    assert_eq!(b.samples(P).await[0].series.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn closing_appends_what_lingers_and_takes_no_more() {
    let b = bench(1, EdgeConfig::default());
    let edge = Arc::clone(&b.edge);
    let lingering = tokio::spawn(async move { edge.submit("host", one("a", 1.0), Urgency::Lingering).await });
    tokio::task::yield_now().await;
    let start = Instant::now();
    b.edge.close().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(lingering.await.unwrap().unwrap().samples, 1);
    assert_eq!(b.log.bounds(P).end, Offset(1));
    for urgency in [Urgency::Waiting, Urgency::Lingering] {
        assert!(matches!(b.edge.submit("host", one("a", 1.0), urgency).await, Err(SubmitError::Closed(_))));
    }
}

#[tokio::test]
async fn the_pump_gets_what_is_in_the_log_once() {
    let b = bench(2, EdgeConfig::default());
    for i in 0..10 {
        b.waiting(batch([(labels("m", &[("node", &format!("n{i}"))]), vec![at(NOW, f64::from(i))])])).await.unwrap();
    }
    b.edge.tick().await.unwrap();
    b.edge.tick().await.unwrap();
    for p in [P, PartitionId(1)] {
        let records = b.records(p).await;
        assert!(records.len() > 2);
        for (i, record) in records.into_iter().enumerate() {
            let offset = Offset(i as u64);
            assert_eq!(b.edge.take(p, offset).as_deref(), Some(&record));
            assert_eq!(b.edge.take(p, offset), None);
        }
    }
    assert_eq!(b.edge.take(PartitionId(7), Offset(0)), None);
    assert_eq!(b.metric("forewarn_edge_handed_over_total", "yes"), 12.0);
}

#[tokio::test]
async fn the_hand_over_is_bounded_and_what_is_consumed_makes_room() {
    let b = bench(1, EdgeConfig { hand_over_bytes_max: ByteSize(5_000), ..EdgeConfig::default() });
    let submit = async |range: Range<u64>| {
        for i in range {
            b.waiting(one("m", i as f64)).await.unwrap();
        }
    };
    submit(0..10).await;
    let kept = (0..10).filter(|i| b.edge.take(P, Offset(*i)).is_some()).count() as u64;
    assert!((1..8).contains(&kept), "{kept}");
    submit(10..20).await;
    assert!(b.edge.take(P, Offset(10)).is_some(), "what was taken made room");
    b.edge.consumed(P, Offset(20));
    assert_eq!(b.metric("forewarn_edge_backlog_bytes", "0"), 0.0);
    submit(20..21).await;
    assert!(b.edge.take(P, Offset(20)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pump_that_is_behind_turns_clients_away_and_holds_collectors_up() {
    let b = bench(1, EdgeConfig { backlog_bytes_max: ByteSize(3_000), ..EdgeConfig::default() });
    let mut taken = 0;
    let e = loop {
        match b.waiting(one("m", 1.0)).await {
            Ok(_) => taken += 1,
            Err(e) => break e,
        }
    };
    assert!((1..10).contains(&taken), "{taken}");
    let SubmitError::Overloaded { reason, retry_after } = e else { panic!("{e}") };
    assert!(reason.contains("not analysed") && retry_after == Duration::from_secs(1), "{reason}");
    assert_eq!(b.metric("forewarn_edge_overloaded_total", "backlog"), 1.0);

    let edge = Arc::clone(&b.edge);
    let held = tokio::spawn(async move { edge.submit("host", one("m", 2.0), Urgency::Lingering).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    b.edge.tick().await.unwrap();
    b.edge.tick().await.unwrap();
    assert_eq!(b.log.bounds(P).end, Offset(taken));
    b.edge.consumed(P, Offset(taken));
    held.await.unwrap().unwrap();
    b.waiting(one("m", 3.0)).await.unwrap();
}

#[tokio::test]
async fn without_a_pump_nothing_is_kept_and_nothing_held_up() {
    let config = EdgeConfig { backlog_bytes_max: ByteSize(1), has_pump: false, ..EdgeConfig::default() };
    let b = bench(1, config);
    for _ in 0..10 {
        b.waiting(one("m", 1.0)).await.unwrap();
    }
    assert_eq!(b.edge.take(P, Offset(3)), None);
}

#[tokio::test]
async fn ticks_pass_time_where_nothing_is_collected() {
    let b = bench(2, EdgeConfig::default());
    let node = (0..).map(|i| format!("n{i}")).find(|n| partition_of(n, 2) == P).unwrap();
    b.waiting(batch([(labels("m", &[("node", &node)]), vec![at(NOW, 1.0)])])).await.unwrap();
    b.clock.0.fetch_add(5_000, SeqCst);
    b.edge.tick().await.unwrap();
    assert_eq!((b.log.bounds(P).end, b.log.bounds(PartitionId(1)).end), (Offset(1), Offset(1)));
    let tick = &b.records(PartitionId(1)).await[0];
    let want = Record {
        received_at: Timestamp::from_millis(NOW + 5_000),
        source: "edge".into(),
        body: RecordBody::Control(r#"{"tick":{}}"#.into()),
    };
    assert_eq!(*tick, want);
    b.edge.tick().await.unwrap();
    b.edge.tick().await.unwrap();
    assert_eq!((b.log.bounds(P).end, b.log.bounds(PartitionId(1)).end), (Offset(3), Offset(3)));
    assert_eq!(b.metric("forewarn_edge_ticks_total", ""), 5.0);
}

#[tokio::test]
async fn a_full_disk_is_overload_that_passes() {
    let vfs = SimVfs::new();
    let config = EmbeddedLogConfig { free_bytes_min: ByteSize(0), ..EmbeddedLogConfig::default() };
    let (log, _) = EmbeddedLog::open(Arc::new(vfs.clone()), "/log", 1, config, &Registry::new()).unwrap();
    let b = bench_on(Arc::new(log), EdgeConfig::default());
    b.waiting(one("m", 1.0)).await.unwrap();
    let used = vfs.read(Path::new("/log/0/00000000000000000000.seg"), u64::MAX).unwrap().len();
    vfs.set_capacity(used as u64 + 10);
    let e = b.waiting(one("m", 2.0)).await.unwrap_err();
    assert!(matches!(e, SubmitError::Overloaded { retry_after, .. } if retry_after == Duration::from_secs(10)), "{e}");
    vfs.set_capacity(u64::MAX);
    b.waiting(one("m", 3.0)).await.unwrap();
    let values: Vec<_> = b.samples(P).await.iter().map(|b| b.series[0].samples[0].value).collect();
    assert_eq!(values, [1.0, 3.0]);
    b.edge.consumed(P, Offset(2));
    assert_eq!(b.metric("forewarn_edge_backlog_bytes", "0"), 0.0, "what was refused is no backlog");
}

/// A log whose queue is full for the first so many records.
#[derive(Debug)]
struct Stalled(MemoryLog, AtomicUsize);

#[async_trait::async_trait]
impl Log for Stalled {
    fn partitions(&self) -> u32 {
        self.0.partitions()
    }
    fn enqueue(&self, p: PartitionId, record: Bytes) -> Result<Appending, LogError> {
        let full = self.1.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        if full { Err(LogError::Full(p)) } else { self.0.enqueue(p, record) }
    }
    async fn room(&self, p: PartitionId) {
        self.0.room(p).await;
    }
    async fn read(&self, p: PartitionId, from: Offset, bytes_max: usize) -> Result<Chunk, LogError> {
        self.0.read(p, from, bytes_max).await
    }
    fn bounds(&self, p: PartitionId) -> Range<Offset> {
        self.0.bounds(p)
    }
    fn watch_end(&self, p: PartitionId) -> watch::Receiver<Offset> {
        self.0.watch_end(p)
    }
    async fn truncate(&self, p: PartitionId, before: Offset) -> Result<(), LogError> {
        self.0.truncate(p, before).await
    }
    async fn close(&self) -> Result<(), LogError> {
        self.0.close().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_turns_clients_away_and_collectors_try_again() {
    let b = bench_on(Arc::new(Stalled(MemoryLog::new(1), 6.into())), EdgeConfig::default());
    let e = b.waiting(one("m", 1.0)).await.unwrap_err();
    assert!(matches!(e, SubmitError::Overloaded { .. }), "{e}");
    b.edge.tick().await.unwrap();
    assert_eq!(b.log.bounds(P).end, Offset(0), "a tick does not insist");
    b.edge.submit("host", one("m", 2.0), Urgency::Lingering).await.unwrap();
    assert_eq!(b.samples(P).await[0].series[0].samples, [at(NOW, 2.0)]);
}

#[tokio::test]
async fn a_large_batch_is_split_and_all_of_it_is_there() {
    let b = bench(2, EdgeConfig::default());
    let mut large = Batch::default();
    for i in 0..5_000 {
        let labels = labels("m", &[("node", &format!("n{}", i % 7)), ("i", &i.to_string()), ("x", &"y".repeat(900))]);
        large.push(labels, Timestamp::from_millis(NOW), f64::from(i));
    }
    let accepted = b.waiting(large).await.unwrap();
    assert_eq!(accepted, Accepted { samples: 5_000, ..Accepted::default() });
    let mut values = Vec::new();
    for p in [P, PartitionId(1)] {
        let batches = b.samples(p).await;
        assert!(batches.len() > 1);
        values.extend(batches.iter().flat_map(|b| &b.series).map(|s| s.samples[0].value as i64));
    }
    values.sort_unstable();
    assert!(values.into_iter().eq(0..5_000));
}

#[tokio::test]
async fn stamps_go_on_from_those_in_the_log() {
    let later = Timestamp::from_millis(NOW + 3_600_000);
    let log = EmbeddedLog::open(Arc::new(SimVfs::new()), "/log", 2, EmbeddedLogConfig::default(), &Registry::new());
    let log = Arc::new(log.unwrap().0);
    for (_, stamp) in [(0, later), (1, later)] {
        let record = encode_samples(&one("m", 1.0), stamp, "earlier").unwrap().remove(0).0;
        log.append(P, record).await.unwrap();
    }
    log.append(P, encode_control("{}", later + Duration::from_secs(1), "earlier").unwrap()).await.unwrap();
    // The last offsets hold nothing.
    log.advance(P, Offset(40)).await.unwrap();
    let b = bench_on(log, EdgeConfig::default());
    assert_eq!(b.edge.resume().await.unwrap(), Some(later + Duration::from_secs(1)));
    let node = (0..).map(|i| format!("n{i}")).find(|n| partition_of(n, 2) == P).unwrap();
    b.waiting(batch([(labels("m", &[("node", &node)]), vec![at(NOW, 1.0)])])).await.unwrap();
    assert_eq!(b.records(P).await.last().unwrap().received_at, later + Duration::from_secs(1));
    let empty = bench(1, EdgeConfig::default());
    assert_eq!(empty.edge.resume().await.unwrap(), None);
}
