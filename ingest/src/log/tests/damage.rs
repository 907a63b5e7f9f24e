//! Every byte of a log is flipped. Below the public face, without threads, because that is 70,000 openings.

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
    for (path, content) in &files {
        for at in 0..content.len() {
            let bad = copy(&vfs);
            bad.flip(path, at as u64);
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
    }
}
