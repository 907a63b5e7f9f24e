use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use forewarn_schemas::{ByteSize, Offset, PartitionId};
use forewarn_vfs::{Fault, Open, SimVfs, StdVfs, Vfs};
use prometheus::Registry;

mod damage;

use super::conformance::{self, Subject};
use super::*;

const P: PartitionId = PartitionId(0);
const DIR: &str = "/log";

fn config(segment: u64) -> EmbeddedLogConfig {
    let default = EmbeddedLogConfig::default();
    EmbeddedLogConfig { segment_bytes_max: ByteSize(segment), free_bytes_min: ByteSize(0), ..default }
}

fn open_with(vfs: &SimVfs, partitions: u32, segment: u64) -> Result<(EmbeddedLog, Recovery), LogError> {
    EmbeddedLog::open(Arc::new(vfs.clone()), DIR, partitions, config(segment), &Registry::new())
}

fn open(vfs: &SimVfs) -> (EmbeddedLog, Recovery) {
    open_with(vfs, 1, 2048).unwrap()
}

fn record(i: u64) -> Bytes {
    Bytes::from(format!("{i:0100}"))
}

async fn fill(log: &EmbeddedLog, range: std::ops::Range<u64>) {
    for i in range {
        assert_eq!(log.append(P, record(i)).await.unwrap(), Offset(i));
    }
}

async fn all(log: &EmbeddedLog) -> Chunk {
    log.read(P, log.bounds(P).start, usize::MAX).await.unwrap()
}

fn records(range: std::ops::Range<u64>) -> Vec<(Offset, Bytes)> {
    range.map(|i| (Offset(i), record(i))).collect()
}

fn segment(base: u64) -> String {
    format!("{DIR}/0/{base:020}.seg")
}

/// Everything on the disk, to see that nothing changed.
fn contents(vfs: &SimVfs, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in vfs.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            out.extend(contents(vfs, &path));
        } else {
            out.push((path.display().to_string(), vfs.read(&path, u64::MAX).unwrap()));
        }
    }
    out
}

#[tokio::test]
async fn memory_log_conforms() {
    conformance::check(|| -> Subject { (Arc::new(MemoryLog::new(2)), Box::new(())) }).await;
}

#[tokio::test]
async fn embedded_log_conforms_on_a_real_disk() {
    conformance::check(|| -> Subject {
        let dir = tempfile::tempdir().unwrap();
        let opened = EmbeddedLog::open(Arc::new(StdVfs), dir.path(), 2, config(64 << 20), &Registry::new());
        (Arc::new(opened.unwrap().0), Box::new(dir))
    })
    .await;
}

/// Segments of a few records and a queue of a few more, so that the suite rolls, truncates and waits for room.
#[tokio::test]
async fn embedded_log_conforms_with_tiny_segments_and_queue() {
    conformance::check(|| -> Subject {
        let config = EmbeddedLogConfig { queue_bytes_max: ByteSize(1000), ..config(1500) };
        let opened = EmbeddedLog::open(Arc::new(SimVfs::new()), DIR, 2, config, &Registry::new());
        (Arc::new(opened.unwrap().0), Box::new(()))
    })
    .await;
}

#[tokio::test]
async fn reopens_with_everything_at_its_offset() {
    let vfs = SimVfs::new();
    let (log, recovery) = open(&vfs);
    assert_eq!(recovery, Recovery { bytes: 1024, ..Recovery::default() });
    fill(&log, 0..50).await;
    drop(log);
    let (log, recovery) = open(&vfs);
    assert_eq!((recovery.records, recovery.cut_bytes, recovery.gaps.len()), (50, 0, 0));
    assert_eq!(all(&log).await.records, records(0..50));
    fill(&log, 50..60).await;
    assert_eq!(all(&log).await.records, records(0..60));
}

#[tokio::test]
async fn offsets_go_on_after_everything_was_truncated() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs);
    fill(&log, 0..50).await;
    log.truncate(P, Offset(50)).await.unwrap();
    assert!(log.bounds(P).start > Offset(0));
    assert_eq!(vfs.list(Path::new("/log/0")).unwrap().len(), 1);
    drop(log);
    let (log, _) = open(&vfs);
    fill(&log, 50..51).await;
}

