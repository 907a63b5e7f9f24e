use super::*;
use crate::AnalyzeError;

struct Nothing;
impl History for Nothing {
    fn samples(&self, _: SeriesId, _: TimeRange) -> Vec<Sample> {
        Vec::new()
    }
}

fn series(metric: &str, pairs: &[(&str, &str)], ts: i64, value: f64) -> SeriesSamples {
    let labels = Labels::series(metric, pairs).unwrap();
    SeriesSamples { labels, samples: vec![Sample { ts: Timestamp::from_secs(ts), value }] }
}

fn observe(a: &mut Analyzer, now: i64, list: Vec<(u32, SeriesSamples)>) {
    let (ids, series): (Vec<_>, Vec<_>) = list.into_iter().map(|(id, s)| (SeriesId(id), s)).unzip();
    a.observe(Timestamp::from_secs(now), &Batch { series }, &ids);
}

fn evaluate(a: &mut Analyzer, now: i64) -> Evaluation {
    a.evaluate(Timestamp::from_secs(now), &Nothing)
}

fn mounts(n: u32, now: i64, used: impl Fn(u32) -> f64) -> Vec<(u32, SeriesSamples)> {
    (0..n)
        .flat_map(|i| {
            let mount = format!("/m{i:04}");
            let pairs = [("node", "h"), ("mount", mount.as_str())];
            [
                (2 * i, series("host_disk_used_bytes", &pairs, now, used(i))),
                (2 * i + 1, series("host_disk_limit_bytes", &pairs, now, 1000.0)),
            ]
        })
        .collect()
}

#[test]
fn of_many_objects_the_nearest_are_shown_and_the_rest_counted() {
    let mut a = Analyzer::new(Catalogue::builtin(), AnalyzeConfig::default());
    observe(&mut a, 1000, mounts(120, 1000, |i| f64::from(i) * 8.0));
    let e = evaluate(&mut a, 1000);
    assert_eq!(e.changed.len(), 50);
    let shown: Vec<String> = a.forecasts().map(|f| f.key.object.clone()).collect();
    assert_eq!(shown.len(), 50);
    assert!(shown.iter().all(|o| o.as_str() >= "/m0065"), "the fullest: {shown:?}");
    assert_eq!(a.counts().values().sum::<usize>(), 120);
    for now in (1010..1060).step_by(10) {
        observe(&mut a, now, mounts(120, now, |i| if i == 3 { 1000.0 } else { f64::from(i) * 8.0 }));
        evaluate(&mut a, now);
    }
    let full: Vec<_> = a.forecasts().filter(|f| f.state == ForecastState::Exhausted).collect();
    assert_eq!(full.len(), 1, "one that was hidden comes to the top");
    assert_eq!(full[0].key.object, "/m0003");
    assert_eq!(a.forecasts().count(), 50);
}

#[test]
fn objects_beyond_the_watched_are_counted_only() {
    let mut a = Analyzer::new(Catalogue::builtin(), AnalyzeConfig::default());
    observe(&mut a, 1000, mounts(600, 1000, |_| 1.0));
    evaluate(&mut a, 1000);
    assert_eq!(a.counts().values().sum::<usize>(), 500);
    assert_eq!(a.unwatched(), 100);
}

#[test]
fn a_second_series_of_a_resource_waits_until_the_first_is_silent() {
    let mut a = Analyzer::new(Catalogue::builtin(), AnalyzeConfig::default());
    let pod = |id: &'static str| [("node", "k"), ("pod", "p"), ("container", "c"), ("id", id)];
    for now in (1000..1100).step_by(10) {
        observe(
            &mut a,
            now,
            vec![
                (1, series("container_memory_rss", &pod("/1"), now, 100.0)),
                (2, series("container_memory_rss", &pod("/2"), now, 900.0)),
            ],
        );
        evaluate(&mut a, now);
    }
    assert_eq!(a.forecasts().map(|f| f.used).collect::<Vec<_>>(), [Some(100.0)]);
    for now in (1100..1300).step_by(10) {
        observe(&mut a, now, vec![(2, series("container_memory_rss", &pod("/2"), now, 900.0))]);
        evaluate(&mut a, now);
    }
    assert_eq!(a.forecasts().map(|f| f.used).collect::<Vec<_>>(), [Some(900.0)]);
}

