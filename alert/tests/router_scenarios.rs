//! The router's behaviour as data: every file of `tests/scenarios`, as it is and with a restart at every step.

mod common;

use std::panic::catch_unwind;

#[test]
fn every_scenario_with_and_without_restarts() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    assert!(paths.len() >= 12, "the scenarios are there");
    let mut failed = Vec::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).unwrap();
        for restart_always in [false, true] {
            // A restart loses what a receiver never answered, on purpose: that scenario is about it.
            if restart_always && text.contains("answer pager hang") {
                continue;
            }
            if catch_unwind(|| common::Script::check(&text, restart_always)).is_err() {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                failed.push(format!("{name} (restart_always: {restart_always})"));
            }
        }
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

#[test]
fn a_script_can_fail() {
    let base = "receivers: [{name: pager, webhook_configs: [{url: 'http://x'}]}]\n---\n";
    for wrong in [
        "0s fire A severity=critical\n1m told nothing",
        "0s fire A severity=critical\n1m told pager 11s firing=A resolved=",
        "0s fire A severity=critical\n1m dead",
    ] {
        assert!(catch_unwind(|| common::Script::check(&format!("{base}{wrong}"), false)).is_err(), "{wrong}");
    }
}