#[tokio::test]
async fn a_torn_end_is_cut_and_its_offsets_are_not_given_again() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs);
    fill(&log, 0..5).await;
    drop(log);
    vfs.flip(segment(0), 1024 + 4 * 128 + 60);
    let (log, recovery) = open(&vfs);
    assert_eq!((recovery.records, recovery.cut_bytes, recovery.gaps.len()), (4, 128, 0));
    assert_eq!(recovery.quarantined.len(), 1);
    assert_eq!(vfs.read(&recovery.quarantined[0], 1000).unwrap().len(), 128);
    assert_eq!(all(&log).await.records, records(0..4));
    let next = log.append(P, record(99)).await.unwrap();
    assert!(next > Offset(4), "{next}");
    drop(log);
    let (log, recovery) = open(&vfs);
    assert_eq!((recovery.cut_bytes, recovery.gaps.len(), recovery.quarantined.len()), (0, 0, 0));
    let chunk = all(&log).await;
    assert_eq!(chunk.records[4], (next, record(99)));
    assert!(chunk.gaps.is_empty(), "offsets that were never given are no loss");
}

#[tokio::test]
async fn damage_in_the_middle_costs_the_frames_it_touches() {
    let vfs = SimVfs::new();
    let (log, _) = open_with(&vfs, 1, 1 << 20).unwrap();
    fill(&log, 0..9).await;
    let at = |i: u64| 1024 + i * 128;
    // Two neighbours, and one alone.
    for i in [2, 3, 6] {
        vfs.flip(segment(0), at(i) + 100);
    }
    let (gaps, kept) = (vec![Offset(2)..Offset(4), Offset(6)..Offset(7)], [0, 1, 4, 5, 7, 8]);
    let check = |chunk: Chunk| {
        assert_eq!(chunk.records, kept.map(|i| (Offset(i), record(i))));
        assert_eq!((chunk.gaps, chunk.next), (gaps.clone(), Offset(9)));
    };
    check(all(&log).await);
    drop(log);
    for opening in 0..2 {
        let (log, recovery) = open(&vfs);
        assert_eq!(recovery.gaps, gaps.iter().map(|g| (P, g.clone())).collect::<Vec<_>>());
        assert_eq!(recovery.quarantined.len(), if opening == 0 { 2 } else { 0 });
        check(all(&log).await);
    }
    let (log, _) = open(&vfs);
    let chunk = log.read(P, Offset(3), 1).await.unwrap();
    assert_eq!((chunk.gaps, chunk.records), (vec![Offset(3)..Offset(4)], records(4..5)));
}

#[tokio::test]
async fn a_lost_end_of_an_older_segment_is_a_gap_and_so_is_a_lost_segment() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs);
    fill(&log, 0..30).await;
    drop(log);
    let bases: Vec<u64> =
        vfs.list(Path::new("/log/0")).unwrap().iter().map(|e| e.name[..20].parse().unwrap()).collect();
    assert!(bases.len() >= 4, "{bases:?}");
    vfs.open(Path::new(&segment(bases[0])), Open::Append).unwrap().truncate(1024 + 128 + 30).unwrap();
    vfs.remove(Path::new(&segment(bases[2]))).unwrap();
    let (log, recovery) = open(&vfs);
    let gaps = vec![Offset(1)..Offset(bases[1]), Offset(bases[2])..Offset(bases[3])];
    assert_eq!(recovery.gaps, gaps.iter().map(|g| (P, g.clone())).collect::<Vec<_>>());
    assert_eq!(recovery.cut_bytes, 0, "what is left of an acknowledged record is kept");
    let chunk = all(&log).await;
    assert_eq!(chunk.gaps, gaps);
    assert_eq!(chunk.records.len() as u64, 30 - (bases[1] - 1) - (bases[3] - bases[2]));
    fill(&log, 30..31).await;
}

#[tokio::test]
async fn a_segment_without_header_is_read_by_its_marker() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs);
    fill(&log, 0..5).await;
    drop(log);
    for at in [3, 512 + 3] {
        vfs.flip(segment(0), at);
    }
    let (log, recovery) = open(&vfs);
    assert_eq!((recovery.records, recovery.gaps.len(), recovery.cut_bytes), (5, 0, 0));
    assert_eq!(all(&log).await.records, records(0..5));
    assert!(log.append(P, record(5)).await.unwrap() >= Offset(5));
}

