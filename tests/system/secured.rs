//! TLS, users and tokens on the real listener.

use std::time::Duration;

use crate::support::{Forewarn, PATIENCE, eventually};

const CERTIFICATE: &str = include_str!("fixtures/test-only.crt");
const KEY: &str = include_str!("fixtures/test-only.key");

#[test]
fn tls_tokens_and_roles_hold_on_the_wire() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("crt"), CERTIFICATE).unwrap();
    std::fs::write(temp.path().join("key"), KEY).unwrap();
    std::fs::write(temp.path().join("token"), "scraper-token\n").unwrap();
    let config = "
collectors: {host: {interval: 1s}, beam: {enabled: false}}
web:
  tls_server_config: {cert_file: crt, key_file: key}
  bearer_tokens: [{token_file: token, role: read}]
";
    let forewarn = Forewarn::start_without_waiting(temp.path(), config, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(CERTIFICATE.as_bytes()).unwrap()])
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let url = |path: &str| format!("https://localhost:{}{path}", forewarn.port);
    let status = |request: reqwest::RequestBuilder| {
        runtime.block_on(async { request.send().await.ok().map(|answer| answer.status().as_u16()) })
    };
    eventually("it is ready over TLS", PATIENCE, || status(client.get(url("/-/ready"))).filter(|s| *s == 200));
    assert_eq!(status(client.get(url("/metrics"))), Some(401));
    assert_eq!(status(client.get(url("/metrics")).bearer_auth("wrong")), Some(401));
    assert_eq!(status(client.get(url("/metrics")).bearer_auth("scraper-token")), Some(200));
    assert_eq!(status(client.post(url("/-/reload")).bearer_auth("scraper-token")), Some(403));
    assert_eq!(forewarn.get("/-/healthy").0, 0, "plain HTTP is not answered");
    let said = forewarn.read("stdout") + &forewarn.read("stderr");
    assert!(!said.contains("scraper-token"));
    assert!(forewarn.terminate().success());
}
