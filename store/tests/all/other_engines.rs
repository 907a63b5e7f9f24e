//! The history is plain Parquet: pyarrow and DuckDB restore every bit of it by the line in `docs/formats/block-v1.md`.
//!
//! Needs `python3` with `pyarrow` and `duckdb`: `tests/run` runs it where they are.

use std::process::Command;
use std::sync::Arc;

use forewarn_schemas::STALE_NAN;
use forewarn_store::LocalBlocks;
use forewarn_vfs::StdVfs;

use crate::support::*;

#[test]
fn needs_pyarrow_and_duckdb_to_restore_every_value() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(Arc::new(LocalBlocks::new(Arc::new(StdVfs), dir.path())));
    let base = 1_700_000_000_000i64;
    let specials =
        [STALE_NAN, f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE, 5e-324, f64::from_bits(0x7ff8_dead_beef_0001)];
    let make: [(&str, Box<dyn Fn(i64) -> f64>); 6] = [
        ("integers", Box::new(|i| (1_000_000 + i * 37 % 101) as f64)),
        ("large", Box::new(|i| (1i64 << 55) as f64 + (i * 64) as f64)),
        ("cents", Box::new(|i| (i * 7919 - 3_000_000) as f64 / 100.0)),
        ("micro", Box::new(|i| (i * 104_729) as f64 / 1e6)),
        ("floats", Box::new(|i| (i as f64 * 0.1).sin())),
        (
            "specials",
            Box::new(move |i| if i % 3 == 0 { specials[i as usize / 3 % specials.len()] } else { i as f64 / 10.0 }),
        ),
    ];
    let mut expected = Vec::new();
    let mut all = Vec::new();
    for (name, value) in &make {
        let samples: Vec<(i64, f64)> = (0..3000).map(|i| (base + i * 10_000, value(i))).collect();
        expected.extend(samples.iter().map(|(t, v)| format!("{name},a,{t},{:016x}", v.to_bits())));
        all.push((labels(name, "a"), samples));
    }
    let borrowed: Vec<_> = all.iter().map(|(l, s)| (l.clone(), s.as_slice())).collect();
    append(&store, 0, &record(1, &borrowed));
    store.flush(P0, None).unwrap();
    assert!(store.stats()[0].blocks > 1);
    expected.sort();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/other_engines.py");
    for engine in ["pyarrow", "duckdb"] {
        let out = Command::new("python3").args([script, engine]).arg(dir.path().join("p0/blocks")).output().unwrap();
        assert!(out.status.success(), "{engine}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let mut found: Vec<String> = text.lines().map(str::to_owned).collect();
        found.sort();
        assert_eq!(found.len(), expected.len(), "{engine}");
        for (f, e) in found.iter().zip(&expected) {
            assert_eq!(f, e, "{engine}");
        }
    }
}
