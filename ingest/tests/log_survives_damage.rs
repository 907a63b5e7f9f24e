//! A log is cut at every length of its last segment, and overwritten at random: a cut leaves a prefix, what is read is
//! right, and nothing panics. (Single flipped bytes: `src/log/tests/damage.rs`.)

#[path = "support/log.rs"]
mod support;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use forewarn_ingest::log::Log;
use forewarn_schemas::{Offset, PartitionId};
use forewarn_vfs::{Open, SimVfs, Vfs};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use support::{DIR, open, read_all};

const P: PartitionId = PartitionId(0);
const SEGMENT: u64 = 6_000;

/// Deterministic records of 0 to 799 bytes, a fifth of them zeros.
fn records() -> Vec<Bytes> {
    (0..50u32)
        .map(|i| {
            let size = (i as usize * 131) % 800;
            (0..size).map(|j| if i % 5 == 0 { 0 } else { (i as usize * 31 + j * 7) as u8 }).collect::<Vec<u8>>().into()
        })
        .collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn log_of(records: &[Bytes]) -> SimVfs {
    let vfs = SimVfs::new();
    let (log, _) = open(vfs.clone(), 1, SEGMENT).unwrap();
    runtime().block_on(async {
        for r in records {
            log.append(P, r.clone()).await.unwrap();
        }
    });
    drop(log);
    vfs
}

fn copy(vfs: &SimVfs) -> SimVfs {
    vfs.crash_states(0, 1).next().unwrap()
}

fn segments(vfs: &SimVfs) -> Vec<(PathBuf, u64)> {
    let dir = Path::new(DIR).join("0");
    vfs.list(&dir).unwrap().into_iter().map(|e| (dir.join(e.name), e.bytes)).collect()
}

/// Opens a damaged log; every record found is right. Returns the offsets of them.
async fn check(vfs: &SimVfs, records: &[Bytes], context: &str) -> Vec<u64> {
    let (log, _) = open(vfs.clone(), 1, SEGMENT).unwrap_or_else(|e| panic!("{context}: {e}"));
    let found = read_all(&log, P).await;
    for (offset, record) in &found {
        assert_eq!(Some(record), records.get(offset.0 as usize), "{context}: at {offset}");
    }
    let next = log.append(P, Bytes::from_static(b"next")).await.unwrap();
    assert!(next >= Offset(found.last().map_or(0, |r| r.0.0 + 1)), "{context}");
    found.iter().map(|r| r.0.0).collect()
}

#[test]
fn a_log_cut_at_any_byte_replays_to_a_prefix() {
    let records = records();
    let vfs = log_of(&records);
    let (path, bytes) = segments(&vfs).pop().unwrap();
    let runtime = runtime();
    let mut before = 0;
    for len in 0..bytes {
        let cut = copy(&vfs);
        cut.open(&path, Open::Append).unwrap().truncate(len).unwrap();
        let context = format!("cut to {len}");
        let offsets = runtime.block_on(check(&cut, &records, &context));
        let found = offsets.len();
        assert!(offsets.into_iter().eq(0..found as u64), "{context}: not a prefix");
        assert!(found >= before, "{context}: a longer file has no fewer records");
        before = found;
    }
    assert_eq!(before, records.len() - 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    /// Ranges overwritten with garbage, zeros or other parts of the log: what is read is right, whatever is lost.
    #[test]
    fn overwritten_ranges_never_make_a_wrong_record(
        damage in prop::collection::vec((any::<u64>(), 1u64..5000, any::<u8>()), 1..4)
    ) {
        let records = records();
        let vfs = log_of(&records);
        for (at, len, how) in damage {
            let files = segments(&vfs);
            let (path, bytes) = &files[at as usize % files.len()];
            let mut content = vfs.read(path, u64::MAX).unwrap();
            let start = at % bytes;
            let end = (start + len).min(*bytes);
            for i in start..end {
                content[i as usize] = match how % 3 {
                    0 => 0,
                    1 => how,
                    _ => content[(i as usize * 7 + 13) % content.len()],
                };
            }
            vfs.remove(path).unwrap();
            vfs.publish(path, &content).unwrap();
        }
        prop_assert!(!runtime().block_on(check(&vfs, &records, "overwritten")).is_empty());
    }
}
