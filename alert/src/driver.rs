//! The task around the router: feeds it, sleeps until it is due, sends what it gives out.
//!
//! The router's calls write to disk, so they run where blocking is allowed, one after another. Sends are tasks of
//! their own, at most [`SENDS_MAX`] at once for each integration and the most severe first, so a slow receiver holds
//! up neither the inputs nor another receiver.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forewarn_schemas::{Alert, Clock, ResourceKey, Severity};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::notification::{Integration, Notification};
use crate::receiver::{Reason, Receivers, Retry, SendError};
use crate::router::{AlertView, DeadLetter, Router, RouterConfig};

/// Attempts under way at once for one integration.
pub const SENDS_MAX: usize = 8;
/// Capacity of the channel of inputs. When it is full the sender waits.
pub const INPUTS_MAX: usize = 256;
/// The clock is looked at anew at least this often while something is under way, since it may be set.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// How long a shutdown waits for attempts that are under way. Longer ones are made again by the next process.
const DRAIN_DURATION_MAX: Duration = Duration::from_secs(10);

/// What the router is told or asked.
#[derive(Debug)]
pub enum Input {
    /// Alerts that are new, changed or over: [`Router::apply`].
    Apply(Vec<Alert>),
    /// The full set of a scope: [`Router::reconcile`].
    Reconcile {
        /// The scope.
        scope: String,
        /// All its alerts that fire.
        alerts: Vec<Alert>,
        /// Resources whose alerts stay as they are.
        held: Vec<ResourceKey>,
    },
    /// A new configuration, with the integrations that belong to it.
    Reconfigure(Box<RouterConfig>, Receivers),
    /// Asks for all alerts.
    Alerts(oneshot::Sender<Vec<AlertView>>),
    /// Asks for what was given up on.
    DeadLetters(oneshot::Sender<Vec<DeadLetter>>),
}

/// Talks to a running router. Clones talk to the same one.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::Sender<Input>);

/// The router is no longer running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("alert router has stopped")]
pub struct Stopped;

impl Handle {
    /// Makes a handle and the inputs for [`run`].
    pub fn new() -> (Self, mpsc::Receiver<Input>) {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        (Self(sender), inputs)
    }

    /// Hands in one input; waits while the channel is full.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn send(&self, input: Input) -> Result<(), Stopped> {
        self.0.send(input).await.map_err(|_| Stopped)
    }

    /// Returns all alerts: [`Router::alerts`].
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn alerts(&self) -> Result<Vec<AlertView>, Stopped> {
        let (answer, question) = oneshot::channel();
        self.send(Input::Alerts(answer)).await?;
        question.await.map_err(|_| Stopped)
    }

    /// Returns what was given up on: [`Router::dead_letters`].
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, Stopped> {
        let (answer, question) = oneshot::channel();
        self.send(Input::DeadLetters(answer)).await?;
        question.await.map_err(|_| Stopped)
    }
}

type Attempted = (Notification, Result<(), SendError>);
type Place = (Arc<str>, Integration);

/// Notifications that wait for their turn, and the attempts under way.
#[derive(Debug)]
struct Sends {
    receivers: Receivers,
    waiting: BTreeMap<Place, BTreeMap<(Reverse<Severity>, u64), Notification>>,
    active: BTreeMap<Place, usize>,
    tasks: JoinSet<Attempted>,
    taken: u64,
}

impl Sends {
    fn add(&mut self, notifications: Vec<Notification>) {
        for n in notifications {
            let place = place(&n);
            self.taken += 1;
            self.waiting.entry(place.clone()).or_default().insert((Reverse(n.severity()), self.taken), n);
            self.start(&place);
        }
    }

    /// Starts attempts at one integration while there is room.
    fn start(&mut self, place: &Place) {
        let active = self.active.entry(place.clone()).or_default();
        let Some(waiting) = self.waiting.get_mut(place) else { return };
        while *active < SENDS_MAX {
            let Some((_, notification)) = waiting.pop_first() else {
                self.waiting.remove(place);
                return;
            };
            *active += 1;
            let notifier = self.receivers.get(&notification.delivery).cloned();
            self.tasks.spawn(async move {
                let result = match notifier {
                    // A task of its own, so that a panic in an integration is an answer like any other.
                    Some(notifier) => {
                        let n = notification.clone();
                        let attempt = tokio::spawn(async move { notifier.notify(&n).await });
                        let guard = AbortOnDrop(attempt.abort_handle());
                        let result = attempt
                            .await
                            .unwrap_or_else(|e| Err(SendError::new(Retry::Backoff, Reason::Internal, e.to_string())));
                        drop(guard);
                        result
                    }
                    None => Err(SendError::new(Retry::Never, Reason::Config, "the receiver has no such integration")),
                };
                (notification, result)
            });
        }
    }

