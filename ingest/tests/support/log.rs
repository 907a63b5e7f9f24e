//! What the tests of the log share.

use std::sync::Arc;

use bytes::Bytes;
use forewarn_ingest::log::{EmbeddedLog, EmbeddedLogConfig, Log, Recovery};
use forewarn_schemas::{ByteSize, Offset, PartitionId};
use forewarn_vfs::Vfs;

pub(crate) const DIR: &str = "/log";

pub(crate) fn open(vfs: impl Vfs + 'static, partitions: u32, segment: u64) -> Result<(EmbeddedLog, Recovery), String> {
    let config = EmbeddedLogConfig {
        segment_bytes_max: ByteSize(segment),
        free_bytes_min: ByteSize(0),
        ..EmbeddedLogConfig::default()
    };
    EmbeddedLog::open(Arc::new(vfs), DIR, partitions, config, &prometheus::Registry::new()).map_err(|e| e.to_string())
}

/// Everything that can be read, in steps of a few records.
pub(crate) async fn read_all(log: &EmbeddedLog, p: PartitionId) -> Vec<(Offset, Bytes)> {
    let bounds = log.bounds(p);
    let (mut next, mut out) = (bounds.start, Vec::new());
    while next < bounds.end {
        let chunk = log.read(p, next, 5_000).await.unwrap();
        assert!(chunk.next > next, "a read below the end moves on");
        next = chunk.next;
        out.extend(chunk.records);
    }
    assert!(out.windows(2).all(|w| w[0].0 < w[1].0), "offsets rise");
    out
}
