//! A real Prometheus reads `/metrics`.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Forewarn, PATIENCE, Process, eventually, free_port};

const CONFIG: &str = "collectors: {host: {interval: 1s}, beam: {enabled: false}}\nforecast: {step: 1s}\n";

#[test]
fn needs_prometheus_promtool_accepts_the_metrics() {
    let temp = tempfile::tempdir().unwrap();
    let forewarn = Forewarn::start(temp.path(), CONFIG);
    eventually("resources", PATIENCE, || forewarn.get("/metrics").1.contains("forewarn_resources{").then_some(()));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(forewarn.get("/metrics").1.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.trim().is_empty(), "{text}");
}

#[test]
fn needs_prometheus_a_real_one_scrapes_it() {
    let temp = tempfile::tempdir().unwrap();
    let forewarn = Forewarn::start(temp.path(), CONFIG);
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: forewarn\n    honor_labels: true\n    static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
        forewarn.port
    );
    std::fs::write(temp.path().join("prometheus.yml"), config).unwrap();
    let port = free_port();
    let _prometheus = Process::spawn(
        Command::new("prometheus")
            .arg(format!("--config.file={}", temp.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", temp.path().join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |query: &str| -> Option<serde_json::Value> {
        let url = format!("http://127.0.0.1:{port}/api/v1/query?query={query}");
        let text = runtime.block_on(async { reqwest::get(url).await.ok()?.text().await.ok() })?;
        let v: serde_json::Value = serde_json::from_str(&text).ok()?;
        v["data"]["result"].as_array()?.first().cloned()
    };
    let patience = Duration::from_secs(60);
    let up = eventually("the target is up", patience, || ask("up").filter(|v| v["value"][1] == "1"));
    assert_eq!(up["metric"]["job"], "forewarn");
    eventually("the counts of resources", patience, || ask("sum(forewarn_resources)").filter(|v| v["value"][1] != "0"));
    assert!(ask("forewarn_start_time_seconds").is_some());
}
