//! Any stream of records, flushed and reopened at any point, answers as a map from (series, time) to the first value.

use std::collections::BTreeMap;
use std::sync::Arc;

use forewarn_schemas::{MatchOp, Matcher, TimeRange};
use forewarn_store::{BlockStore, MemoryBlocks, SampleColumn, Store};
use futures::TryStreamExt;
use proptest::prelude::*;

use crate::support::*;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u8, Vec<(i64, u64)>)>),
    Again(u64),
    Flush,
    Reopen,
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        (-1000i64..1000).prop_map(|n| (n as f64).to_bits()),
        (-1000i64..1000).prop_map(|n| (n as f64 / 100.0).to_bits()),
        any::<u64>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ts = prop_oneof![4 => 0i64..50, 2 => (0i64..40).prop_map(|i| i * 3_600_000), 1 => any::<i64>()];
    let series = (0u8..6, prop::collection::vec((ts, value()), 0..12));
    prop_oneof![
        6 => prop::collection::vec(series, 1..5).prop_map(Step::Append),
        1 => (0u64..5).prop_map(Step::Again),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

type Model = BTreeMap<u8, BTreeMap<i64, u64>>;

fn name(i: u8) -> (forewarn_schemas::Labels, String) {
    let l = labels(if i.is_multiple_of(2) { "even" } else { "odd" }, &format!("n{i}"));
    let text = l.to_string();
    (l, text)
}

fn expected(model: &Model) -> Vec<(String, Vec<(i64, u64)>)> {
    let mut out: Vec<_> = model
        .iter()
        .filter(|(_, s)| !s.is_empty())
        .map(|(i, samples)| (name(*i).1, samples.iter().map(|(t, v)| (*t, *v)).collect::<Vec<_>>()))
        .collect();
    out.sort();
    out
}

fn batch_of(batch: &[(u8, Vec<(i64, u64)>)]) -> forewarn_schemas::Record {
    let series: Vec<(forewarn_schemas::Labels, Vec<(i64, f64)>)> = batch
        .iter()
        .map(|(i, samples)| (name(*i).0, samples.iter().map(|(t, v)| (*t, f64::from_bits(*v))).collect()))
        .collect();
    let borrowed: Vec<_> = series.iter().map(|(l, s)| (l.clone(), s.as_slice())).collect();
    record(1, &borrowed)
}

fn selected(store: &Store, matchers: &[Matcher], range: TimeRange) -> Vec<(i64, u64)> {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{Float64Type, TimestampMillisecondType};
    let columns = [SampleColumn::SeriesId, SampleColumn::Ts, SampleColumn::Value, SampleColumn::Labels];
    let batches: Vec<_> =
        runtime().block_on(async { store.select(matchers, range, &columns).try_collect().await.unwrap() });
    let mut out = Vec::new();
    for b in batches {
        let ts = b.column(1).as_primitive::<TimestampMillisecondType>();
        let value = b.column(2).as_primitive::<Float64Type>();
        out.extend(ts.values().iter().zip(value.values()).map(|(t, v)| (*t, v.to_bits())));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn every_read_agrees_with_the_model(steps in prop::collection::vec(step(), 1..25), cut in 0i64..60) {
        let blocks: Arc<dyn BlockStore> = Arc::new(MemoryBlocks::new());
        let mut store = open(Arc::clone(&blocks));
        let mut model = Model::new();
        let mut log = Vec::new();
        for step in steps {
            match step {
                Step::Append(batch) => {
                    for (i, samples) in &batch {
                        let series = model.entry(*i).or_default();
                        for (t, v) in samples {
                            series.entry(*t).or_insert(*v);
                        }
                    }
                    let record = batch_of(&batch);
                    append(&store, log.len() as u64, &record);
                    log.push(record);
                }
                Step::Again(back) => {
                    if let Some(at) = (log.len() as u64).checked_sub(back + 1) {
                        append(&store, at, &log[at as usize]);
                    }
                }
                Step::Flush => {
                    prop_assert_eq!(store.flush(P0, None).unwrap().0, log.len() as u64);
                }
                Step::Reopen => {
                    store = open(Arc::clone(&blocks));
                    for (at, record) in log.iter().enumerate().skip(store.checkpoint(P0).0 as usize) {
                        append(&store, at as u64, record);
                    }
                }
            }
        }
        let expected = expected(&model);
        prop_assert_eq!(&everything(&store), &expected);
        // The other ways to read say the same.
        let even = [Matcher::new("__name__", MatchOp::Regex, "ev.*").unwrap()];
        let mut wanted: Vec<(i64, u64)> = Vec::new();
        for (id, l) in store.series(P0) {
            if l.metric() == "even" {
                let samples = store.history(P0, id, range(0, cut)).unwrap();
                wanted.extend(samples.iter().map(|s| (s.ts.as_millis(), s.value.to_bits())));
            }
        }
        prop_assert_eq!(selected(&store, &even, range(0, cut)), wanted);
        let total: usize = expected.iter().map(|(_, s)| s.len()).sum();
        prop_assert_eq!(query(&store, "SELECT count(*) FROM samples"), [total.to_string()]);
        prop_assert_eq!(query(&store, "SELECT count(*) FROM series"), [expected.len().to_string()]);
        prop_assert!(store.problems().is_empty());
    }
}
