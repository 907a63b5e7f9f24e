//! Start, first lines, history, stop.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Forewarn, PATIENCE, eventually, progress};

const HOST_ONLY: &str = "collectors: {host: {interval: 1s}, beam: {enabled: false}}\nforecast: {step: 1s}\n";

#[test]
fn from_nothing_to_a_history_that_survives_a_stop() {
    let temp = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let forewarn = Forewarn::start(temp.path(), HOST_ONLY);
    let count = |f: &Forewarn| f.sql("SELECT count(*) FROM samples")[0][0].as_u64().unwrap();
    eventually("the first sample", PATIENCE, || (count(&forewarn) > 0).then_some(()));
    progress(&format!("first sample {:.2} s after the start", began.elapsed().as_secs_f64()));

    let lines =
        eventually("the first lines", PATIENCE, || Some(forewarn.read("stdout")).filter(|l| l.contains("data ")));
    for part in ["forewarn ", "watching ", &format!("http://127.0.0.1:{}/metrics", forewarn.port), "forewarn-data"] {
        assert!(lines.contains(part), "{part:?} in {lines}");
    }
    let memory = eventually("the memory of this host", PATIENCE, || {
        forewarn.data("/api/v1/resources?resource=memory").as_array().unwrap().first().cloned()
    });
    assert!(memory["limit"].as_f64().unwrap() > memory["used"].as_f64().unwrap());
    let metrics = forewarn.get("/metrics").1;
    assert!(metrics.contains("forewarn_resources{resource=\"memory\",state="), "{metrics}");

    let before = count(&forewarn);
    assert!(forewarn.terminate().success(), "SIGTERM ends it with 0");
    let offline = Command::new(env!("CARGO_BIN_EXE_forewarn"))
        .args(["query", "SELECT count(*) AS n FROM samples", "--output", "csv", "--data"])
        .arg(temp.path().join("forewarn-data"))
        .output()
        .unwrap();
    let text = String::from_utf8(offline.stdout).unwrap();
    let kept: u64 = text.lines().nth(1).and_then(|l| l.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    assert!(kept >= before, "{kept} of {before}");

    let again = Forewarn::start(temp.path(), HOST_ONLY);
    assert!(count(&again) >= kept);
    again.kill();
    let after_kill = Forewarn::start(temp.path(), HOST_ONLY);
    assert!(count(&after_kill) >= kept);
}

#[test]
fn the_query_command_asks_a_running_server_in_every_shape() {
    let temp = tempfile::tempdir().unwrap();
    let forewarn = Forewarn::start(temp.path(), HOST_ONLY);
    eventually("a sample", PATIENCE, || {
        (forewarn.sql("SELECT count(*) FROM series WHERE metric = 'host_up'")[0][0] != 0).then_some(())
    });
    let ask = |sql: &str, shape: &str| {
        Command::new(env!("CARGO_BIN_EXE_forewarn"))
            .args(["query", sql, "--output", shape, "--url", &forewarn.url("")])
            .output()
            .unwrap()
    };
    let sql = "SELECT metric, value FROM samples WHERE metric = 'host_up' LIMIT 1";
    assert_eq!(String::from_utf8(ask(sql, "csv").stdout).unwrap(), "metric,value\r\nhost_up,1.0\r\n");
    assert!(String::from_utf8(ask(sql, "table").stdout).unwrap().contains("| host_up | 1.0   |"));
    assert!(String::from_utf8(ask(sql, "json").stdout).unwrap().contains("[\"host_up\",1.0]"));
    assert!(ask(sql, "arrow").stdout.len() > 100);
    let wrong = ask("SELECT nonsense FROM samples", "table");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("nonsense"));
    for refused in [
        "DROP TABLE samples",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "COPY samples TO '/tmp/x'",
    ] {
        assert_eq!(ask(refused, "table").status.code(), Some(1), "{refused}");
    }
}

#[test]
fn reload_applies_a_good_file_and_keeps_the_old_one_on_a_bad_one() {
    let temp = tempfile::tempdir().unwrap();
    let forewarn = Forewarn::start(temp.path(), HOST_ONLY);
    let file = temp.path().join("forewarn.yaml");
    std::fs::write(&file, format!("{HOST_ONLY}receivers: [{{name: a}}]\nroute: {{receiver: a}}\n")).unwrap();
    assert_eq!(forewarn.post("/-/reload", ""), (200, "configuration reloaded\n".into()));
    std::fs::write(&file, format!("{HOST_ONLY}query: {{timeout: 1m}}\n")).unwrap();
    assert!(forewarn.post("/-/reload", "").1.contains("a restart is needed for: query"));
    std::fs::write(&file, format!("{HOST_ONLY}route: {{receiver: nobody}}\nstoer: 1\n")).unwrap();
    let (status, text) = forewarn.post("/-/reload", "");
    assert_eq!(status, 500);
    assert!(text.contains("did you mean \"store\"") && text.contains("old configuration stays"), "{text}");
    forewarn.process.signal(1);
    eventually("SIGHUP is answered in the log", Duration::from_secs(10), || {
        forewarn.read("stderr").contains("not reloaded").then_some(())
    });
    assert_eq!(forewarn.get("/-/healthy").0, 200);
}
