//! A store directory of format 1, written once, opens for ever after and gives the same rows.
//!
//! `FOREWARN_BLESS=1` writes it anew, which is only right while format 1 is not released.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forewarn_schemas::{Offset, PartitionId, STALE_NAN};
use forewarn_store::{LocalBlocks, Store, StoreConfig};
use forewarn_vfs::StdVfs;

use crate::support::*;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/store-v1");
const DAY: i64 = 86_400_000;

fn on(dir: &Path) -> Arc<LocalBlocks> {
    Arc::new(LocalBlocks::new(Arc::new(StdVfs), dir))
}

fn write(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
    let config = StoreConfig { manifest_full_every: 2, ..StoreConfig::default() };
    let store = open_with(on(dir), 2, config).unwrap();
    for p in 0..2u32 {
        let node = format!("n{p}@host");
        for flush in 0..3i64 {
            let at = 20_000 * DAY + flush * 3_600_000;
            let ints: Vec<(i64, f64)> = (0..6).map(|i| (at + i * 10_000, (100 * flush + i) as f64)).collect();
            let cents: Vec<(i64, f64)> = (0..6).map(|i| (at + i * 10_000, (flush * 6 + i) as f64 / 100.0)).collect();
            let floats = [(at, 1.0 / 3.0), (at + 1, f64::INFINITY), (at + 2, -0.0), (at + 3, STALE_NAN)];
            let new = labels(&format!("born_in_{flush}"), &node);
            let disk = labels("disk_used_bytes", &node).with("mount", "/var").unwrap();
            let all = [(disk, ints.as_slice()), (labels("load1", &node), &cents), (new, &floats[..])];
            store.append(PartitionId(p), Offset(flush as u64), &record(at, &all)).unwrap();
            store.flush(PartitionId(p), Some(format!("snapshot {p}.{flush}").into())).unwrap();
        }
    }
    fs::write(dir.join("rows.txt"), rows(&store).join("\n") + "\n").unwrap();
}

fn rows(store: &Store) -> Vec<String> {
    let mut out = Vec::new();
    for p in (0..store.partitions()).map(PartitionId) {
        let snapshot = String::from_utf8(store.snapshot(p).unwrap().to_vec()).unwrap();
        out.push(format!("partition {p} checkpoint {} snapshot {snapshot:?}", store.checkpoint(p)));
        for (id, labels) in store.series(p) {
            for s in store.history(p, id, forewarn_schemas::TimeRange::ALL).unwrap() {
                out.push(format!("{p} {} {labels} {} {:016x}", id.0, s.ts.as_millis(), s.value.to_bits()));
            }
        }
    }
    out
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_store_of_format_1_still_opens() {
    let fixture = Path::new(FIXTURE);
    if std::env::var_os("FOREWARN_BLESS").is_some() {
        write(fixture);
    }
    let expected = fs::read_to_string(fixture.join("rows.txt")).unwrap();
    let reader = Store::open_read_only(on(fixture), StoreConfig::default()).unwrap();
    assert_eq!(rows(&reader).join("\n") + "\n", expected);
    assert_eq!(reader.problems(), []);

    let dir = tempfile::tempdir().unwrap();
    copy(fixture, dir.path());
    let store = open_with(on(dir.path()), 2, StoreConfig::default()).unwrap();
    assert_eq!(rows(&store).join("\n") + "\n", expected);
    assert_eq!(
        query(
            &store,
            "SELECT node, count(*), sum(value) FROM samples WHERE labels['mount'] = '/var' GROUP BY 1 ORDER BY 1"
        ),
        ["n0@host|18|1845.0", "n1@host|18|1845.0"]
    );
}
