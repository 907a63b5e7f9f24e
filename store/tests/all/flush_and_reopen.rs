//! Flush, checkpoint, snapshot, reopening.

use std::sync::Arc;

use forewarn_schemas::{ByteSize, Offset, PartitionId, Record, RecordBody, STALE_NAN, SeriesId, TimeRange};
use forewarn_store::{BlockStore, LocalBlocks, MemoryBlocks, StoreConfig, StoreError};
use forewarn_vfs::SimVfs;

use crate::support::*;

#[test]
fn a_flush_is_the_checkpoint_and_ids_and_samples_outlive_a_restart() {
    let blocks = MemoryBlocks::new();
    let store = open(Arc::new(blocks.clone()));
    let (a, b) = (labels("m", "a"), labels("m", "b"));
    let ids =
        store.append(P0, Offset(0), &record(1, &[(a.clone(), &[(10, 1.0)]), (b.clone(), &[(10, 0.25)])])).unwrap();
    assert_eq!(ids, [SeriesId(0), SeriesId(1)]);
    append(&store, 4, &record(2, &[(b.clone(), &[(20, STALE_NAN)]), (a.clone(), &[(20, f64::NAN)])]));
    assert_eq!((store.checkpoint(P0), store.snapshot(P0)), (Offset(0), None));
    let before = everything(&store);
    assert_eq!(store.flush(P0, Some("state".into())).unwrap(), Offset(5));
    assert_eq!(everything(&store), before);
    assert_eq!(store.snapshot(P0).unwrap(), "state");
    // In the head only: gone at the restart, as the log has it.
    append(&store, 5, &record(3, &[(labels("m", "c"), &[(30, 3.0)])]));
    assert_eq!(everything(&store).len(), 3);

    let store = open(Arc::new(blocks.clone()));
    assert_eq!(everything(&store), before);
    assert_eq!((store.checkpoint(P0), store.snapshot(P0).unwrap()), (Offset(5), "state".into()));
    assert_eq!(store.labels(P0, SeriesId(1)), Some(b));
    assert_eq!(store.labels(P0, SeriesId(2)), None);
    // The log is read again: the same ids come out, once.
    let again = record(3, &[(labels("m", "c"), &[(30, 3.0)]), (a, &[(40, 4.0)])]);
    assert_eq!(store.append(P0, Offset(5), &again).unwrap(), [SeriesId(2), SeriesId(0)]);
    assert_eq!(store.append(P0, Offset(5), &again).unwrap(), [SeriesId(2), SeriesId(0)]);
    assert_eq!(store.history(P0, SeriesId(2), TimeRange::ALL).unwrap(), [sample(30, 3.0)]);
    assert_eq!(store.history(P0, SeriesId(0), range(10, 40)).unwrap().len(), 2);

    let reader = forewarn_store::Store::open_read_only(Arc::new(blocks), StoreConfig::default()).unwrap();
    assert_eq!(everything(&reader), before);
    assert!(matches!(reader.append(P0, Offset(9), &again), Err(StoreError::ReadOnly)));
    assert!(matches!(reader.flush(P0, None), Err(StoreError::ReadOnly)));
    assert!(matches!(reader.retain(ms(0)), Err(StoreError::ReadOnly)));
}

#[test]
fn the_lower_offset_wins_in_head_block_and_between() {
    let store = open(Arc::new(MemoryBlocks::new()));
    let a = labels("m", "a");
    append(&store, 0, &record(1, &[(a.clone(), &[(10, 1.0), (20, 1.0)])]));
    append(&store, 1, &record(1, &[(a.clone(), &[(10, 2.0), (5, 2.0)])]));
    store.flush(P0, None).unwrap();
    append(&store, 2, &record(1, &[(a, &[(20, 3.0), (30, 3.0)])]));
    let expected = [sample(5, 2.0), sample(10, 1.0), sample(20, 1.0), sample(30, 3.0)];
    assert_eq!(store.history(P0, SeriesId(0), TimeRange::ALL).unwrap(), expected);
    store.flush(P0, None).unwrap();
    assert_eq!(store.history(P0, SeriesId(0), TimeRange::ALL).unwrap(), expected);
    assert_eq!(query(&store, "SELECT count(*), sum(value) FROM samples"), ["4|7.0"]);
}

