//! Damaged, cut and missing objects: less history and a report, never a wrong value, never a panic.

use std::collections::BTreeSet;
use std::sync::Arc;

use forewarn_schemas::{Offset, SeriesId};
use forewarn_store::{BlockStore, MemoryBlocks, StoreConfig, StoreError};

use crate::support::*;

const HOUR: i64 = 3_600_000;

/// Two blocks of two flushes, integers, floats and specials.
fn built() -> MemoryBlocks {
    let blocks = MemoryBlocks::new();
    let store = open(Arc::new(blocks.clone()));
    for f in 0..2i64 {
        let ints: Vec<(i64, f64)> = (0..50).map(|i| (f * 2 * HOUR + i * 10_000, (i * i) as f64)).collect();
        let floats: Vec<(i64, f64)> = (0..50).map(|i| (f * 2 * HOUR + i * 10_000, (i as f64).sqrt())).collect();
        let mut mixed = ints.clone();
        mixed[7].1 = f64::NAN;
        let series = [(labels("i", "a"), ints.as_slice()), (labels("f", "a"), &floats), (labels("x", "b"), &mixed)];
        append(&store, f as u64, &record(f, &series));
        store.flush(P0, Some("snapshot".into())).unwrap();
    }
    blocks
}

fn copy(blocks: &MemoryBlocks) -> MemoryBlocks {
    let out = MemoryBlocks::new();
    for object in blocks.list("").unwrap() {
        out.put(&object.path, &blocks.get_all(&object.path).unwrap()).unwrap();
    }
    out
}

fn replace(blocks: &MemoryBlocks, path: &str, content: &[u8]) {
    blocks.delete(path).unwrap();
    blocks.put(path, content).unwrap();
}

fn flat(all: &[(String, Vec<(i64, u64)>)]) -> BTreeSet<(String, i64, u64)> {
    all.iter().flat_map(|(l, s)| s.iter().map(|(t, v)| (l.clone(), *t, *v))).collect()
}

/// Opens and reads, by SQL too if wanted; returns how many samples were there, all of them right.
fn survives(blocks: MemoryBlocks, whole: &BTreeSet<(String, i64, u64)>, what: &str, with_sql: bool) -> usize {
    let store = open(Arc::new(blocks));
    let found = flat(&everything(&store));
    assert!(found.is_subset(whole), "{what}: a value that never was");
    if with_sql {
        let counted = query(&store, "SELECT count(*) FROM samples");
        assert_eq!(counted, [found.len().to_string()], "{what}");
        query(&store, "SELECT count(*), min(first_ts), max(last_ts) FROM series");
    }
    if found.len() < whole.len() {
        assert!(!store.problems().is_empty(), "{what}: a loss that is not reported");
    }
    found.len()
}

#[test]
fn a_flip_in_a_block_costs_that_block_at_most() {
    let blocks = built();
    let whole = flat(&everything(&open(Arc::new(blocks.clone()))));
    assert_eq!(whole.len(), 300);
    let seed = 0x5eed_u64;
    println!("seed {seed:#x}");
    let mut random = seed;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    for object in blocks.list("p0/blocks").unwrap() {
        let good = blocks.get_all(&object.path).unwrap().to_vec();
        for round in 0..120 {
            let (at, bit) = (next() % good.len(), next() % 8);
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let damaged = copy(&blocks);
            replace(&damaged, &object.path, &bad);
            let what = format!("{} byte {at} bit {bit}", object.path);
            assert_eq!(survives(damaged, &whole, &what, round % 20 == 0), 150);
        }
    }
}

#[test]
fn cut_empty_and_missing_files_too() {
    let blocks = built();
    let whole = flat(&everything(&open(Arc::new(blocks.clone()))));
    for object in blocks.list("p0/blocks").unwrap() {
        let good = blocks.get_all(&object.path).unwrap();
        for n in [0, 1, good.len() / 2, good.len() - 1] {
            let damaged = copy(&blocks);
            replace(&damaged, &object.path, &good[..n]);
            assert_eq!(survives(damaged, &whole, &format!("{} cut to {n}", object.path), true), 150);
        }
        let damaged = copy(&blocks);
        damaged.delete(&object.path).unwrap();
        assert_eq!(survives(damaged, &whole, &object.path, true), 150);
    }
}

#[test]
fn lost_labels_are_found_in_the_blocks_and_ids_are_never_given_twice() {
    let blocks = built();
    let expected = everything(&open(Arc::new(blocks.clone())));
    let object = blocks.list("p0/series").unwrap().remove(0).path;
    blocks.delete(&object).unwrap();
    let store = open(Arc::new(blocks.clone()));
    assert_eq!(everything(&store), expected);
    assert_eq!(store.problems()[0].object, object);

    for block in blocks.list("p0/blocks").unwrap() {
        blocks.delete(&block.path).unwrap();
    }
    let store = open(Arc::new(blocks));
    assert_eq!(everything(&store), []);
    let ids = store.append(P0, Offset(2), &record(9, &[(labels("new", "a"), &[(1, 1.0)])])).unwrap();
    assert_eq!(ids, [SeriesId(3)]);
}

#[test]
fn a_damaged_snapshot_is_none_and_a_damaged_manifest_is_refused() {
    let blocks = built();
    let snapshot = blocks.list("p0/snapshot").unwrap().remove(0).path;
    replace(&blocks, &snapshot, b"snapshoT");
    let store = open(Arc::new(blocks.clone()));
    assert_eq!(store.snapshot(P0), None);
    assert_eq!(store.problems()[0].what, format!("{snapshot}: checksum mismatch"));

    let delta = blocks.list("p0/manifest").unwrap().remove(0).path;
    let mut bad = blocks.get_all(&delta).unwrap().to_vec();
    bad[20] ^= 1;
    replace(&blocks, &delta, &bad);
    let error = open_with(Arc::new(blocks.clone()), 1, StoreConfig::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { what, .. } if *what == delta), "{error}");
    blocks.delete(&delta).unwrap();
    assert!(open_with(Arc::new(blocks), 1, StoreConfig::default()).is_err());
}

#[test]
fn a_lost_store_json_is_not_made_anew_over_data() {
    let blocks = built();
    blocks.delete("store.json").unwrap();
    let error = open_with(Arc::new(blocks), 8, StoreConfig::default()).unwrap_err();
    assert!(error.to_string().starts_with("store.json: missing"), "{error}");
}