#[tokio::test]
async fn a_newer_version_another_shape_or_a_stray_segment_is_refused_untouched() {
    let vfs = SimVfs::new();
    let (log, _) = open_with(&vfs, 2, 2048).unwrap();
    fill(&log, 0..30).await;
    drop(log);
    let before = contents(&vfs, Path::new("/"));
    for asked in [1, 3] {
        let e = open_with(&vfs, asked, 2048).unwrap_err();
        assert!(matches!(e, LogError::Partitions { .. }), "{e}");
    }
    assert_eq!(contents(&vfs, Path::new("/")), before);

    let copy = |from: &str, to: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let vfs = vfs.crash_states(0, 1).next().unwrap();
        let mut bytes = vfs.read(Path::new(from), u64::MAX).unwrap();
        change(&mut bytes);
        vfs.publish(Path::new(to), &bytes).unwrap();
        let before = contents(&vfs, Path::new("/"));
        let e = open_with(&vfs, 2, 2048).unwrap_err();
        assert_eq!(contents(&vfs, Path::new("/")), before);
        e
    };
    let newer = |bytes: &mut Vec<u8>| [8, 520].into_iter().for_each(|at| bytes[at] = 2);
    let e = copy(&segment(0), &segment(900), &newer);
    assert!(matches!(&e, LogError::Version { version: 2, .. }), "{e}");
    assert!(e.to_string().contains("00900.seg"), "{e}");
    let e = copy(&segment(0), &segment(900), &|_| {});
    assert!(matches!(e, LogError::Misplaced { base: Offset(0), .. }), "{e}");
}

#[tokio::test]
async fn a_full_disk_refuses_and_heals() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs);
    fill(&log, 0..3).await;
    let mut next = 3;
    // Full within a frame, within a new segment's header, and with nothing left at all.
    for room in [100, 128 + 5, 128 * 5 + 500, 0, 1024 + 128 * 8 + 1, 200] {
        let used = contents(&vfs, Path::new("/")).iter().map(|f| f.1.len() as u64).sum::<u64>();
        vfs.set_capacity(used + room);
        let refused = loop {
            match log.append(P, record(next)).await {
                Ok(offset) => assert_eq!(offset, Offset(next)),
                Err(e) => break e,
            }
            next += 1;
        };
        assert!(matches!(refused, LogError::NoSpace(_)), "{refused}");
        assert!(matches!(log.append(P, record(1000)).await, Err(LogError::NoSpace(_))));
        vfs.set_capacity(u64::MAX);
        fill(&log, next..next + 1).await;
        next += 1;
        assert_eq!(all(&log).await.records, records(0..next));
    }
    drop(log);
    let (log, recovery) = open(&vfs);
    assert_eq!((recovery.cut_bytes, recovery.gaps.len()), (0, 0));
    assert_eq!(all(&log).await.records, records(0..next));
}

#[tokio::test]
async fn space_is_left_to_others() {
    let vfs = SimVfs::new();
    vfs.set_capacity(1 << 20);
    let config = EmbeddedLogConfig { free_bytes_min: ByteSize(1 << 19), ..config(1 << 20) };
    let opened = EmbeddedLog::open(Arc::new(vfs.clone()), DIR, 1, config, &Registry::new());
    let (log, _) = opened.unwrap();
    let large = Bytes::from(vec![1; 100_000]);
    let mut kept = 0;
    while log.append(P, large.clone()).await.is_ok() {
        kept += 1;
    }
    assert_eq!(kept, 5);
    assert!(vfs.available(Path::new(DIR)).unwrap() >= 1 << 19);
}

