//! Leaks of a host: a file system that fills, a cgroup that is eaten. And what only looks like one: page cache.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Forewarn, Hook, PATIENCE, Process, eventually, progress};

const CONFIG: &str = "
forecast: {step: 1s}
collectors:
  host: {interval: 1s}
  beam: {enabled: false}
route:
  receiver: quiet
  routes: [{receiver: hook, matchers: ['severity=\"critical\"'], group_by: [node, resource, object], group_wait: 1s}]
receivers:
  - {name: quiet}
  - name: hook
    webhook_configs: [{url: HOOK}]
";

/// A tmpfs of the test's own.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(dir: PathBuf, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(&dir).unwrap();
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(&dir).status();
        done.is_ok_and(|s| s.success()).then_some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, since whatever had a file open on it is being killed just now.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn node(forewarn: &Forewarn) -> String {
    eventually("the host is watched", PATIENCE, || {
        forewarn.data("/api/v1/nodes")[0]["node"].as_str().map(str::to_owned)
    })
}

#[test]
fn a_tmpfs_that_fills_is_called_before_it_is_full() {
    let temp = tempfile::tempdir().unwrap();
    let Some(mount) = Tmpfs::mount(temp.path().join("filling"), 64) else {
        progress("SKIPPED: a tmpfs cannot be mounted here (needs root)");
        return;
    };
    let hook = Hook::start();
    let forewarn = Forewarn::start(temp.path(), &CONFIG.replace("HOOK", &hook.url));
    let node = node(&forewarn);
    let object = mount.0.to_str().unwrap();
    let mut file = std::fs::File::create(mount.0.join("leak")).unwrap();
    let chunk = vec![1u8; 64 << 10];
    let began = Instant::now();
    let called = loop {
        if file.write_all(&chunk).is_err() {
            break None;
        }
        let state = forewarn.forecast(&node, "disk", object).map(|f| f["state"].as_str().unwrap().to_owned());
        if state.as_deref() == Some("critical") {
            break Some(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(90));
    };
    let used = file.metadata().unwrap().len() >> 20;
    let called = called.expect("called before it is full");
    progress(&format!("tmpfs called after {:.0} s at {used} of 64 MiB", called.as_secs_f64()));
    eventually("the notification", PATIENCE, || (!hook.of(&node, "disk").is_empty()).then_some(()));
}

fn memory_cgroup(limit: u64) -> Option<PathBuf> {
    let name = format!("forewarn-host-{}-{limit}", std::process::id());
    for (root, file) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
        let dir = Path::new(root).join(&name);
        if std::fs::create_dir(&dir).is_ok() {
            if std::fs::write(dir.join(file), limit.to_string()).is_ok() {
                return Some(dir);
            }
            let _ = std::fs::remove_dir(&dir);
        }
    }
    None
}

fn remove_cgroup(dir: &Path) {
    for _ in 0..100 {
        if std::fs::remove_dir(dir).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a shell command inside the cgroup.
fn inside(dir: &Path, script: &str) -> Process {
    let line = format!("echo $$ > {}/cgroup.procs; exec {script}", dir.display());
    Process::spawn(Command::new("sh").arg("-c").arg(line))
}

#[test]
fn memory_eaten_in_a_cgroup_is_called_and_page_cache_never() {
    let temp = tempfile::tempdir().unwrap();
    let (Some(eaten), Some(cached)) = (memory_cgroup(200 << 20), memory_cgroup(100 << 20)) else {
        progress("SKIPPED: memory cgroups cannot be made here (needs root and a writable hierarchy)");
        return;
    };
    let hook = Hook::start();
    let forewarn = Forewarn::start(temp.path(), &CONFIG.replace("HOOK", &hook.url));
    let node = node(&forewarn);
    let eater =
        inside(&eaten, "perl -e 'my @a; while (1) { push @a, \"x\" x 200000; select undef, undef, undef, 0.1 }'");
    // Reads and writes far more than its limit: the kernel gives the page cache back, so nothing runs out.
    let file = temp.path().join("cached");
    let writer = inside(
        &cached,
        &format!(
            "perl -e 'while (1) {{ open my $f, \">>\", \"{}\"; print $f \"x\" x 1000000; close $f; \
             truncate \"{0}\", 0 if -s \"{0}\" > 300000000; select undef, undef, undef, 0.05 }}'",
            file.display()
        ),
    );
    let object_of = |dir: &Path| {
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        move |f: &serde_json::Value| f["object"].as_str().is_some_and(|o| o.ends_with(&name))
    };
    let (is_eaten, is_cached) = (object_of(&eaten), object_of(&cached));
    let began = Instant::now();
    let mut cached_seen = false;
    eventually("the eaten cgroup is called", Duration::from_secs(100), || {
        let all = forewarn.data("/api/v1/forecasts?resource=cgroup_memory");
        let all = all.as_array().unwrap();
        if let Some(f) = all.iter().find(|f| is_cached(f)) {
            cached_seen = true;
            let state = f["state"].as_str().unwrap();
            assert!(["ok", "learning"].contains(&state), "page cache was called: {f:#}");
        }
        all.iter().find(|f| is_eaten(f)).filter(|f| f["state"] == "critical").cloned()
    });
    progress(&format!("cgroup called after {:.0} s", began.elapsed().as_secs_f64()));
    assert!(cached_seen, "the other cgroup was watched too");
    eventually("the notification", PATIENCE, || (!hook.of(&node, "cgroup_memory").is_empty()).then_some(()));
    drop((eater, writer));
    remove_cgroup(&eaten);
    remove_cgroup(&cached);
}
