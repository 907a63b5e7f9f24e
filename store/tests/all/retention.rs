//! Retention by age, and clocks that lie.

use std::sync::Arc;
use std::time::Duration;

use forewarn_schemas::TimeRange;
use forewarn_store::{BlockStore, MemoryBlocks, SampleColumn, Store, StoreConfig};
use futures::StreamExt;

use crate::support::*;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// Ten days of history, one block a day, received as it was measured; kept for three days.
fn ten_days() -> (MemoryBlocks, Store) {
    let blocks = MemoryBlocks::new();
    let config = StoreConfig { retention: Duration::from_secs(3 * 86_400), ..StoreConfig::default() };
    let store = open_with(Arc::new(blocks.clone()), 1, config).unwrap();
    for day in 0..10 {
        let at = day * DAY + 1;
        append(&store, day as u64, &record(at, &[(labels("m", "a"), &[(at, day as f64)])]));
        store.flush(P0, None).unwrap();
    }
    (blocks, store)
}

fn first_day(store: &Store) -> i64 {
    store.history(P0, forewarn_schemas::SeriesId(0), TimeRange::ALL).unwrap()[0].ts.as_millis() / DAY
}

#[test]
fn old_blocks_go_a_step_an_hour_and_their_files_with_them() {
    let (blocks, store) = ten_days();
    let mut now = 9 * DAY + 1;
    let step = store.retain(ms(now)).unwrap();
    assert_eq!((step.blocks, step.samples), (1, 1));
    assert_eq!(first_day(&store), 1);
    assert_eq!(store.retain(ms(now + HOUR - 1)).unwrap().blocks, 0);
    let mut dropped = 1;
    for _ in 0..20 {
        now += HOUR;
        dropped += store.retain(ms(now)).unwrap().blocks;
    }
    // The newest record is of day 9: days 6 to 9 are within three days of it.
    assert_eq!((dropped, first_day(&store)), (6, 6));
    assert_eq!(blocks.list("p0/blocks").unwrap().len(), 2 * 4);
    assert_eq!(store.problems(), []);
    let again = open(Arc::new(blocks));
    assert_eq!(first_day(&again), 6);
    assert_eq!(query(&again, "SELECT count(*), min(first_ts) FROM series"), ["1|1970-01-07T00:00:00.001Z"]);
}

#[test]
fn a_clock_that_jumps_ahead_alone_deletes_nothing_more() {
    let (_, store) = ten_days();
    let mut now = 9 * DAY;
    for _ in 0..30 {
        now += HOUR;
        store.retain(ms(now)).unwrap();
    }
    let kept = everything(&store);
    for i in 0..50 {
        store.retain(ms(10 * YEAR + i * HOUR)).unwrap();
    }
    assert_eq!(everything(&store), kept);
}

#[test]
fn a_jump_that_reaches_the_records_too_costs_a_step_an_hour() {
    let (_, store) = ten_days();
    append(&store, 10, &record(10 * YEAR, &[(labels("m", "a"), &[(10 * YEAR, 1.0)])]));
    let mut dropped = 0;
    for minute in 0..120 {
        dropped += store.retain(ms(10 * YEAR + minute * 60_000)).unwrap().blocks;
    }
    assert_eq!(dropped, 2);
    // The clock is put right: the hour counts from there.
    assert_eq!(store.retain(ms(9 * DAY)).unwrap().blocks, 0);
    assert_eq!(store.retain(ms(9 * DAY + HOUR)).unwrap().blocks, 1);
}

#[test]
fn a_clock_that_is_behind_keeps_everything() {
    let (_, store) = ten_days();
    let before = everything(&store);
    assert_eq!(store.retain(ms(-YEAR)).unwrap().blocks, 0);
    assert_eq!(store.retain(ms(2 * DAY)).unwrap().blocks, 0);
    assert_eq!(everything(&store), before);
    assert_eq!(open(Arc::new(MemoryBlocks::new())).retain(ms(10 * YEAR)).unwrap().blocks, 0);
}

#[test]
fn a_query_finishes_on_the_blocks_it_began_with() {
    let (blocks, store) = ten_days();
    let samples = crate::support::runtime().block_on(async {
        let mut stream = store.select(&[], TimeRange::ALL, &[SampleColumn::Ts]);
        assert_eq!(store.retain(ms(9 * DAY + 1)).unwrap().blocks, 1);
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            rows += batch.unwrap().num_rows();
        }
        rows
    });
    assert_eq!(samples, 10);
    assert_eq!(store.problems(), []);
    store.retain(ms(9 * DAY + 1)).unwrap();
    assert_eq!(blocks.list("p0/blocks").unwrap().len(), 2 * 9);
}
