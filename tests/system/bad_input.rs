//! What goes wrong at a start or while running: a clear error or a degraded service that says so, and nothing lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::{Forewarn, PATIENCE, eventually, free_port, progress};

fn forewarn(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forewarn")).current_dir(dir).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Path and content of every file below.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            out.extend(content(&entry.path()));
        } else {
            out.insert(entry.path().display().to_string(), std::fs::read(entry.path()).unwrap());
        }
    }
    out
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("f.yaml"), "listen: 127.0.0.1:1\ncolectors: {}\nstore:\n  retension: 1d\n")
        .unwrap();
    for args in [&["check-config", "f.yaml"][..], &["run", "--config", "f.yaml"]] {
        let output = forewarn(args, temp.path());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = stderr(&output);
        assert!(text.contains("f.yaml:2:1: unknown key \"colectors\"; did you mean \"collectors\"?"), "{text}");
        assert!(text.contains("f.yaml:4:3: unknown key \"retension\"; did you mean \"retention\"?"), "{text}");
    }
    let json = forewarn(&["check-config", "f.yaml", "--output", "json"], temp.path());
    let v: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(v["problems"][0]["line"], 2);
    assert!(!temp.path().join("forewarn-data").exists(), "a wrong file starts nothing");
}

#[test]
fn a_port_in_use_and_a_directory_in_use_change_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let config = "collectors: {host: {enabled: false}, beam: {enabled: false}}\n";
    let first = Forewarn::start(temp.path(), config);
    let other = tempfile::tempdir().unwrap();
    let output = forewarn(&["--listen", &format!("127.0.0.1:{}", first.port)], other.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is in use") && stderr(&output).contains("--listen"), "{}", stderr(&output));
    assert!(content(other.path()).is_empty());

    let port = format!("127.0.0.1:{}", free_port());
    let output = forewarn(&["--listen", &port], temp.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("in use by another forewarn"), "{}", stderr(&output));
    assert!(first.terminate().success());
}

#[test]
fn a_directory_of_a_newer_version_is_refused_untouched() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("forewarn-data");
    let port = format!("127.0.0.1:{}", free_port());
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("forewarn.json"), r#"{"format": 99}"#).unwrap();
    let before = content(&data);
    let output = forewarn(&["--listen", &port], temp.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("upgrade forewarn"), "{}", stderr(&output));
    assert_eq!(content(&data), before);
}

#[test]
fn an_unwritable_directory_is_named_with_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let port = format!("127.0.0.1:{}", free_port());
    let output = forewarn(&["--listen", &port, "--data", "/proc/forewarn-data"], temp.path());
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("/proc/forewarn-data") && text.contains("--data"), "{text}");
}

/// A full disk stops the taking in of samples, and says so; what was acknowledged stays, and it heals by itself.
#[test]
fn a_disk_that_is_full_while_running_is_reported_and_heals() {
    let temp = tempfile::tempdir().unwrap();
    let mount = temp.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(&mount).status();
    if !mounted.is_ok_and(|s| s.success()) {
        progress("SKIPPED: a tmpfs cannot be mounted here (needs root)");
        return;
    }
    let config = format!(
        "data: {}/data\ncollectors: {{host: {{interval: 1s}}, beam: {{enabled: false}}}}\nforecast: {{step: 1s}}\nstore: {{flush_interval: 2s}}\n",
        mount.display()
    );
    let forewarn = Forewarn::start(temp.path(), &config);
    let count = |f: &Forewarn| f.sql("SELECT count(*) FROM samples")[0][0].as_u64().unwrap();
    eventually("samples", PATIENCE, || (count(&forewarn) > 500).then_some(()));
    let ballast = mount.join("ballast");
    // Fails when the disk is full, which is the point.
    let _ = std::fs::write(&ballast, vec![0u8; 64 << 20]);
    eventually("the full disk is said", PATIENCE, || {
        let text = forewarn.read("stderr").to_lowercase();
        (text.contains("no space") || text.contains("disk is full")).then_some(())
    });
    assert_eq!(forewarn.get("/-/healthy").0, 200);
    let full = count(&forewarn);
    std::fs::remove_file(&ballast).unwrap();
    eventually("samples flow again", Duration::from_secs(60), || (count(&forewarn) > full + 500).then_some(()));
    assert!(forewarn.terminate().success());
    let again = Forewarn::start(temp.path(), &config);
    assert!(count(&again) > full, "nothing acknowledged was lost");
    again.terminate();
    let _ = Command::new("umount").arg("-l").arg(&mount).status();
}
