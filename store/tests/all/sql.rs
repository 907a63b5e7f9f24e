//! SQL: what is asked, what is pruned, what is refused, what is limited.

use std::sync::Arc;
use std::time::Duration;

use forewarn_schemas::{ByteSize, Labels, Offset, PartitionId};
use forewarn_store::{MemoryBlocks, SqlLimits, Store, StoreConfig, StoreError};

use crate::support::*;

const HOUR: i64 = 3_600_000;
const T0: i64 = 1_767_225_600_000; // 2026-01-01T00:00:00Z

/// Two partitions; ten nodes with two mounts and a load; three flushed spans of two hours and a head.
fn fleet() -> Store {
    let store = open_with(Arc::new(MemoryBlocks::new()), 2, StoreConfig::default()).unwrap();
    for span in 0..4i64 {
        for p in 0..2u32 {
            let mut all: Vec<(Labels, Vec<(i64, f64)>)> = Vec::new();
            for n in (0..10).filter(|n| n % 2 == p) {
                let times = (0..6).map(|i| T0 + span * 2 * HOUR + i * 60_000);
                let node = format!("n{n}");
                for mount in ["/", "/var"] {
                    let l = labels("disk", &node).with("mount", mount).unwrap().with("family", "db").unwrap();
                    all.push((l, times.clone().map(|t| (t, f64::from(n))).collect()));
                }
                all.push((labels("load", &node), times.map(|t| (t, 0.5)).collect()));
            }
            let borrowed: Vec<_> = all.iter().map(|(l, s)| (l.clone(), s.as_slice())).collect();
            store.append(PartitionId(p), Offset(span as u64), &record(T0, &borrowed)).unwrap();
            if span < 3 {
                store.flush(PartitionId(p), None).unwrap();
            }
        }
    }
    store
}

fn explain(store: &Store, sql: &str) -> String {
    query(store, &format!("EXPLAIN {sql}")).join("\n")
}

fn refused(store: &Store, sql: &str) -> StoreError {
    runtime().block_on(query_within(store, sql, SqlLimits::default())).expect_err(sql)
}

#[test]
fn tables_have_the_columns_of_the_contract() {
    let store = fleet();
    let columns = |table: &str| {
        query(
            &store,
            &format!(
                "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{table}' ORDER BY ordinal_position"
            ),
        )
    };
    let names =
        |table: &str| columns(table).iter().map(|c| c.split('|').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names("samples"), ["ts", "metric", "node", "family", "labels", "value"]);
    assert_eq!(names("series"), ["metric", "node", "family", "labels", "first_ts", "last_ts"]);
    assert_eq!(query(&store, "SHOW TABLES").iter().filter(|l| l.contains("|public|")).count(), 2);
    let first =
        query(&store, "SELECT * FROM samples WHERE node = 'n3' AND labels['mount'] = '/var' ORDER BY ts LIMIT 1");
    assert_eq!(first, ["2026-01-01T00:00:00Z|disk|n3|db|{family: db, mount: /var, node: n3}|3.0"]);
    let series = query(&store, "SELECT * FROM series WHERE node = 'n4' ORDER BY metric, labels['mount'] LIMIT 1");
    assert_eq!(series, ["disk|n4|db|{family: db, mount: /, node: n4}|2026-01-01T00:00:00Z|2026-01-01T06:05:00Z"]);
    assert_eq!(query(&store, "SELECT count(*) FROM series"), ["30"]);
    assert_eq!(query(&store, "SELECT labels['nothing'] FROM series LIMIT 1"), ["null"]);
}

