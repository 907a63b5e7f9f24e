//! A crash at any file-system call of a flush, a manifest compaction or a retention step, with any legal remains of
//! what was not synced: after reading the log again every sample is there exactly once.

use std::sync::Arc;
use std::time::Duration;

use forewarn_schemas::{Offset, Record};
use forewarn_store::{LocalBlocks, Store, StoreConfig, StoreError};
use forewarn_vfs::{Fault, SimVfs};

use crate::support::*;

/// Crash states looked at per call.
const STATES: usize = 6;
const HOUR: i64 = 3_600_000;

fn config() -> StoreConfig {
    StoreConfig { manifest_full_every: 2, retention: Duration::from_secs(24 * 3600), ..StoreConfig::default() }
}

fn open_on(vfs: &SimVfs) -> Result<Store, forewarn_store::StoreError> {
    open_with(Arc::new(LocalBlocks::new(Arc::new(vfs.clone()), "/data/store")), 1, config())
}

fn log() -> Vec<Record> {
    let rec = |i: i64| {
        let (old, new) = (labels("m", "old"), labels("m", &format!("n{i}")));
        // Two spans of time in each flush, one series new, one sample that was there before.
        record(40 * HOUR + i, &[(old, &[(i, i as f64), (0, 9.5)]), (new, &[(40 * HOUR + i, 0.5 + i as f64)])])
    };
    (0..6).map(rec).collect()
}

/// Takes records, flushes after every two, retains at the end; returns the offset acknowledged last and whether
/// retention was.
fn run(store: &Store, records: &[Record], retain: bool) -> (Offset, bool) {
    let mut flushed = Offset(0);
    for (i, record) in records.iter().enumerate() {
        append(store, i as u64, record);
        if i % 2 == 1 {
            match store.flush(P0, Some(format!("at {}", i + 1).into())) {
                Ok(to) => flushed = to,
                Err(_) => return (flushed, false),
            }
        }
    }
    (flushed, retain && store.retain(ms(41 * HOUR)).is_ok())
}

fn replay(store: &Store, records: &[Record]) {
    for (i, record) in records.iter().enumerate().skip(store.checkpoint(P0).0 as usize) {
        append(store, i as u64, record);
    }
}

#[test]
fn every_sample_is_there_once_after_a_crash_anywhere() {
    let records = log();
    let whole = SimVfs::new();
    let store = open_on(&whole).unwrap();
    run(&store, &records, false);
    let expected = everything(&store);
    let first = {
        let vfs = SimVfs::new();
        open_on(&vfs).unwrap();
        vfs.ops()
    };
    assert!(whole.ops() > first + 40, "the script does nothing");
    let mut seen = 0;
    for n in 0..=whole.ops() {
        let vfs = SimVfs::new();
        vfs.crash_after(n);
        let flushed = open_on(&vfs).map_or(Offset(0), |store| run(&store, &records, false).0);
        for (k, after) in vfs.crash_states(n, STATES).enumerate() {
            let what = format!("crash after call {n}, state {k}");
            let store = open_on(&after).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(store.checkpoint(P0) >= flushed, "{what}: acknowledged {flushed}, found {}", store.checkpoint(P0));
            match store.checkpoint(P0).0 {
                0 => assert_eq!(store.snapshot(P0), None, "{what}"),
                to => assert_eq!(store.snapshot(P0).unwrap(), format!("at {to}"), "{what}"),
            }
            replay(&store, &records);
            assert_eq!(everything(&store), expected, "{what}");
            store.flush(P0, None).unwrap();
            assert_eq!(everything(&open_on(&after).unwrap()), expected, "{what}, flushed again");
            assert_eq!(store.problems(), [], "{what}");
            seen += 1;
        }
    }
    println!("{seen} crash states over {} calls", whole.ops());
}

#[test]
fn retention_drops_a_block_whole_or_not_at_all() {
    let records = log();
    let whole = SimVfs::new();
    let store = open_on(&whole).unwrap();
    run(&store, &records, false);
    let before = (whole.ops(), everything(&store));
    assert_eq!(store.retain(ms(41 * HOUR)).unwrap().blocks, 3);
    let after = (whole.ops(), everything(&store));
    assert!(before.1.len() > after.1.len());
    for n in before.0..=after.0 {
        let vfs = SimVfs::new();
        vfs.crash_after(n);
        let retained = run(&open_on(&vfs).unwrap(), &records, true).1;
        for (k, after_crash) in vfs.crash_states(n, STATES).enumerate() {
            let store = open_on(&after_crash).unwrap();
            let found = everything(&store);
            assert!(found == after.1 || (!retained && found == before.1), "crash after call {n}, state {k}");
            assert_eq!(store.problems(), []);
            store.retain(ms(41 * HOUR)).unwrap();
            assert_eq!(everything(&open_on(&after_crash).unwrap()), after.1);
        }
    }
}

#[test]
fn a_call_that_fails_leaves_everything_readable_and_is_tried_again_or_closes_the_store() {
    let records = log();
    let expected = {
        let store = open_on(&SimVfs::new()).unwrap();
        run(&store, &records, false);
        everything(&store)
    };
    let kinds: [fn(u64) -> Fault; 7] =
        [Fault::Open, Fault::Append, Fault::Sync, Fault::Rename, Fault::Remove, Fault::SyncDir, Fault::List];
    let mut closed = 0;
    for (k, kind) in kinds.into_iter().enumerate() {
        for n in 0..12 {
            let what = format!("{:?}", kind(n));
            let vfs = SimVfs::new();
            let store = open_on(&vfs).unwrap();
            run(&store, &records[..3], false);
            append(&store, 3, &records[3]);
            vfs.fail(kind(n));
            let first = store.flush(P0, None);
            for (i, record) in records.iter().enumerate().skip(4) {
                append(&store, i as u64, record);
            }
            let again = store.flush(P0, None);
            match (&first, &again) {
                (_, Ok(to)) => assert_eq!(*to, Offset(6), "{what}"),
                (Err(StoreError::Uncertain { .. }), Err(StoreError::Closed { .. })) => closed += 1,
                (Ok(_), Err(StoreError::Uncertain { .. })) => closed += 1,
                other => assert!(k >= 4 || other.0.is_ok(), "{what}: {other:?}"),
            }
            // The fault may still be armed for a read.
            let read = open_on(&vfs).or_else(|_| open_on(&vfs));
            for store in [store, read.unwrap_or_else(|e| panic!("{what}: {e}"))] {
                replay(&store, &records);
                assert_eq!(everything(&store), expected, "{what}");
            }
        }
    }
    assert!(closed > 0);
}