#[test]
fn what_is_silent_for_a_day_is_forgotten() {
    let mut a = Analyzer::new(Catalogue::builtin(), AnalyzeConfig::default());
    observe(&mut a, 3_600, mounts(2, 3_600, |_| 1.0));
    evaluate(&mut a, 3_600);
    assert_eq!((a.nodes().len(), a.cells.len()), (1, 2));
    let e = evaluate(&mut a, 95_000);
    assert_eq!(e.gone.len(), 2);
    evaluate(&mut a, 99_000);
    assert_eq!((a.nodes().len(), a.cells.len(), a.resources.len()), (0, 0, 0));
    observe(&mut a, 99_010, mounts(2, 99_010, |_| 1.0));
    assert_eq!(evaluate(&mut a, 99_010).changed.len(), 2, "and found again");
}

#[test]
fn time_does_not_go_back() {
    let mut a = Analyzer::new(Catalogue::builtin(), AnalyzeConfig::default());
    observe(&mut a, 1000, mounts(2, 1000, |_| 1.0));
    assert_eq!(evaluate(&mut a, 1000).changed.len(), 2);
    let e = evaluate(&mut a, 990);
    assert!(e.changed.is_empty() && e.gone.is_empty());
}

#[test]
fn damaged_or_newer_snapshots_are_refused() {
    let mut a = Analyzer::new(Catalogue::builtin(), AnalyzeConfig::default());
    observe(&mut a, 1000, mounts(3, 1000, |_| 1.0));
    evaluate(&mut a, 1000);
    let good = a.snapshot();
    let catalogue = Catalogue::builtin();
    let restore = |bytes: &[u8]| Analyzer::restore(catalogue.clone(), AnalyzeConfig::default(), bytes).map(|_| ());
    restore(&good).unwrap();
    for i in 0..good.len() {
        assert!(restore(&good[..i]).is_err(), "cut at {i}");
        let mut bad = good.clone();
        bad[i] ^= 0x10;
        assert!(restore(&bad).is_err(), "flipped at {i}");
    }
    let mut newer = good.clone();
    newer[4] = 2;
    assert_eq!(restore(&newer), Err(AnalyzeError::SnapshotVersion(2, 1)));
    assert_eq!(restore(b"what"), Err(AnalyzeError::SnapshotMagic));
    // A body of any bytes under a right checksum is refused or read, never a panic.
    for i in 6..good.len() - 4 {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good[..good.len() - 4].to_vec();
            bad[i] ^= flip;
            bad.extend(crc32c::crc32c(&bad).to_le_bytes());
            if let Ok(mut b) = Analyzer::restore(catalogue.clone(), AnalyzeConfig::default(), &bad) {
                b.evaluate(Timestamp::from_secs(1010), &Nothing);
            }
        }
    }
}