    fn finished(&mut self, notification: &Notification) {
        let place = place(notification);
        if let Some(active) = self.active.get_mut(&place) {
            *active = active.saturating_sub(1);
        }
        self.start(&place);
    }
}

/// Ends the attempt when the task that waits for it is dropped.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn place(n: &Notification) -> Place {
    (Arc::clone(&n.delivery.group.receiver), n.delivery.integration.clone())
}

/// Runs the router until `cancel` or until every handle is gone; returns it with all results that came in time.
///
/// On shutdown no input is taken any more, attempts under way get ten seconds to answer, and what is left stays in the
/// outbox for the next process. Not cancel safe: cancel it by the token.
pub async fn run(
    mut router: Router,
    receivers: Receivers,
    mut inputs: mpsc::Receiver<Input>,
    clock: Arc<dyn Clock>,
    cancel: CancellationToken,
) -> Router {
    let (waiting, active) = (BTreeMap::new(), BTreeMap::new());
    let mut sends = Sends { receivers, waiting, active, tasks: JoinSet::new(), taken: 0 };
    let mut batch = Vec::new();
    loop {
        let now = clock.now();
        if router.next_due().is_some_and(|at| at <= now) {
            let due;
            (router, due) = blocking(router, move |r| r.due(now)).await;
            sends.add(due);
        }
        let sleep = router.next_due().map_or(SLEEP_MAX, |at| at.since(clock.now()).min(SLEEP_MAX));
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            Some(attempted) = sends.tasks.join_next() => {
                router = settle(router, &mut sends, attempted, &*clock).await;
            }
            count = inputs.recv_many(&mut batch, INPUTS_MAX) => {
                if count == 0 {
                    break;
                }
                router = take(router, &mut sends, std::mem::take(&mut batch), &*clock).await;
            }
            () = tokio::time::sleep(sleep) => {}
        }
    }
    inputs.close();
    sends.waiting.clear();
    let deadline = tokio::time::Instant::now() + DRAIN_DURATION_MAX;
    while let Ok(Some(attempted)) = tokio::time::timeout_at(deadline, sends.tasks.join_next()).await {
        router = settle(router, &mut sends, attempted, &*clock).await;
    }
    if !sends.tasks.is_empty() {
        tracing::warn!(count = sends.tasks.len(), "notifications have no answer at shutdown and will be sent again");
    }
    router
}

/// Runs a call of the router where blocking is allowed.
async fn blocking<T: Send + 'static>(
    mut router: Router,
    call: impl FnOnce(&mut Router) -> T + Send + 'static,
) -> (Router, T) {
    let task = spawn_blocking(move || {
        let out = call(&mut router);
        (router, out)
    });
    match task.await {
        Ok(out) => out,
        // The router's own invariant is broken, or the runtime is going away: nothing sensible can follow.
        Err(e) => std::panic::resume_unwind(match e.try_into_panic() {
            Ok(panic) => panic,
            Err(e) => Box::new(e.to_string()),
        }),
    }
}

async fn settle(
    router: Router,
    sends: &mut Sends,
    attempted: Result<Attempted, tokio::task::JoinError>,
    clock: &dyn Clock,
) -> Router {
    // The task only waits for the attempt, so it neither panics nor is aborted.
    let Ok((notification, result)) = attempted else { return router };
    sends.finished(&notification);
    let now = clock.now();
    blocking(router, move |r| r.sent(now, &notification, result)).await.0
}

async fn take(mut router: Router, sends: &mut Sends, batch: Vec<Input>, clock: &dyn Clock) -> Router {
    for input in batch {
        let now = clock.now();
        router = match input {
            Input::Apply(alerts) => blocking(router, move |r| r.apply(now, alerts)).await.0,
            Input::Reconcile { scope, alerts, held } => {
                blocking(router, move |r| r.reconcile(now, &scope, alerts, &held)).await.0
            }
            Input::Reconfigure(config, receivers) => {
                sends.receivers = receivers;
                blocking(router, move |r| r.reconfigure(now, *config)).await.0
            }
            Input::Alerts(answer) => {
                // Whoever asked may have gone away.
                let _ = answer.send(router.alerts(now));
                router
            }
            Input::DeadLetters(answer) => {
                let _ = answer.send(router.dead_letters());
                router
            }
        };
    }
    router
}