#[test]
fn answers_are_those_of_the_samples() {
    let store = fleet();
    let q = |sql: &str| query(&store, sql);
    assert_eq!(
        q("SELECT count(*), avg(value), min(ts), max(ts) FROM samples"),
        ["720|3.1666666666666665|2026-01-01T00:00:00Z|2026-01-01T06:05:00Z"]
    );
    assert_eq!(q("SELECT metric, count(*) FROM samples GROUP BY metric ORDER BY metric"), ["disk|480", "load|240"]);
    assert_eq!(q("SELECT family, count(*) FROM samples GROUP BY family ORDER BY 2 DESC LIMIT 1"), ["db|480"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE node IN ('n1', 'n2', 'n3', 'n4', 'n5', 'nx')"), ["360"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE node IN ('n1', 'n2')"), ["144"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE metric LIKE 'l%'"), ["240"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE metric ~ '^d.sk$' AND node != 'n0'"), ["432"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE labels['mount'] IS NULL"), ["240"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE labels['mount'] <> '/'"), ["240"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE metric = 'load' OR labels['mount'] = '/var'"), ["480"]);
    assert_eq!(
        q("SELECT labels['mount'] AS m, count(*), sum(value) FROM samples GROUP BY m ORDER BY m NULLS FIRST"),
        ["null|240|120.0", "/|240|1080.0", "/var|240|1080.0"]
    );
    assert_eq!(q("SELECT count(*) FROM samples WHERE labels['mount'] = '/' OR value > 8"), ["264"]);
    assert_eq!(q("SELECT DISTINCT labels['__name__'] FROM samples"), ["null"]);
    assert_eq!(
        q(
            "SELECT labels['mount'] AS m, labels, node, labels['family'] FROM samples WHERE node = 'n1' ORDER BY m LIMIT 1"
        ),
        ["/|{family: db, mount: /, node: n1}|n1|db"]
    );
    assert_eq!(
        q("SELECT upper(node), round(value) FROM samples WHERE metric = 'load' AND NOT isnan(value) LIMIT 1").len(),
        1
    );
    assert_eq!(q("SELECT count(*) FROM samples WHERE value > 8"), ["48"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE value > 8 OR metric = 'load'"), ["288"]);
    assert_eq!(
        q("SELECT count(*) FROM samples WHERE ts >= '2026-01-01T02:00:00Z' AND ts < '2026-01-01T02:01:00Z'"),
        ["30"]
    );
    assert_eq!(
        q("SELECT count(*) FROM samples WHERE ts > '2026-01-01T02:00:00Z' AND ts <= '2026-01-01T02:01:00Z'"),
        ["30"]
    );
    assert_eq!(
        q("SELECT count(*) FROM samples WHERE ts BETWEEN '2026-01-01T02:00:00Z' AND '2026-01-01T02:01:00Z'"),
        ["60"]
    );
    assert_eq!(q("SELECT count(*) FROM samples WHERE ts = '2026-01-01T02:01:00Z'"), ["30"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE ts >= to_timestamp('2026-01-01T06:05:00Z')"), ["30"]);
    assert_eq!(q("SELECT count(*) FROM samples WHERE ts > now() - interval '1 hour' AND ts > now()"), ["0"]);
    assert_eq!(
        q("SELECT date_trunc('hour', ts) AS h, count(*) FROM samples WHERE node = 'n1' GROUP BY h ORDER BY h LIMIT 1"),
        ["2026-01-01T00:00:00Z|18"]
    );
    assert_eq!(
        q("SELECT date_bin(interval '2 hours', ts), count(*) FROM samples GROUP BY 1 ORDER BY 1 DESC LIMIT 1"),
        ["2026-01-01T06:00:00Z|180"]
    );
    assert_eq!(
        q(
            "SELECT s.node, max(s.value) FROM samples s JOIN series r ON s.node = r.node AND s.metric = r.metric WHERE r.labels['mount'] = '/' AND s.node = 'n7' GROUP BY 1"
        ),
        ["n7|7.0"]
    );
    assert_eq!(q("SELECT count(*) FROM samples WHERE node = (SELECT max(node) FROM series)"), ["72"]);
    assert_eq!(q("SELECT count(*) FROM (SELECT * FROM samples LIMIT 7)"), ["7"]);
    assert_eq!(
        q("SELECT node || ':' || labels['mount'] FROM series WHERE node = 'n1' AND metric = 'disk' ORDER BY 1"),
        ["n1:/", "n1:/var"]
    );
}

#[test]
fn explain_shows_what_was_pruned() {
    let store = fleet();
    let plan = explain(
        &store,
        "SELECT ts, value FROM samples WHERE metric = 'disk' AND labels['mount'] = '/var' AND node = 'n3' AND ts >= '2026-01-01T02:00:00Z' AND ts < '2026-01-01T03:00:00Z'",
    );
    assert!(plan.contains("SamplesScan: series=1 of 30, blocks=1 of 6, heads=0"), "{plan}");
    assert!(plan.contains("time=[2026-01-01T02:00:00.000Z, 2026-01-01T03:00:00.000Z)"), "{plan}");
    assert!(plan.contains("columns=[ts, value]"), "{plan}");
    assert!(!plan.contains("FilterExec"), "{plan}");
    let plan = explain(&store, "SELECT count(*) FROM samples WHERE node = 'nowhere'");
    assert!(plan.contains("series=0 of 30, blocks=0 of 6, heads=0"), "{plan}");
    let plan = explain(&store, "SELECT sum(value) FROM samples WHERE ts >= to_timestamp('2026-01-01T06:00:00Z')");
    assert!(plan.contains("blocks=0 of 6, heads=2") && plan.contains("columns=[value]"), "{plan}");
    let plan = explain(&store, "SELECT labels['mount'] AS m, avg(value) FROM samples WHERE metric = 'disk' GROUP BY m");
    assert!(plan.contains("columns=[labels[mount], value]") && !plan.contains("get_field(labels@"), "{plan}");
    let plan = explain(&store, "SELECT count(*) FROM samples WHERE node LIKE 'n_' AND value > 3 LIMIT 5");
    assert!(plan.contains("FilterExec: value") && plan.contains("series=30 of 30"), "{plan}");
    let plan = explain(&store, "SELECT ts FROM samples LIMIT 5");
    assert!(plan.contains("limit=5"), "{plan}");
    let plan = explain(&store, "SELECT count(*) FROM series WHERE labels['mount'] = '/' AND family = 'db'");
    assert!(plan.contains("SeriesScan: series=10 of 30"), "{plan}");
}

#[test]
fn only_questions_are_answered() {
    let store = fleet();
    let target = std::env::temp_dir().join("forewarn-must-not-exist.csv");
    for sql in [
        "CREATE TABLE t (a INT)".to_owned(),
        "CREATE VIEW v AS SELECT 1".into(),
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'".into(),
        "DROP TABLE samples".into(),
        "INSERT INTO samples SELECT * FROM samples".into(),
        "DELETE FROM samples".into(),
        "UPDATE samples SET value = 0".into(),
        format!("COPY samples TO '{}'", target.display()),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{}'", target.display()),
        "SET datafusion.execution.batch_size = 1".into(),
        "PREPARE p AS SELECT 1".into(),
        "SELECT * FROM '/etc/passwd'".into(),
        "SELECT * FROM \"/etc/passwd.csv\"".into(),
        "SELECT 1; SELECT 2".into(),
        "SELEC 1".into(),
        "SELECT nothing FROM samples".into(),
        "SELECT * FROM nowhere".into(),
        "SELECT no_such_function(1)".into(),
        "SELECT repeat('x', 2000000000)".into(),
        String::new(),
    ] {
        let error = refused(&store, &sql);
        assert!(matches!(error, StoreError::Query(_)), "{sql}: {error:?}");
    }
    assert!(!target.exists());
    for sql in [
        "SHOW TABLES",
        "DESCRIBE samples",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT count(*) FROM samples",
        "VALUES (1)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
    ] {
        assert!(!query(&store, sql).is_empty(), "{sql}");
    }
}

#[test]
fn limits_end_a_query_with_a_reason() {
    let store = fleet();
    let run = |sql: &str, limits: SqlLimits| runtime().block_on(query_within(&store, sql, limits)).expect_err(sql);
    let wide = SqlLimits::default();
    let rows = run("SELECT ts FROM samples", SqlLimits { rows: 719, ..wide });
    assert_eq!(rows.to_string(), "query: more than 719 rows: add a LIMIT");
    let enough = SqlLimits { rows: 720, ..wide };
    assert!(runtime().block_on(query_within(&store, "SELECT ts FROM samples", enough)).is_ok());
    let big = "SELECT a.ts, b.ts, c.ts FROM samples a, samples b, samples c ORDER BY a.value + b.value * c.value";
    let memory = run(big, SqlLimits { memory: ByteSize::mib(1), ..wide });
    assert!(matches!(&memory, StoreError::Limit(m) if m.starts_with("its memory")), "{memory:?}");
    let time = run(
        "SELECT sum(a.value * b.value * c.value) FROM samples a, samples b, samples c",
        SqlLimits { time: Duration::from_millis(300), ..wide },
    );
    assert_eq!(time.to_string(), "query: more than 300ms");
}

#[test]
fn an_empty_store_answers() {
    let store = open(Arc::new(MemoryBlocks::new()));
    assert_eq!(query(&store, "SELECT count(*) FROM samples"), ["0"]);
    assert_eq!(query(&store, "SELECT count(*) FROM series WHERE node = 'x'"), ["0"]);
    assert!(query(&store, "SELECT * FROM samples").is_empty());
}