#[test]
fn a_changed_catalogue_drops_and_adds() {
    let one = "
resources:
  - {resource: a, unit: x, kind: hard, used: a_used, limit: a_limit}
  - {resource: b, unit: x, kind: hard, used: b_used, limit: 100}
";
    let two = "
resources:
  - {resource: c, unit: x, kind: hard, used: c_used, limit: 100}
  - {resource: b, unit: x, kind: hard, used: b_used, limit: b_limit}
";
    let all = |now: i64, used: f64| {
        ["a_used", "a_limit", "b_used", "c_used", "b_limit"]
            .into_iter()
            .enumerate()
            .map(|(i, m)| (i as u32, series(m, &[("node", "n")], now, if m.ends_with("limit") { 200.0 } else { used })))
            .collect::<Vec<_>>()
    };
    let mut a = Analyzer::new(Catalogue::parse(one).unwrap(), AnalyzeConfig::default());
    for now in (1000..1200).step_by(10) {
        observe(&mut a, now, all(now, 60.0));
        evaluate(&mut a, now);
    }
    let mut b = Analyzer::restore(Catalogue::parse(two).unwrap(), AnalyzeConfig::default(), &a.snapshot()).unwrap();
    assert_eq!(b.forecasts().map(|f| f.key.resource.as_str()).collect::<Vec<_>>(), ["b"], "what was known is shown");
    observe(&mut b, 1200, all(1200, 60.0));
    let e = evaluate(&mut b, 1200);
    assert_eq!(e.gone.iter().map(|k| k.resource.as_str()).collect::<Vec<_>>(), ["a"]);
    let known: Vec<(&str, u64, Option<f64>)> =
        b.forecasts().map(|f| (f.key.resource.as_str(), f.saw.samples, f.limit)).collect();
    assert_eq!(known[1], ("c", 1, Some(100.0)));
    assert_eq!((known[0].0, known[0].2), ("b", Some(200.0)), "b goes on, with its new limit");
    // The same catalogue keeps everything.
    let c = Analyzer::restore(Catalogue::parse(one).unwrap(), AnalyzeConfig::default(), &a.snapshot()).unwrap();
    assert!(c.forecasts().eq(a.forecasts()));
}

#[test]
fn nothing_is_said_about_series_that_no_entry_names_but_their_node_is_seen() {
    let mut a = Analyzer::new(Catalogue::builtin(), AnalyzeConfig::default());
    observe(
        &mut a,
        1000,
        vec![(7, series("http_requests_total", &[("instance", "web:1"), ("job", "web")], 1000, 1.0))],
    );
    assert!(evaluate(&mut a, 1000).changed.is_empty());
    let nodes = a.nodes();
    assert_eq!((nodes[0].node.as_str(), nodes[0].family.as_str(), nodes[0].up), ("web:1", "web", Some(true)));
    assert!(!nodes[0].configured);
}

/// A snapshot of version 1 as it was first written; it must open for ever.
#[test]
fn the_frozen_snapshot_opens() {
    let one = "resources: [{resource: a, unit: x, kind: hard, used: a_used, limit: a_limit, harm: [a_total]}]";
    let frozen = include_bytes!("../../fixtures/snapshot-v1.bin");
    let a = Analyzer::restore(Catalogue::parse(one).unwrap(), AnalyzeConfig::default(), frozen).unwrap();
    assert_eq!(a.snapshot(), frozen, "the same version writes what it read");
    let said: Vec<(String, ForecastState, Option<f64>)> =
        a.forecasts().map(|f| (f.key.to_string(), f.state, f.used_ratio)).collect();
    assert_eq!(said, [("n/a".to_owned(), ForecastState::Learning, Some(0.15))]);
    assert_eq!(a.nodes()[0].up, Some(true));
}

/// Writes the fixture above; run by hand when a new version is made.
#[test]
fn a_snapshot_like_the_frozen_one_is_written() {
    let one = "resources: [{resource: a, unit: x, kind: hard, used: a_used, limit: a_limit, harm: [a_total]}]";
    let mut a = Analyzer::new(Catalogue::parse(one).unwrap(), AnalyzeConfig::default());
    for i in 0..40 {
        let now = 1_000 + 10 * i;
        observe(
            &mut a,
            now,
            vec![
                (0, series("a_used", &[("node", "n"), ("job", "j")], now, (i % 12 * 10) as f64)),
                (1, series("a_limit", &[("node", "n"), ("job", "j")], now, 200.0)),
                (2, series("up", &[("node", "n"), ("job", "j")], now, 1.0)),
            ],
        );
        evaluate(&mut a, now);
    }
    let bytes = a.snapshot();
    if let Ok(path) = std::env::var("FOREWARN_WRITE_FIXTURE") {
        std::fs::write(path, &bytes).unwrap();
    }
    assert_eq!(&bytes[..6], b"FWAN\x01\0");
}
