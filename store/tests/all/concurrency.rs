//! Queries while records come in, heads are flushed and blocks expire: no sample twice, none missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use forewarn_schemas::{Offset, SeriesId, TimeRange};
use forewarn_store::{MemoryBlocks, StoreConfig};

use crate::support::*;

const RECORDS: i64 = 600;

#[test]
fn readers_see_a_whole_prefix_at_every_moment() {
    let config = StoreConfig { manifest_full_every: 3, ..StoreConfig::default() };
    let store = open_with(Arc::new(MemoryBlocks::new()), 1, config).unwrap();
    let series = [labels("m", "a"), labels("m", "b"), labels("n", "a")];
    let appended = AtomicI64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for t in 0..RECORDS {
                // Every tenth record repeats old samples with other values: they must never show.
                let old = [(t, t as f64), (t / 2, -1.0)];
                let samples = if t % 10 == 9 { &old[..] } else { &old[..1] };
                let all: Vec<_> = series.iter().map(|l| (l.clone(), samples)).collect();
                store.append(P0, Offset(t as u64), &record(t, &all)).unwrap();
                appended.store(t + 1, Ordering::SeqCst);
                if t % 25 == 24 {
                    let job = store.begin_flush(P0, None).unwrap();
                    if t % 50 == 49 {
                        scope.spawn(move || job.run().unwrap());
                    } else {
                        job.run().unwrap();
                    }
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        for id in 0..2 {
            let (store, appended, done) = (&store, &appended, &done);
            scope.spawn(move || {
                let mut rounds = 0;
                while !done.load(Ordering::SeqCst) || rounds == 0 {
                    let least = appended.load(Ordering::SeqCst);
                    let found = store.history(P0, SeriesId(id), TimeRange::ALL).unwrap();
                    assert!(found.len() as i64 >= least, "{} of {least}", found.len());
                    for (i, s) in found.iter().enumerate() {
                        assert_eq!((s.ts.as_millis(), s.value), (i as i64, i as f64));
                    }
                    rounds += 1;
                }
            });
        }
        scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) || rounds == 0 {
                let wrong = "SELECT count(*) FROM (SELECT node, metric, ts FROM samples GROUP BY 1, 2, 3 \
                             HAVING count(*) > 1 OR min(value) < 0)";
                assert_eq!(query(&store, wrong), ["0"]);
                rounds += 1;
            }
        });
    });
    store.flush(P0, None).unwrap();
    assert_eq!(
        query(&store, "SELECT count(*), sum(value) FROM samples"),
        [format!("{}|{:?}", 3 * RECORDS, (3 * RECORDS * (RECORDS - 1) / 2) as f64)]
    );
}
