//! Batches of one source that nobody waits for, on their way together.
//!
//! The first of them starts a task that appends whatever has come together after the linger, or when it fills a
//! record, or at shutdown; so a submitter that goes away takes nothing with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forewarn_schemas::record::RECORD_BYTES_MAX;
use tokio::sync::{Notify, oneshot};

use super::{Inner, Parts, SubmitError, Urgency, sift};

/// Estimated bytes at which a group does not wait any longer.
const GROUP_BYTES_MAX: usize = RECORD_BYTES_MAX / 2;

/// The groups that linger, by source.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashMap<String, Group>>);

#[derive(Debug, Default)]
struct Group {
    parts: Parts,
    full: Arc<Notify>,
    waiting: Vec<oneshot::Sender<Result<(), SubmitError>>>,
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        // Each holder leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins the group of a source, starting one if there is none, and waits until it is durable. Returns how many samples
/// were dropped because the group had another value of the same series and time.
pub(super) async fn join(inner: &Arc<Inner>, source: &str, parts: Parts) -> Result<usize, SubmitError> {
    let (reply, answer) = oneshot::channel();
    let conflicts = {
        let mut groups = inner.groups.lock();
        let group = groups.entry(source.to_owned()).or_default();
        if group.waiting.is_empty() {
            let task = run(Arc::clone(inner), source.to_owned(), Arc::clone(&group.full));
            inner.tasks.spawn(task);
        }
        let conflicts = if group.parts.is_empty() {
            group.parts = parts;
            0
        } else {
            sift::merge(&mut group.parts, parts)
        };
        group.waiting.push(reply);
        if sift::bytes_of(&group.parts) >= GROUP_BYTES_MAX {
            group.full.notify_one();
        }
        conflicts
    };
    // The task goes away without an answer only when the runtime does.
    let done = answer.await.unwrap_or_else(|_| Err(SubmitError::Closed("the runtime is shutting down".into())));
    done.map(|()| conflicts)
}

async fn run(inner: Arc<Inner>, source: String, full: Arc<Notify>) {
    // Nothing is lost whichever arm is dropped: the group stays in the map until it is taken below.
    tokio::select! {
        () = tokio::time::sleep(inner.config.linger_max) => {}
        () = full.notified() => {}
        () = inner.closing.cancelled() => {}
    }
    let Some(group) = inner.groups.lock().remove(&source) else { return };
    let done = inner.append(&source, group.parts, Urgency::Lingering).await;
    for waiting in group.waiting {
        // Who went away does not want the answer.
        let _ = waiting.send(done.clone());
    }
}