#[test]
fn a_flush_is_due_by_age_and_by_size() {
    let config = StoreConfig { flush_bytes: ByteSize(2000), ..StoreConfig::default() };
    let store = open_with(Arc::new(MemoryBlocks::new()), 1, config).unwrap();
    assert!(!store.flush_due(P0, ms(i64::MAX)));
    append(&store, 0, &record(1000, &[(labels("m", "a"), &[(1, 1.0)])]));
    assert!(!store.flush_due(P0, ms(300_999)));
    assert!(store.flush_due(P0, ms(301_000)));
    store.flush(P0, None).unwrap();
    assert!(!store.flush_due(P0, ms(301_000)));
    for i in 0..20 {
        append(&store, 1 + i, &record(301_000, &[(labels("m", "a"), &[(2 + i as i64, 1.0)])]));
    }
    assert!(store.flush_due(P0, ms(301_000)));
    assert!(!store.flush_due(PartitionId(7), ms(301_000)));
}

#[test]
fn control_records_move_the_offset_only() {
    let store = open(Arc::new(MemoryBlocks::new()));
    let control = Record { received_at: ms(5), source: "x".into(), body: RecordBody::Control("{}".into()) };
    assert_eq!(store.append(P0, Offset(0), &control).unwrap(), []);
    assert!(store.flush_due(P0, ms(400_000)));
    assert_eq!(store.flush(P0, None).unwrap(), Offset(1));
    assert_eq!(store.stats()[0].blocks, 0);
    assert_eq!(store.flush(P0, None).unwrap(), Offset(1));
    // A snapshot alone is worth a delta: evaluations go on without records.
    assert_eq!(store.flush(P0, Some("s".into())).unwrap(), Offset(1));
    assert_eq!(store.snapshot(P0).unwrap(), "s");
    store.append(P0, Offset(1), &control).unwrap();
    store.flush(P0, None).unwrap();
    assert_eq!(store.snapshot(P0), None, "a snapshot belongs to its offset");
}

#[test]
fn one_block_per_span_and_a_bounded_number_of_them() {
    let store = open(Arc::new(MemoryBlocks::new()));
    let hour = 3_600_000;
    let a = labels("m", "a");
    append(&store, 0, &record(1, &[(a.clone(), &[(-1, 0.0), (0, 1.0), (2 * hour - 1, 2.0), (2 * hour, 3.0)])]));
    store.flush(P0, None).unwrap();
    assert_eq!(store.stats()[0].blocks, 3);
    let scattered: Vec<(i64, f64)> =
        (1..3000).map(|i| (i * 50 * hour, i as f64)).chain([(i64::MIN, 0.0), (i64::MAX, 0.0)]).collect();
    append(&store, 1, &record(1, &[(a, &scattered)]));
    let before = everything(&store);
    store.flush(P0, None).unwrap();
    assert!(store.stats()[0].blocks <= 3 + 64, "{}", store.stats()[0].blocks);
    assert_eq!(everything(&store), before);
}

#[test]
fn what_is_appended_after_a_flush_began_is_not_part_of_it() {
    let blocks = MemoryBlocks::new();
    let store = open(Arc::new(blocks.clone()));
    append(&store, 0, &record(1, &[(labels("m", "a"), &[(1, 1.0)])]));
    let first = store.begin_flush(P0, Some("at 1".into())).unwrap();
    append(&store, 1, &record(1, &[(labels("m", "b"), &[(2, 2.0)])]));
    let second = store.begin_flush(P0, Some("at 2".into())).unwrap();
    append(&store, 2, &record(1, &[(labels("m", "c"), &[(3, 3.0)])]));
    let before = everything(&store);
    assert_eq!(before.len(), 3);
    assert_eq!((first.to(), first.run().unwrap()), (Offset(1), Offset(1)));
    assert_eq!(store.snapshot(P0).unwrap(), "at 1");
    assert_eq!(everything(&open(Arc::new(blocks.clone()))).len(), 1);
    // A job that is dropped loses nothing.
    drop(second);
    assert_eq!(everything(&store), before);
    assert_eq!(store.flush(P0, None).unwrap(), Offset(3));
    assert_eq!(everything(&open(Arc::new(blocks))), before);
}

