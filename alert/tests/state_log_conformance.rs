//! One suite for every state log.

use std::path::Path;

use forewarn_alert::state_log::{Change, FORMAT_VERSION, Lagged};
use forewarn_alert::{EmbeddedStateLog, Error, MemoryStateLog, StateLog};
use serde_json::{Value, json};

fn keys(log: &dyn StateLog, prefix: &str) -> Vec<String> {
    log.scan(prefix).unwrap().into_iter().map(|(k, _)| k).collect()
}

/// What every back end must do.
fn conforms(log: &dyn StateLog) {
    assert_eq!(log.scan("").unwrap(), []);

    // Put replaces; scan is sorted and bounded by the prefix, which need not end at a slash.
    log.put("b/2", json!({"v": 1, "n": 1})).unwrap();
    log.put("b/1", json!({"v": 1})).unwrap();
    log.put("b0", json!({"v": 1})).unwrap();
    log.put("a", json!({"v": 1})).unwrap();
    log.put("b/2", json!({"v": 1, "text": "ü\u{0}\n", "n": 18446744073709551615u64, "f": 0.1})).unwrap();
    assert_eq!(keys(log, ""), ["a", "b/1", "b/2", "b0"]);
    assert_eq!(keys(log, "b/"), ["b/1", "b/2"]);
    assert_eq!(keys(log, "c"), [""; 0]);
    let (_, value) = &log.scan("b/2").unwrap()[0];
    assert_eq!(*value, json!({"v": 1, "text": "ü\u{0}\n", "n": 18446744073709551615u64, "f": 0.1}));

    // Idempotence.
    log.delete("a").unwrap();
    log.delete("a").unwrap();
    log.delete("never there").unwrap();
    log.write(&[]).unwrap();
    assert_eq!(keys(log, ""), ["b/1", "b/2", "b0"]);

    // A batch is applied in order, and its watchers see it in order, after it is there.
    let mut all = log.watch("");
    let mut some = log.watch("x/");
    let put = |key: &str, n: i64| Change::Put { key: key.into(), value: json!({"v": 1, "n": n}) };
    let delete = |key: &str| Change::Delete { key: key.into() };
    let batch = [put("x/1", 1), put("y", 2), delete("x/1"), put("x/1", 3), delete("b0")];
    log.write(&batch).unwrap();
    log.delete("x/1").unwrap();
    assert_eq!(keys(log, ""), ["b/1", "b/2", "y"]);
    let mut seen = Vec::new();
    while let Some(change) = all.try_next().unwrap() {
        seen.push((*change).clone());
    }
    assert_eq!(seen, [&batch[..], &[delete("x/1")]].concat());
    let mut seen = Vec::new();
    while let Some(change) = some.try_next().unwrap() {
        seen.push((*change).clone());
    }
    assert_eq!(seen, [put("x/1", 1), delete("x/1"), put("x/1", 3), delete("x/1")]);

    // A watcher that sleeps through too much is told so, and goes on.
    let mut late = log.watch("");
    for _ in 0..3 {
        log.write(&vec![put("z", 1); 1000]).unwrap();
    }
    assert_eq!(late.try_next(), Err(Lagged));
    assert_eq!(late.try_next().unwrap().as_deref(), Some(&put("z", 1)));

    // Long keys and large values.
    let long = format!("long/{}", "k".repeat(70_000));
    let large = json!({"v": 1, "text": "x".repeat(3 << 20)});
    log.put(&long, large.clone()).unwrap();
    assert_eq!(log.scan("long/").unwrap(), [(long, large)]);
}

fn embedded(path: &Path) -> EmbeddedStateLog {
    EmbeddedStateLog::open(path).unwrap()
}

#[test]
fn memory_conforms() {
    conforms(&MemoryStateLog::new());
}

#[test]
fn embedded_conforms_and_is_there_again_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let log = embedded(&path);
    conforms(&log);
    let before = log.scan("").unwrap();
    drop(log);
    assert_eq!(embedded(&path).scan("").unwrap(), before);
}

#[tokio::test]
async fn a_watch_waits_and_ends_with_its_log() {
    let log = MemoryStateLog::new();
    let mut watch = log.watch("a/");
    log.put("b", json!({"v": 1})).unwrap();
    log.put("a/1", json!({"v": 1})).unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().key(), "a/1");
    drop(log);
    assert_eq!(watch.next().await, Ok(None));
}

#[test]
fn what_was_written_survives_a_kill() {
    // A copy of the file while it is open is what a kill would leave: nothing was closed, nothing flushed at the end.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let log = embedded(&path);
    for n in 0..20 {
        log.put(&format!("k/{n:02}"), json!({"v": 1, "n": n})).unwrap();
        log.delete(&format!("k/{:02}", n / 2)).unwrap();
        let copy = dir.path().join(format!("copy-{n}.redb"));
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(embedded(&copy).scan("").unwrap(), log.scan("").unwrap(), "after write {n}");
    }
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let log = embedded(&path);
    assert!(matches!(EmbeddedStateLog::open(&path), Err(Error::Locked { .. })));
    drop(log);
    embedded(&path);
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    embedded(&path).put("k", json!({"v": 1})).unwrap();
    {
        let db = redb::Database::open(&path).unwrap();
        let transaction = db.begin_write().unwrap();
        let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
        transaction.open_table(meta).unwrap().insert("format", FORMAT_VERSION + 1).unwrap();
        transaction.commit().unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    let error = EmbeddedStateLog::open(&path).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found, .. } if found == FORMAT_VERSION + 1), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn damaged_bytes_are_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let log = embedded(&path);
    for n in 0..50 {
        log.put(&format!("k/{n}"), json!({"v": 1, "text": "x".repeat(200)})).unwrap();
    }
    let before = log.scan("").unwrap();
    drop(log);
    let good = std::fs::read(&path).unwrap();
    let used = good.iter().rposition(|b| *b != 0).unwrap();
    let bad = dir.path().join("bad.redb");
    let mut refused = 0;
    for at in (0..used).step_by(used / 200 + 1) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&bad, &bytes).unwrap();
        match EmbeddedStateLog::open(&bad).and_then(|log| log.scan("")) {
            // A byte that nothing refers to: all is there.
            Ok(records) => assert_eq!(records, before, "byte {at}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    for junk in [&b"not a database at all"[..], &good[..1000]] {
        std::fs::write(&bad, junk).unwrap();
        let error = EmbeddedStateLog::open(&bad).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. } | Error::Storage { .. }), "{error}");
    }
}

#[test]
fn a_value_that_is_no_json_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    embedded(&path).put("k/2", json!({"v": 1})).unwrap();
    {
        let db = redb::Database::open(&path).unwrap();
        let transaction = db.begin_write().unwrap();
        let records: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("records");
        transaction.open_table(records).unwrap().insert("k/1", &b"{"[..]).unwrap();
        transaction.commit().unwrap();
    }
    assert_eq!(
        embedded(&path).scan("k/").unwrap(),
        [("k/1".to_owned(), Value::Null), ("k/2".to_owned(), json!({"v": 1}))]
    );
}
