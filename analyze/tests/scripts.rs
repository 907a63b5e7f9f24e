//! Behaviour as data: every file of `tests/scripts` is loaded, moved through time and held to what it expects.

#[path = "support/world.rs"]
#[allow(dead_code, reason = "each test of this crate uses a part of it")]
mod world;

use world::World;

macro_rules! scripts {
    ($($name:ident),* $(,)?) => { $(
        #[test]
        fn $name() {
            let name = stringify!($name);
            World::new().check(name, include_str!(concat!("scripts/", stringify!($name), ".txt")));
        }
    )* };
}

scripts! {
    fast_leak,
    leak_polled_every_second,
    leak_after_a_rest,
    slow_leak,
    saw_tooth_tmpfs,
    filling_tmpfs,
    reset_that_does_not_come,
    noise,
    step,
    restart,
    restart_ends_objects,
    limit_raised,
    limit_lowered,
    gap,
    stale_marker,
    node_lost_in_a_leak,
    harm,
    exhausted,
    disk_down,
    bounded,
    levels,
    mailbox,
    cgroup_page_cache,
    plateau,
    elastic_heap,
    node_taken_off,
    burst_after_quiet,
    false_start,
    node_down_then_silent,
    object_lost_in_a_leak,
    empty_file_system,
    mailbox_burst,
    limit_raised_a_little,
    clock_step,
}

#[test]
fn every_script_is_run() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let source = include_str!("scripts.rs");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(source.contains(&format!("    {name},\n")), "{name} is not run");
    }
}
