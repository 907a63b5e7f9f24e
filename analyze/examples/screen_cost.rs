//! Asks what a sample and an evaluation cost: `cargo run --release -p forewarn-analyze --example screen_cost`.
//!
//! 100,000 `used` series with their limits, of which one in a hundred climbs; prints ns per sample taken in, time per
//! evaluation, bytes of snapshot per resource.

use std::time::Instant;

use forewarn_analyze::{AnalyzeConfig, Analyzer, Catalogue, History};
use forewarn_schemas::{Batch, Labels, Sample, SeriesId, SeriesSamples, TimeRange, Timestamp};

const RESOURCES: usize = 100_000;
const ROUNDS: i64 = 60;

/// The climbing series' history is a formula, so that the cost seen is that of the analysis.
struct Formula;

fn value(i: usize, t: i64) -> f64 {
    let noise = ((i as i64 * 7_919 + t * 104_729) % 1_009) as f64;
    if i.is_multiple_of(100) { 1_000.0 + 20.0 * t as f64 + 0.01 * noise } else { 50_000.0 + noise }
}

impl History for Formula {
    fn samples(&self, id: SeriesId, range: TimeRange) -> Vec<Sample> {
        (0..ROUNDS)
            .map(|t| Sample { ts: Timestamp::from_secs(10 * t), value: value(id.0 as usize / 2, t) })
            .filter(|s| range.contains(s.ts))
            .collect()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut labels = Vec::new();
    for i in 0..RESOURCES {
        let node = format!("n{i:06}@host");
        labels.push(Labels::series("beam_processes", &[("node", &node)])?);
        labels.push(Labels::series("beam_processes_limit", &[("node", &node)])?);
    }
    let ids: Vec<SeriesId> = (0..labels.len() as u32).map(SeriesId).collect();
    let mut analyzer = Analyzer::new(Catalogue::builtin(), AnalyzeConfig::default());
    let (mut observed, mut evaluated) = (Vec::new(), Vec::new());
    for t in 0..ROUNDS {
        let ts = Timestamp::from_secs(10 * t);
        let mut batch = Batch::default();
        for (j, l) in labels.iter().enumerate() {
            let value = if j % 2 == 0 { value(j / 2, t) } else { 262_144.0 };
            batch.series.push(SeriesSamples { labels: l.clone(), samples: vec![Sample { ts, value }] });
        }
        let begin = Instant::now();
        analyzer.observe(ts, &batch, &ids);
        observed.push(begin.elapsed().as_nanos() as f64 / ids.len() as f64);
        let begin = Instant::now();
        analyzer.evaluate(ts, &Formula);
        evaluated.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let first = observed.remove(0);
    observed.sort_by(f64::total_cmp);
    evaluated.sort_by(f64::total_cmp);
    println!("first sight: {first:.0} ns/series");
    println!("observe: median {:.0} ns/sample", observed[observed.len() / 2]);
    println!("evaluate {RESOURCES} resources, 1 % climbing: median {:.0} ms", evaluated[evaluated.len() / 2]);
    let begin = Instant::now();
    let snapshot = analyzer.snapshot();
    println!(
        "snapshot: {} bytes/resource in {:.0} ms",
        snapshot.len() / RESOURCES,
        begin.elapsed().as_secs_f64() * 1e3
    );
    for ((resource, state), n) in analyzer.counts() {
        println!("{resource} {state}: {n}");
    }
    Ok(())
}
