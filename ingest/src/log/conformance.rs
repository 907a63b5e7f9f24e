//! What every [`Log`] must do. Each back end runs [`check`] on logs of its own making.

use std::sync::Arc;

use bytes::Bytes;
use forewarn_schemas::record::RECORD_BYTES_MAX;
use forewarn_schemas::{Offset, PartitionId};

use super::{Log, LogError};

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);

/// A log under test, of two partitions, with whatever keeps it alive.
pub(super) type Subject = (Arc<dyn Log>, Box<dyn std::any::Any>);

/// Runs the suite; `make` returns a new, empty log of two partitions each time.
pub(super) async fn check(make: impl Fn() -> Subject) {
    an_empty_log_has_an_end_and_nothing_to_read(&*make().0).await;
    offsets_follow_the_order_of_enqueueing(&*make().0).await;
    partitions_are_independent(&*make().0).await;
    reads_are_bounded_but_never_empty_handed(&*make().0).await;
    the_end_is_watched(&*make().0).await;
    what_is_read_is_durable_while_appending(make().0).await;
    truncation_forgets_only_below(&*make().0).await;
    sizes_from_none_to_the_largest_are_kept(&*make().0).await;
    a_closed_log_reads_but_does_not_write(&*make().0).await;
}

fn text(i: u64) -> Bytes {
    Bytes::from(format!("record {i}"))
}

async fn an_empty_log_has_an_end_and_nothing_to_read(log: &dyn Log) {
    assert_eq!(log.partitions(), 2);
    for p in [P0, P1] {
        assert_eq!(log.bounds(p), Offset(0)..Offset(0));
        let chunk = log.read(p, Offset(0), 100).await.unwrap();
        assert!(chunk.records.is_empty() && chunk.gaps.is_empty() && chunk.next == Offset(0));
        assert!(matches!(log.read(p, Offset(1), 100).await, Err(LogError::OutOfRange { .. })));
    }
    let none = PartitionId(2);
    assert!(matches!(log.append(none, text(0)).await, Err(LogError::NoPartition(p)) if p == none));
    assert!(matches!(log.read(none, Offset(0), 1).await, Err(LogError::NoPartition(_))));
    assert!(matches!(log.truncate(none, Offset(0)).await, Err(LogError::NoPartition(_))));
    assert_eq!(log.bounds(none), Offset(0)..Offset(0));
}

async fn offsets_follow_the_order_of_enqueueing(log: &dyn Log) {
    let mut answers = Vec::new();
    for i in 0..500 {
        let answer = loop {
            match log.enqueue(P0, text(i)) {
                Err(LogError::Full(_)) => log.room(P0).await,
                other => break other.unwrap(),
            }
        };
        // Every third answer is not waited for: the record is written all the same.
        if i % 3 != 0 {
            answers.push((i, answer));
        }
    }
    for (i, answer) in answers {
        assert_eq!(answer.await.unwrap(), Offset(i));
    }
    assert_eq!(log.append(P0, text(500)).await.unwrap(), Offset(500));
    let chunk = log.read(P0, Offset(0), usize::MAX).await.unwrap();
    let want: Vec<_> = (0..=500).map(|i| (Offset(i), text(i))).collect();
    assert_eq!(chunk.records, want);
    assert_eq!((chunk.next, chunk.gaps), (Offset(501), vec![]));
}

async fn partitions_are_independent(log: &dyn Log) {
    log.append(P0, text(0)).await.unwrap();
    assert_eq!(log.append(P1, text(1)).await.unwrap(), Offset(0));
    log.append(P0, text(2)).await.unwrap();
    assert_eq!(log.bounds(P0), Offset(0)..Offset(2));
    assert_eq!(log.bounds(P1), Offset(0)..Offset(1));
    assert_eq!(log.read(P1, Offset(0), 100).await.unwrap().records, [(Offset(0), text(1))]);
}