#[test]
fn jobs_that_overtake_each_other_do_no_harm() {
    let store = open(Arc::new(MemoryBlocks::new()));
    append(&store, 0, &record(1, &[(labels("m", "a"), &[(1, 1.0)])]));
    let first = store.begin_flush(P0, Some("old".into())).unwrap();
    append(&store, 1, &record(1, &[(labels("m", "a"), &[(2, 2.0)])]));
    let second = store.begin_flush(P0, Some("new".into())).unwrap();
    let before = everything(&store);
    assert_eq!(second.run().unwrap(), Offset(2));
    assert_eq!(first.run().unwrap(), Offset(2));
    assert_eq!((everything(&store), store.snapshot(P0).unwrap()), (before, "new".into()));
}

#[test]
fn a_full_disk_costs_nothing_but_time() {
    let vfs = SimVfs::new();
    let store = open(Arc::new(LocalBlocks::new(Arc::new(vfs.clone()), "/data")));
    append(&store, 0, &record(1000, &[(labels("m", "a"), &[(1, 1.0)])]));
    let before = everything(&store);
    vfs.set_capacity(600);
    assert!(matches!(store.flush(P0, None), Err(StoreError::Full(_))));
    assert_eq!(everything(&store), before);
    assert!(!store.flush_due(P0, ms(1000)), "not at every record");
    assert!(store.flush_due(P0, ms(11_000)));
    append(&store, 1, &record(2000, &[(labels("m", "a"), &[(1, 9.0), (2, 2.0)])]));
    vfs.set_capacity(1 << 20);
    assert_eq!(store.flush(P0, None).unwrap(), Offset(2));
    let store = open(Arc::new(LocalBlocks::new(Arc::new(vfs), "/data")));
    assert_eq!(store.history(P0, SeriesId(0), TimeRange::ALL).unwrap(), [sample(1, 1.0), sample(2, 2.0)]);
}

#[test]
fn old_deltas_and_snapshots_go_and_the_state_stays() {
    let blocks = MemoryBlocks::new();
    let config = StoreConfig { manifest_full_every: 4, ..StoreConfig::default() };
    let store = open_with(Arc::new(blocks.clone()), 1, config.clone()).unwrap();
    for i in 0..20 {
        append(&store, i, &record(1, &[(labels("m", &format!("n{i}")), &[(i as i64, 1.0)])]));
        store.flush(P0, Some(format!("s{i}").into())).unwrap();
        let again = open_with(Arc::new(blocks.clone()), 1, config.clone()).unwrap();
        assert_eq!(everything(&again), everything(&store));
    }
    assert!(blocks.list("p0/manifest").unwrap().len() <= 5);
    assert!(blocks.list("p0/series").unwrap().len() <= 5);
    assert_eq!(blocks.list("p0/snapshot").unwrap().len(), 1);
}

#[test]
fn another_layout_or_a_newer_store_is_refused_with_nothing_changed() {
    let blocks = MemoryBlocks::new();
    assert!(forewarn_store::Store::open_read_only(Arc::new(blocks.clone()), StoreConfig::default()).is_err());
    assert_eq!(blocks.list("").unwrap(), []);
    let store = open_with(Arc::new(blocks.clone()), 2, StoreConfig::default()).unwrap();
    assert_eq!(store.partitions(), 2);
    let three = open_with(Arc::new(blocks.clone()), 3, StoreConfig::default());
    assert_eq!(three.unwrap_err().to_string(), "the store has 2 partitions, not 3");

    blocks.put("p1/blocks/orphan.samples.parquet", b"x").unwrap();
    blocks.put("p1/manifest/00000000000000000000.json", b"{\"format\":2}\n{}\n").unwrap();
    let before = blocks.list("").unwrap();
    let newer = open_with(Arc::new(blocks.clone()), 2, StoreConfig::default());
    assert!(matches!(newer, Err(StoreError::Newer { .. })), "{newer:?}");
    assert_eq!(blocks.list("").unwrap(), before);
    blocks.delete("p1/manifest/00000000000000000000.json").unwrap();
    open_with(Arc::new(blocks.clone()), 2, StoreConfig::default()).unwrap();
    assert!(blocks.bytes("p1/blocks/orphan.samples.parquet").is_err(), "swept");

    let blocks = MemoryBlocks::new();
    blocks.put("store.json", b"{\"format\":7}").unwrap();
    assert!(matches!(open_with(Arc::new(blocks), 2, StoreConfig::default()), Err(StoreError::Newer { format: 7, .. })));
}
