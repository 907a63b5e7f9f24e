//! `kill -9` in a loop while batches go in, checked against a ledger of what was acknowledged.
//!
//! The child is this test binary itself: the pipeline of the real binary, without listener and collectors. It writes a
//! line to the ledger after each acknowledgement; a line needs no sync, since the machine stays up.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forewarn::config::Config;
use forewarn::data_dir::DataDir;
use forewarn::pipeline::Pipeline;
use forewarn_ingest::clock::SystemClock;
use forewarn_ingest::edge::{Intake as _, Urgency};
use forewarn_schemas::{Batch, Clock, Labels};
use futures::TryStreamExt as _;
use prometheus::Registry;
use rand::{Rng as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

use crate::support::{Process, progress};

const CHILD: &str = "FOREWARN_KILL_CHILD";
const WORKERS: u64 = 4;
const SERIES: u64 = 10;

async fn open(dir: &Path) -> Pipeline {
    let mut config = Config::default();
    // As often as can be, so that kills hit flushes and truncations too.
    config.store.flush_interval = Duration::from_secs(1);
    config.forecast.step = Duration::from_secs(1);
    let data = DataDir::open(&dir.join("data")).unwrap();
    let clock = Arc::new(SystemClock::new());
    Pipeline::open(
        &config,
        data,
        clock,
        &Registry::new(),
        "http://localhost",
        &Arc::default(),
        CancellationToken::new(),
    )
    .await
    .unwrap()
}

/// Does nothing unless the campaign started it.
#[test]
fn child_of_the_campaign() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pipeline = open(&dir).await;
        let ledger = std::fs::OpenOptions::new().append(true).create(true).open(dir.join("ledger")).unwrap();
        // No two rounds write the same number.
        let first = 1_000_000 * u64::from(std::process::id());
        let workers = (0..WORKERS).map(|worker| {
            let (edge, mut ledger) = (pipeline.edge.clone(), ledger.try_clone().unwrap());
            async move {
                let clock = SystemClock::new();
                for i in first.. {
                    let mut batch = Batch::default();
                    for s in 0..SERIES {
                        let labels =
                            [("node", format!("n{worker}")), ("worker", worker.to_string()), ("s", s.to_string())];
                        let labels = labels.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>();
                        batch.push(Labels::series("ledger", &labels).unwrap(), clock.now(), i as f64);
                    }
                    let accepted = edge.submit("ledger", batch, Urgency::Waiting).await.unwrap();
                    assert_eq!(accepted.samples as u64, SERIES);
                    ledger.write_all(format!("{worker} {i}\n").as_bytes()).unwrap();
                    // The clock must move on: a second value at the same millisecond would be a conflict.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        });
        futures::future::join_all(workers).await;
    });
}

fn spawn_child(dir: &Path) -> Process {
    Process::spawn(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_of_the_campaign", "--nocapture"])
            .env(CHILD, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit()),
    )
}

/// Opens what the kill left and compares it with the ledger; returns how long it took to be ready.
async fn verify(dir: &Path, ledger: &BTreeMap<(u64, u64), ()>) -> Duration {
    let began = Instant::now();
    let pipeline = open(dir).await;
    pipeline.caught_up().await;
    let ready = began.elapsed();
    let limits = forewarn_store::SqlLimits { rows: 100_000_000, ..forewarn_store::SqlLimits::default() };
    let query = "SELECT labels['worker'], value, count(*) FROM samples WHERE metric = 'ledger' GROUP BY labels['worker'], value";
    let batches: Vec<_> = pipeline.store.sql(query, limits).await.unwrap().try_collect().await.unwrap();
    let mut found = BTreeMap::new();
    for row in batches.iter().flat_map(forewarn::api::sql::rows) {
        let key = (row[0].as_str().unwrap().parse::<u64>().unwrap(), row[1].as_f64().unwrap() as u64);
        found.insert(key, row[2].as_u64().unwrap());
    }
    for key in ledger.keys() {
        assert_eq!(found.get(key), Some(&SERIES), "acknowledged batch {key:?}");
    }
    // What was not acknowledged may be there or not, but a record is whole or absent, and never there twice.
    for (key, n) in &found {
        assert_eq!(*n, SERIES, "batch {key:?}");
    }
    pipeline.close().await;
    ready
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_kills() {
    let rounds: u32 = std::env::var("FOREWARN_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(20);
    let seed = std::env::var("FOREWARN_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_124);
    progress(&format!("{rounds} kills, seed {seed}"));
    let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
    let temp = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut slowest, mut acknowledged) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let mut child = spawn_child(temp.path());
        // One in ten is killed while it starts.
        let life = if rng.random_ratio(1, 10) { rng.random_range(1..60) } else { rng.random_range(200..1_500) };
        std::thread::sleep(Duration::from_millis(life));
        assert!(child.0.try_wait().unwrap().is_none(), "the child ended by itself in round {round}");
        child.signal(9);
        child.wait(Duration::from_secs(10));
        let Ok(text) = std::fs::File::open(temp.path().join("ledger")) else { continue };
        // A kill may cut the last line; what it says was acknowledged all the same, but cannot be read.
        let ledger = std::io::BufReader::new(text)
            .lines()
            .map_while(Result::ok)
            .filter_map(|l| l.split_once(' ').and_then(|(w, i)| Some(((w.parse().ok()?, i.parse().ok()?), ()))))
            .collect::<BTreeMap<_, _>>();
        acknowledged = ledger.len();
        if round % 5 == 4 || round + 1 == rounds {
            slowest = slowest.max(runtime.block_on(verify(temp.path(), &ledger)));
        }
    }
    assert!(acknowledged > 0, "no batch was ever acknowledged");
    progress(&format!(
        "{acknowledged} acknowledged batches all there; slowest to be ready: {} ms",
        slowest.as_millis()
    ));
}