/// A failure of each kind, at each call: the log closes, and what was acknowledged is there when it is opened again.
#[tokio::test]
async fn a_failed_write_or_sync_closes_the_log_for_good() {
    let kinds: [fn(u64) -> Fault; 3] = [Fault::Append, Fault::Sync, Fault::SyncDir];
    for (kind, fault) in kinds.into_iter().enumerate() {
        for nth in 0..40 {
            let vfs = SimVfs::new();
            let (log, _) = open(&vfs);
            vfs.fail(fault(nth));
            let mut acknowledged = 0;
            let failed = loop {
                match log.append(P, record(acknowledged)).await {
                    Ok(_) if acknowledged < 25 => acknowledged += 1,
                    Ok(_) => break None,
                    Err(e) => break Some(e),
                }
            };
            let Some(e) = failed else { continue };
            let ops = vfs.ops();
            assert!(matches!(e, LogError::Closed(_)) || kind == 0, "{e}");
            if matches!(e, LogError::Closed(_)) {
                assert!(matches!(log.append(P, record(0)).await, Err(LogError::Closed(_))));
                assert!(log.close().await.is_err());
                assert_eq!(vfs.ops(), ops, "nothing is written or synced after the failure");
            }
            assert_eq!(log.bounds(P).end, Offset(acknowledged));
            assert_eq!(all(&log).await.records, records(0..acknowledged));
            drop(log);
            for state in vfs.crash_states(1, 20) {
                let (log, recovery) = open(&state);
                assert!(recovery.gaps.is_empty());
                assert_eq!(all(&log).await.records[..acknowledged as usize], records(0..acknowledged));
            }
        }
    }
}

#[tokio::test]
async fn a_read_error_is_told_and_passes() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs);
    fill(&log, 0..5).await;
    vfs.fail(Fault::Read(0));
    let e = log.read(P, Offset(0), 100).await.unwrap_err();
    assert!(matches!(e, LogError::Io { .. }) && e.to_string().starts_with("read /log/0/0"), "{e}");
    assert_eq!(all(&log).await.records, records(0..5));
}

#[tokio::test]
async fn advancing_leaves_a_hole_that_is_no_loss() {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs);
    fill(&log, 0..3).await;
    assert_eq!(log.advance(P, Offset(2)).await.unwrap(), Offset(3));
    assert_eq!(log.advance(P, Offset(10)).await.unwrap(), Offset(10));
    assert_eq!(log.bounds(P), Offset(0)..Offset(10));
    let chunk = log.read(P, Offset(3), 100).await.unwrap();
    assert_eq!(chunk, Chunk { next: Offset(10), ..Chunk::default() });
    drop(log);
    let (log, recovery) = open(&vfs);
    assert!(recovery.gaps.is_empty());
    fill(&log, 10..12).await;
    let chunk = log.read(P, Offset(5), usize::MAX).await.unwrap();
    assert_eq!(chunk, Chunk { records: records(10..12), next: Offset(12), gaps: vec![] });
}

/// The segments of version 1 as they were first written; they must open for ever.
#[tokio::test]
async fn fixture_of_version_1_still_opens() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/segment-v1.seg");
    if std::env::var_os("FOREWARN_BLESS").is_some() {
        let vfs = SimVfs::new();
        let (log, _) = open(&vfs);
        fill(&log, 0..3).await;
        std::fs::write(fixture, vfs.read(Path::new(&segment(0)), u64::MAX).unwrap()).unwrap();
    }
    let vfs = SimVfs::new();
    vfs.create_dir_all(Path::new("/log/0")).unwrap();
    vfs.publish(Path::new(&segment(0)), &std::fs::read(fixture).unwrap()).unwrap();
    let (log, recovery) = open(&vfs);
    assert_eq!((recovery.records, recovery.cut_bytes), (3, 0));
    assert_eq!(all(&log).await.records, records(0..3));
    fill(&log, 3..4).await;
}

#[tokio::test]
async fn metrics_begin_at_zero_and_follow() {
    let registry = Registry::new();
    let vfs = SimVfs::new();
    let (log, _) = EmbeddedLog::open(Arc::new(vfs), DIR, 2, config(1 << 20), &registry).unwrap();
    let value = |name: &str| -> Vec<f64> {
        let families = registry.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap_or_else(|| panic!("{name}"));
        family.get_metric().iter().map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).collect()
    };
    assert_eq!(value("forewarn_log_records_total"), [0.0, 0.0]);
    assert_eq!(value("forewarn_log_refused_total"), [0.0; 4]);
    fill(&log, 0..3).await;
    assert_eq!(value("forewarn_log_records_total"), [3.0, 0.0]);
    assert_eq!(value("forewarn_log_end_offset"), [3.0, 0.0]);
    assert_eq!(value("forewarn_log_bytes"), [1024.0 + 3.0 * 128.0, 1024.0]);
    let again = EmbeddedLog::open(Arc::new(SimVfs::new()), DIR, 2, config(1 << 20), &registry);
    assert!(matches!(again, Err(LogError::Metrics(_))));
}
