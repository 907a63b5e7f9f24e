//! Bytes of a log are flipped, one at a time. Below the public face, because that is tens of thousands of openings.

use super::super::frame::FRAME_OVERHEAD;
use super::super::recovery::inspect;
use super::super::writer::Shared;
use super::*;
use crate::metrics::LogMetrics;

const SEGMENT: u64 = 17_000;

/// Deterministic records of 0 to 799 bytes, a fifth of them zeros.
fn varied() -> Vec<Bytes> {
    (0..160u32)
        .map(|i| {
            let size = (i as usize * 131) % 800;
            (0..size).map(|j| if i % 5 == 0 { 0 } else { (i as usize * 31 + j * 7) as u8 }).collect::<Vec<u8>>().into()
        })
        .collect()
}

fn copy(vfs: &SimVfs) -> SimVfs {
    vfs.crash_states(0, 1).next().unwrap()
}

#[tokio::test]
async fn a_flipped_byte_costs_one_record_at_most() {
    let records = varied();
    let vfs = SimVfs::new();
    let (log, _) = open_with(&vfs, 1, SEGMENT).unwrap();
    for r in &records {
        log.append(P, r.clone()).await.unwrap();
    }
    drop(log);
    let files = contents(&vfs, Path::new(DIR));
    let bytes: usize = files.iter().map(|f| f.1.len()).sum();
    assert!(files.len() >= 4 && bytes > 64 << 10, "{} files of {bytes} bytes", files.len());
    let metrics = LogMetrics::new(&Registry::new(), 1).unwrap();
    let all = std::env::var_os("FOREWARN_EVERY_BYTE").is_some();
    let places: Vec<(&str, u64)> = files
        .iter()
        .flat_map(|(path, content)| {
            let every = if all { 1 } else { 13 };
            let framing = framing(content);
            let picked = move |at: &usize| framing[*at] || at.is_multiple_of(every);
            (0..content.len()).filter(picked).map(|at| (path.as_str(), at as u64))
        })
        .collect();
    std::thread::scope(|scope| {
        for half in places.chunks(places.len().div_ceil(2)) {
            let (vfs, records, metrics) = (copy(&vfs), &records, &metrics);
            scope.spawn(move || half.iter().for_each(|(path, at)| flip_and_check(&vfs, path, *at, records, metrics)));
        }
    });
}

/// Marks the bytes that are not content of a record: of those every one is flipped in every run, of the others every
/// 13th, and all when the environment has `FOREWARN_EVERY_BYTE`.
fn framing(content: &[u8]) -> Vec<bool> {
    let mut marks = vec![false; content.len()];
    marks[..1024].fill(true);
    let mut at = 1024;
    while at < content.len() {
        marks[at..at + FRAME_OVERHEAD].fill(true);
        at += FRAME_OVERHEAD + u32::from_le_bytes(content[at + 20..at + 24].try_into().unwrap()) as usize;
    }
    marks
}

fn flip_and_check(vfs: &SimVfs, path: &str, at: u64, records: &[Bytes], metrics: &LogMetrics) {
    let bad = copy(vfs);
    bad.flip(path, at);
    let shared = Shared::new(Arc::new(bad), config(SEGMENT), 1, metrics.clone());
    let inspection = inspect(&*shared.vfs, Path::new(DIR), 1).unwrap();
    let (mended, recovery) = inspection.mend(&shared, Path::new(DIR)).unwrap();
    let chunk = mended[0].partition.read(Offset(0), usize::MAX).unwrap();
    for (offset, record) in &chunk.records {
        assert_eq!(*record, records[offset.0 as usize], "byte {at} of {path}: at {offset}");
    }
    let lost = records.len() - chunk.records.len();
    assert!(lost <= 1, "byte {at} of {path}: {lost} lost");
    let told = recovery.gaps.len() + usize::from(recovery.cut_bytes > 0);
    assert_eq!((told, recovery.torn.len()), (lost, 0), "byte {at} of {path}: a loss is told, and nothing else");
    assert_eq!(recovery.gaps.iter().map(|g| g.1.clone()).collect::<Vec<_>>(), chunk.gaps);
}
