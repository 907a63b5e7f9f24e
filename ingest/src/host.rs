//! The host collector: reads this Linux machine under `/proc` and `/sys` and hands a batch to the [`Intake`] per cycle.
//!
//! Path of the data: [`run`] ticks; [`Collector::collect`] reads on a blocking thread, part by part (memory, pressure,
//! descriptors, processes, pids, cgroups, conntrack, load, disks); the batch goes to the intake.
//!
//! Invariants:
//! - One part that fails costs nothing else: it is counted in `host_collect_errors_total`, its series pause, the others
//!   go on. Input never panics.
//! - A series whose object is gone (an unmounted disk, a removed cgroup) gets one stale marker. One that could not be
//!   read this time gets none: not knowing is not the end.
//! - A cycle does not hang: `statvfs` has its own threads and a deadline. At most one batch is in flight; a cycle that
//!   the intake refuses is skipped and counted, never queued.
//!
//! Names, units and meaning of every metric: `docs/metrics-host.md`. Deliberately absent: judging what is read.
//!
//! Files under `/proc` are parsed by hand rather than with the `procfs` crate: that one builds whole structures of
//! owned strings per process, where two numbers are wanted from each.

mod cgroup;
mod closest;
mod collector;
mod config;
mod conntrack;
mod descriptor;
mod disk;
mod error;
#[cfg(test)]
mod fixture;
mod load;
mod memory;
mod mount;
mod pid;
mod pressure;
mod process;
mod series;
mod statvfs;
mod text;
mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;

use forewarn_schemas::time::Clock;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::edge::{Intake, SubmitError, Urgency};
use crate::status::{Board, Health, Target};

pub(crate) use cgroup::{MemoryFiles, used_by as cgroup_memory_used_by};
pub use collector::Collector;
pub use config::HostConfig;

/// The name under which this collector submits, reports and gives notice.
const SOURCE: &str = "host";

/// Watches this machine until `cancel`: one batch at once, then one per `config.interval`.
///
/// Returns early when the collector is switched off or the log is closed. A cycle that falls due while the last batch
/// still waits for the intake is left out, so that no backlog can build up; one that the intake refuses as
/// [`SubmitError::Overloaded`] is dropped and counted in `host_collect_skipped_total`. Dropping the future is safe; a
/// read under way then ends on its thread, within the deadline of `statvfs`.
pub async fn run(
    config: HostConfig,
    intake: Arc<dyn Intake>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
    cancel: CancellationToken,
) {
    if !config.enabled {
        return;
    }
    let mut collector = Collector::new(&config, Arc::clone(&board));
    let mut ticks = tokio::time::interval(config.interval.max(config::INTERVAL_MIN));
    let (mut overloaded, mut refused) = (false, BTreeSet::new());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both arms are cancel safe.
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = clock.now();
        let read = tokio::task::spawn_blocking(move || {
            let batch = collector.collect(now);
            (collector, batch)
        });
        let batch;
        (collector, batch) = match read.await {
            Ok(done) => done,
            Err(e) => {
                // A bug of ours, or the runtime is going down. The next cycle starts from a clean state.
                tracing::error!(error = %e, "host collector failed");
                collector = Collector::new(&config, Arc::clone(&board));
                continue;
            }
        };
        let mut target = Target {
            node: collector.node().to_owned(),
            family: config.family.clone(),
            collector: SOURCE.into(),
            configured: config.node.is_some(),
            health: Health::Up,
            since: now,
            last_poll: Some(now),
            error: collector.last_error().to_owned(),
            facts: collector.facts().clone(),
        };
        board.set(target.clone());
        let markers = collector::stale_markers(&batch);
        // Cancel safe: what the intake has not acknowledged is this cycle's batch only, and we stop.
        let answer = tokio::select! {
            () = cancel.cancelled() => return,
            answer = intake.submit(SOURCE, batch, Urgency::Lingering) => answer,
        };
        match answer {
            Ok(accepted) => {
                overloaded = false;
                for (reason, samples) in accepted.refused {
                    // Once per reason: what is refused now is refused in each cycle.
                    if refused.insert(reason) {
                        tracing::warn!(reason, samples, "samples of the host were refused");
                    }
                }
            }
            Err(SubmitError::Closed(reason)) => {
                tracing::error!(reason, "host collector stops: the log is closed");
                return;
            }
            Err(e) => {
                if !overloaded {
                    tracing::warn!(error = %e, "cycles of the host are skipped");
                }
                overloaded = true;
                collector.skipped(markers);
                target.error = e.to_string();
                board.set(target);
            }
        }
    }
}
