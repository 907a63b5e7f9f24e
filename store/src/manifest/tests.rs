use std::sync::Arc;

use forewarn_schemas::{Offset, PartitionId};

use super::*;
use crate::block_store::MemoryBlocks;

const P: PartitionId = PartitionId(0);

fn block(id: &str) -> BlockMeta {
    let sum = FileSum { bytes: 1, crc32c: 2 };
    let (from, to) = (Offset(0), Offset(1));
    let id = id.to_owned();
    BlockMeta { id, from, to, min_ts: 0, max_ts: 1, samples: 1, series: 1, samples_file: sum, series_file: sum }
}

fn open(blocks: &MemoryBlocks) -> Result<Chain, StoreError> {
    Chain::open(Arc::new(blocks.clone()), P)
}

fn advance(chain: &mut Chain, to: u64, add: &[&str], remove: &[&str]) -> Result<(), StoreError> {
    let mut delta = chain.draft();
    delta.to = Offset(to);
    delta.add = add.iter().map(|id| block(id)).collect();
    delta.remove = remove.iter().map(|id| (*id).to_owned()).collect();
    chain.publish(delta)
}

fn live(chain: &Chain) -> Vec<&str> {
    chain.live.keys().map(String::as_str).collect()
}

#[test]
fn a_chain_reads_back_as_it_was_published() {
    let blocks = MemoryBlocks::new();
    let mut chain = open(&blocks).unwrap();
    advance(&mut chain, 5, &["a", "b"], &[]).unwrap();
    advance(&mut chain, 5, &["c"], &["a"]).unwrap();
    advance(&mut chain, 9, &[], &[]).unwrap();
    let again = open(&blocks).unwrap();
    assert_eq!((live(&again), again.to), (vec!["b", "c"], Offset(9)));
}

#[test]
fn a_delta_that_does_not_continue_is_refused() {
    let blocks = MemoryBlocks::new();
    let mut chain = open(&blocks).unwrap();
    advance(&mut chain, 5, &["a"], &[]).unwrap();
    let mut delta = chain.draft();
    delta.from = Offset(4);
    assert!(matches!(chain.publish(delta), Err(StoreError::Damaged { .. })));
    assert!(matches!(advance(&mut chain, 4, &[], &[]), Err(StoreError::Damaged { .. })));
    assert!(matches!(advance(&mut chain, 6, &[], &["x"]), Err(StoreError::Damaged { .. })));
    assert!(matches!(advance(&mut chain, 6, &["a"], &[]), Err(StoreError::Damaged { .. })));
    advance(&mut chain, 6, &["b"], &[]).unwrap();

    // One that lies on the disk is refused at opening.
    let mut delta = chain.draft();
    delta.from = Offset(3);
    blocks.put_if_absent(&Delta::path(P, delta.seq), &delta.encode().unwrap()).unwrap();
    let error = open(&blocks).unwrap_err().to_string();
    assert!(error.contains("starts at offset 3, the chain ended at 6"), "{error}");
}

#[test]
fn the_loser_of_a_race_stops() {
    let blocks = MemoryBlocks::new();
    let (mut one, mut two) = (open(&blocks).unwrap(), open(&blocks).unwrap());
    advance(&mut one, 5, &["a"], &[]).unwrap();
    assert!(matches!(advance(&mut two, 7, &["b"], &[]), Err(StoreError::Fenced { seq: 0, .. })));
    assert!(matches!(advance(&mut two, 7, &["b"], &[]), Err(StoreError::Closed { .. })));
    advance(&mut one, 6, &[], &[]).unwrap();
    assert_eq!(live(&open(&blocks).unwrap()), ["a"]);
}

#[test]
fn a_loser_that_finds_its_number_free_again_stops_too() {
    let blocks = MemoryBlocks::new();
    let (mut one, mut two) = (open(&blocks).unwrap(), open(&blocks).unwrap());
    for to in 1..10 {
        advance(&mut one, to, &[], &[]).unwrap();
        one.compact(4, || unreachable!("no series objects")).unwrap();
    }
    assert!(blocks.get_all(&Delta::path(P, 0)).is_err(), "old deltas are gone");
    assert!(matches!(advance(&mut two, 7, &["b"], &[]), Err(StoreError::Fenced { .. })));
    let again = open(&blocks).unwrap();
    assert_eq!((live(&again).len(), again.to), (0, Offset(9)));
}

#[test]
fn the_full_state_replaces_older_deltas() {
    let blocks = MemoryBlocks::new();
    let mut chain = open(&blocks).unwrap();
    for i in 0..20u64 {
        let mut delta = chain.draft();
        delta.to = Offset(i + 1);
        delta.add = vec![block(&format!("b{i:02}"))];
        delta.series_next = i as u32 + 1;
        let object = chain.put_object("series", "parquet", format!("series {i}").as_bytes()).unwrap();
        delta.series = vec![SeriesRef { first: i as u32, next: i as u32 + 1, object }];
        chain.publish(delta).unwrap();
        chain.compact(8, || Ok(format!("all up to {i}").into_bytes())).unwrap();
        let again = open(&blocks).unwrap();
        assert_eq!(again.live, chain.live);
        assert_eq!((again.to, again.series_next, &again.series), (chain.to, chain.series_next, &chain.series));
    }
    assert!(blocks.list("p0/manifest").unwrap().len() <= 9);
    assert!(blocks.list("p0/series").unwrap().len() <= 9);
}

#[test]
fn damage_and_newer_formats_are_named() {
    let blocks = MemoryBlocks::new();
    let mut chain = open(&blocks).unwrap();
    advance(&mut chain, 5, &["a"], &[]).unwrap();
    let path = Delta::path(P, 0);
    let good = blocks.get_all(&path).unwrap().to_vec();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        blocks.delete(&path).unwrap();
        blocks.put(&path, &bad).unwrap();
        assert!(open(&blocks).is_err(), "byte {at}");
    }
    blocks.delete(&path).unwrap();
    blocks.put(&path, b"{\"format\":2,\"other\":true}\n{\"sealed\":\"otherwise\"}\n").unwrap();
    assert!(matches!(open(&blocks), Err(StoreError::Newer { format: 2, .. })));
}