async fn reads_are_bounded_but_never_empty_handed(log: &dyn Log) {
    for i in 0..10 {
        log.append(P0, text(i)).await.unwrap();
    }
    let len = text(0).len();
    for (bytes_max, want) in [(0, 1), (1, 1), (len, 1), (2 * len - 1, 1), (2 * len, 2), (5 * len, 5), (1000, 7)] {
        let chunk = log.read(P0, Offset(3), bytes_max).await.unwrap();
        assert_eq!(chunk.records.len(), want, "{bytes_max} bytes");
        assert_eq!(chunk.records[0], (Offset(3), text(3)));
        assert_eq!(chunk.next, Offset(3 + want as u64));
    }
}

async fn the_end_is_watched(log: &dyn Log) {
    let mut end = log.watch_end(P0);
    assert_eq!(*end.borrow_and_update(), Offset(0));
    log.append(P0, text(0)).await.unwrap();
    end.changed().await.unwrap();
    assert_eq!(*end.borrow_and_update(), Offset(1));
    log.append(P1, text(0)).await.unwrap();
    assert!(!end.has_changed().unwrap());
    assert_eq!(*log.watch_end(P1).borrow(), Offset(1));
}

async fn what_is_read_is_durable_while_appending(log: Arc<dyn Log>) {
    let writer = Arc::clone(&log);
    let writing = tokio::spawn(async move {
        for i in 0..300 {
            writer.append(P0, text(i)).await.unwrap();
        }
    });
    let (mut next, mut end) = (Offset(0), log.watch_end(P0));
    while next < Offset(300) {
        end.wait_for(|e| *e > next).await.unwrap();
        let chunk = log.read(P0, next, 200).await.unwrap();
        for (offset, record) in &chunk.records {
            assert_eq!(*record, text(offset.0));
        }
        assert_eq!(chunk.records.first().map(|r| r.0), Some(next));
        assert!(chunk.gaps.is_empty() && chunk.next <= log.bounds(P0).end);
        next = chunk.next;
    }
    writing.await.unwrap();
}

async fn truncation_forgets_only_below(log: &dyn Log) {
    for i in 0..100 {
        log.append(P0, text(i)).await.unwrap();
    }
    let mut furthest = 0;
    for before in [0, 1, 40, 30, 100, 1000] {
        log.truncate(P0, Offset(before)).await.unwrap();
        furthest = furthest.max(before);
        let bounds = log.bounds(P0);
        assert!(bounds.start.0 <= furthest && bounds.end == Offset(100), "{bounds:?}");
        let from = Offset(before).max(bounds.start).min(bounds.end);
        let chunk = log.read(P0, from, usize::MAX).await.unwrap();
        assert_eq!(chunk.records, (from.0..100).map(|i| (Offset(i), text(i))).collect::<Vec<_>>());
        if bounds.start > Offset(0) {
            assert!(matches!(log.read(P0, Offset(0), 1).await, Err(LogError::OutOfRange { .. })));
        }
    }
    assert_eq!(log.append(P0, text(100)).await.unwrap(), Offset(100));
}

async fn sizes_from_none_to_the_largest_are_kept(log: &dyn Log) {
    let records = [0, 1, 511, 512, 100_000, RECORD_BYTES_MAX].map(|n| Bytes::from(vec![7; n]));
    for record in &records {
        log.append(P0, record.clone()).await.unwrap();
    }
    let too_large = Bytes::from(vec![0; RECORD_BYTES_MAX + 1]);
    assert!(matches!(log.append(P0, too_large).await, Err(LogError::TooLarge { .. })));
    let chunk = log.read(P0, Offset(0), usize::MAX).await.unwrap();
    assert!(chunk.records.iter().map(|r| &r.1).eq(&records));
}

async fn a_closed_log_reads_but_does_not_write(log: &dyn Log) {
    let answers: Vec<_> = (0..20).map(|i| log.enqueue(P0, text(i)).unwrap()).collect();
    log.close().await.unwrap();
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap(), Offset(i as u64), "what was queued is written");
    }
    assert!(matches!(log.append(P0, text(20)).await, Err(LogError::Closed(_))));
    assert!(matches!(log.enqueue(P1, text(20)), Err(LogError::Closed(_))));
    log.room(P0).await;
    assert_eq!(log.read(P0, Offset(0), usize::MAX).await.unwrap().records.len(), 20);
    log.close().await.unwrap();
}
