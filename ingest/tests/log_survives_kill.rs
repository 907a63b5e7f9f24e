//! A child process appends to a log on a real disk and says what was acknowledged; it is killed at arbitrary moments,
//! opening included. Nothing that it said is lost, doubled or moved. `FOREWARN_ROUNDS` sets the number of kills.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forewarn_ingest::log::{EmbeddedLog, EmbeddedLogConfig, Log, Recovery};
use forewarn_schemas::{ByteSize, Offset, PartitionId};
use forewarn_vfs::StdVfs;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const CHILD: &str = "FOREWARN_TEST_CHILD_DIR";
const ROUND: &str = "FOREWARN_TEST_CHILD_ROUND";
const PARTITIONS: u32 = 2;

fn open(dir: &Path) -> (EmbeddedLog, Recovery) {
    let config = EmbeddedLogConfig { segment_bytes_max: ByteSize(50_000), ..EmbeddedLogConfig::default() };
    EmbeddedLog::open(Arc::new(StdVfs), dir, PARTITIONS, config, &prometheus::Registry::new()).unwrap()
}

/// The child; does nothing unless it is started as one.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let round = std::env::var(ROUND).unwrap();
    let (log, _) = open(Path::new(&dir));
    for n in 0u64.. {
        let p = PartitionId((n % 3 == 0).into());
        let answers: Vec<_> = (0..n % 9)
            .map(|i| {
                let record = format!("{round}-{n}-{i}-{}", "x".repeat((n * 131 % 900) as usize));
                (log.enqueue(p, Bytes::from(record.clone())).unwrap(), record)
            })
            .collect();
        let mut said = String::new();
        for (answer, record) in answers {
            said.push_str(&format!("ack {p} {} {record}\n", answer.await.unwrap()));
        }
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_doubled() {
    let rounds: u64 = std::env::var("FOREWARN_ROUNDS").map_or(25, |r| r.parse().unwrap());
    let seed = 7;
    println!("seed {seed}, {rounds} rounds");
    let mut rng = SmallRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<(u32, u64), String> = BTreeMap::new();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut acks = 0;
        let mut note = |line: String| {
            // A line may be cut by the kill; then its record was acknowledged but nobody heard.
            let parts: Vec<&str> = line.split(' ').collect();
            if let ["ack", p, offset, record] = parts[..] {
                acks += 1;
                let key = (p.parse().unwrap(), offset.parse().unwrap());
                assert!(acknowledged.insert(key, record.to_owned()).is_none(), "offset {key:?} was given twice");
            } else {
                assert!(!line.contains("panicked"), "round {round}: {line}");
            }
        };
        if rng.random_bool(0.2) {
            // In the middle of opening, perhaps.
            std::thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
        } else {
            for line in lines.by_ref().take(rng.random_range(1..600)) {
                note(line.unwrap());
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        let whole = rest.len().saturating_sub(1);
        rest.into_iter().take(whole).for_each(&mut note);

        let (log, recovery) = open(dir.path());
        assert!(recovery.gaps.is_empty() && recovery.torn.is_empty(), "round {round}: {recovery:?}");
        let mut seen = std::collections::BTreeSet::new();
        for p in 0..PARTITIONS {
            let (mut next, end) = (Offset(0), log.bounds(PartitionId(p)).end);
            while next < end {
                let chunk = log.read(PartitionId(p), next, 1 << 20).await.unwrap();
                for (offset, record) in &chunk.records {
                    let record = std::str::from_utf8(record).unwrap();
                    assert!(seen.insert(record.to_owned()), "round {round}: {record} is there twice");
                    let said = acknowledged.get(&(p, offset.0));
                    assert!(said.is_none_or(|s| s == record), "round {round}: another record at {offset}");
                }
                next = chunk.next;
            }
        }
        let lost = acknowledged.values().find(|r| !seen.contains(*r));
        assert!(lost.is_none(), "round {round}: lost {lost:?}");
    }
    assert!(acknowledged.len() > 500, "{}", acknowledged.len());
}
