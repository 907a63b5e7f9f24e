//! Every back end of `BlockStore` keeps the same contract.

use std::path::Path;
use std::sync::Arc;

use forewarn_store::{BlockStore, LocalBlocks, MemoryBlocks, StoreError};
use forewarn_vfs::{Fault, Open, SimVfs, StdVfs, Vfs};

fn conforms(blocks: &dyn BlockStore) {
    assert_eq!(blocks.list("").unwrap(), []);
    assert!(matches!(blocks.bytes("a/b"), Err(StoreError::NotFound(_))));
    assert!(matches!(blocks.get("a/b", 0..1), Err(StoreError::NotFound(_))));
    blocks.delete("a/b").unwrap();

    blocks.put("a/b", b"hello").unwrap();
    blocks.put("a/b", b"hello").unwrap();
    assert!(matches!(blocks.put("a/b", b"other"), Err(StoreError::AlreadyExists(_))));
    assert!(matches!(blocks.put("a/b", b"hell"), Err(StoreError::AlreadyExists(_))));
    assert_eq!(blocks.get_all("a/b").unwrap(), "hello");
    assert_eq!(blocks.get("a/b", 1..3).unwrap(), "el");
    assert_eq!(blocks.get("a/b", 5..5).unwrap(), "");
    assert!(matches!(blocks.get("a/b", 3..6), Err(StoreError::Damaged { .. })));
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
    let reversed = 3..2;
    assert!(matches!(blocks.get("a/b", reversed), Err(StoreError::Damaged { .. })));
    assert_eq!(blocks.bytes("a/b").unwrap(), 5);

    blocks.put_if_absent("a/c/1", b"x").unwrap();
    assert!(matches!(blocks.put_if_absent("a/c/1", b"x"), Err(StoreError::AlreadyExists(_))));
    assert_eq!(blocks.get_all("a/c/1").unwrap(), "x");
    blocks.put("ab", b"").unwrap();

    let names = |dir: &str| blocks.list(dir).unwrap().into_iter().map(|o| (o.path, o.bytes)).collect::<Vec<_>>();
    assert_eq!(names("a"), [("a/b".into(), 5), ("a/c/1".into(), 1)]);
    assert_eq!(names("a/c"), [("a/c/1".into(), 1)]);
    assert_eq!(names(""), [("a/b".into(), 5), ("a/c/1".into(), 1), ("ab".into(), 0)]);
    assert_eq!(names("nowhere"), []);

    blocks.delete("a/b").unwrap();
    blocks.delete("a/b").unwrap();
    assert_eq!(names("a"), [("a/c/1".into(), 1)]);
    blocks.put_if_absent("a/b", b"again").unwrap();
    assert_eq!(blocks.discard_partial("").unwrap(), 0);
    assert_eq!(blocks.get_all("a/b").unwrap(), "again");

    for bad in ["", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/", "a b", "x.tmp", "a\0", "ä"] {
        assert!(matches!(blocks.put(bad, b""), Err(StoreError::Path(_))), "{bad:?}");
        assert!(matches!(blocks.put_if_absent(bad, b""), Err(StoreError::Path(_))), "{bad:?}");
        assert!(matches!(blocks.get(bad, 0..0), Err(StoreError::Path(_))), "{bad:?}");
        assert!(matches!(blocks.delete(bad), Err(StoreError::Path(_))), "{bad:?}");
    }
}

#[test]
fn memory() {
    conforms(&MemoryBlocks::new());
}

#[test]
fn local_on_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&LocalBlocks::new(Arc::new(StdVfs), dir.path().join("made/by/need")));
}

#[test]
fn local_simulated() {
    conforms(&LocalBlocks::new(Arc::new(SimVfs::new()), "/data/store"));
}

#[test]
fn what_was_put_survives_every_crash_whole() {
    let vfs = SimVfs::new();
    let blocks = LocalBlocks::new(Arc::new(vfs.clone()), "/data");
    blocks.put("p/a", b"first").unwrap();
    let before = vfs.ops();
    let count = {
        blocks.put_if_absent("p/b", b"second object").unwrap();
        vfs.ops() - before
    };
    for n in 0..=count {
        let vfs = SimVfs::new();
        let blocks = LocalBlocks::new(Arc::new(vfs.clone()), "/data");
        blocks.put("p/a", b"first").unwrap();
        vfs.crash_after(vfs.ops() + n);
        let done = blocks.put_if_absent("p/b", b"second object").is_ok();
        for after in vfs.crash_states(7, 200) {
            let blocks = LocalBlocks::new(Arc::new(after), "/data");
            assert_eq!(blocks.get_all("p/a").unwrap(), "first");
            match blocks.get_all("p/b") {
                Ok(found) => assert_eq!(found, "second object"),
                Err(e) => assert!(!done && matches!(e, StoreError::NotFound(_)), "after {n} calls: {e}"),
            }
            blocks.discard_partial("").unwrap();
            blocks.put("p/b", b"second object").unwrap();
        }
    }
}

#[test]
fn a_failure_says_whether_something_was_published() {
    let faults = [Fault::Open(0), Fault::Append(0), Fault::Sync(0), Fault::Rename(0)];
    for fault in faults {
        let vfs = SimVfs::new();
        let blocks = LocalBlocks::new(Arc::new(vfs.clone()), "/data");
        blocks.put("p/a", b"first").unwrap();
        vfs.fail(fault);
        let error = blocks.put("p/b", b"second").unwrap_err();
        assert!(error.is_retryable(), "{fault:?}: {error}");
        assert!(matches!(blocks.bytes("p/b"), Err(StoreError::NotFound(_))), "{fault:?}");
        blocks.put("p/b", b"second").unwrap();
    }
    let vfs = SimVfs::new();
    let blocks = LocalBlocks::new(Arc::new(vfs.clone()), "/data");
    blocks.put("p/a", b"first").unwrap();
    vfs.fail(Fault::SyncDir(0));
    assert!(matches!(blocks.put("p/b", b"second"), Err(StoreError::Uncertain { .. })));

    vfs.set_capacity(12);
    let full = blocks.put("p/c", b"too much for it");
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    assert!(matches!(blocks.bytes("p/c"), Err(StoreError::NotFound(_))));
}

#[test]
fn unfinished_puts_are_hidden_and_discarded() {
    let vfs = SimVfs::new();
    vfs.create_dir_all(Path::new("/data/p")).unwrap();
    vfs.open(Path::new("/data/p/x.parquet.tmp"), Open::CreateNew).unwrap().append(b"half").unwrap();
    let blocks = LocalBlocks::new(Arc::new(vfs), "/data");
    assert_eq!(blocks.list("").unwrap(), []);
    assert_eq!(blocks.discard_partial("p").unwrap(), 1);
    assert_eq!(blocks.discard_partial("p").unwrap(), 0);
}
