//! A real browser shows the page.

use std::process::Command;

use crate::support::{Forewarn, PATIENCE, eventually};

#[test]
fn needs_browser_the_page_works_on_desk_and_phone_in_light_and_dark() {
    let temp = tempfile::tempdir().unwrap();
    let config = "collectors: {host: {interval: 1s}, beam: {enabled: false}}\nforecast: {step: 1s}\n";
    let forewarn = Forewarn::start(temp.path(), config);
    eventually("resources", PATIENCE, || {
        (!forewarn.data("/api/v1/resources").as_array().unwrap().is_empty()).then_some(())
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/page.mjs");
    let output = Command::new("node").arg(script).arg(forewarn.url("/")).arg(temp.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}
