//! What a node's task says: `beam_up` and the ends of series to the log, health and notices to the board.

use forewarn_schemas::{Batch, STALE_NAN, Timestamp};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{COLLECTOR, Node, Shared, lock};
use crate::edge::{SubmitError, Urgency};
use crate::status::{Health, Target};

impl Node {
    /// Adds `beam_up`; ends it under its former labels when those changed.
    pub(super) fn write_up(&mut self, value: f64, ts: Timestamp, batch: &mut Batch) {
        let labels = self.base.labels("beam_up", "");
        if self.up != labels
            && let Some(former) = self.up.take()
        {
            batch.push(former, ts, STALE_NAN);
        }
        if let Some(labels) = labels {
            batch.push(labels.clone(), ts, value);
            self.up = Some(labels);
        }
    }

    /// Writes that the node is down, and ends its other series; false when the log is closed.
    pub(super) async fn write_down(&mut self) -> bool {
        if self.name.is_none() {
            // Never joined, so its full name is not known, nor whether it is any of our business.
            return true;
        }
        let ts = self.shared.clock.now();
        let mut batch = Batch::default();
        self.polled.end(ts, &mut batch);
        lock(&self.slow).end(ts, &mut batch);
        self.write_up(0.0, ts, &mut batch);
        submit(&self.shared, batch).await
    }

    pub(super) fn warn_of_exposure(&self, place: &str, exposed: bool) {
        let message = format!("cookie file {place} can be read by others");
        if !exposed {
            self.shared.board.mended(COLLECTOR, &message);
        } else if self.shared.board.notice(COLLECTOR, &message, &format!("chmod 400 {place}")) {
            warn!(place, "cookie file can be read by others");
        }
    }

    pub(super) fn say(&mut self, message: String, mend: &str) {
        if self.notice.as_ref() != Some(&message) {
            self.unsay();
        }
        self.shared.board.notice(COLLECTOR, &message, mend);
        self.notice = Some(message);
    }

    pub(super) fn unsay(&mut self) {
        if let Some(message) = self.notice.take() {
            self.shared.board.mended(COLLECTOR, &message);
        }
    }

    pub(super) fn report(&self, health: Health, error: &str) {
        self.shared.board.set(Target {
            node: self.label(),
            family: self.base.family.clone(),
            collector: COLLECTOR.into(),
            configured: self.base.discovered == "config",
            health,
            since: self.shared.clock.now(),
            last_poll: self.last_poll,
            error: error.to_owned(),
            facts: self.facts.clone(),
        });
    }

    /// The full name, or the best that is known.
    pub(super) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{}@{}", self.alive, self.us.name.host()))
    }

    /// Ends everything that was written under the present name.
    pub(super) async fn end(&mut self) {
        let ts = self.shared.clock.now();
        let mut batch = Batch::default();
        self.polled.end(ts, &mut batch);
        lock(&self.slow).end(ts, &mut batch);
        if let Some(labels) = self.up.take() {
            batch.push(labels, ts, STALE_NAN);
        }
        submit(&self.shared, batch).await;
    }

    /// Ends everything that was written under the present name and takes it off the board.
    pub(super) async fn forget(&mut self) {
        self.unsay();
        self.shared.board.forget(COLLECTOR, &self.label());
        self.end().await;
        if let Some(name) = self.name.take() {
            self.claims().remove(&name);
        }
    }
}

/// Hands a batch over; tries on for one interval while the log is behind. False when the log is closed.
pub(super) async fn submit(shared: &Shared, batch: Batch) -> bool {
    if batch.series.is_empty() {
        return true;
    }
    let end = Instant::now() + shared.config.interval;
    loop {
        match shared.intake.submit(COLLECTOR, batch.clone(), Urgency::Lingering).await {
            Ok(accepted) => {
                if !accepted.refused.is_empty() {
                    debug!(refused = ?accepted.refused, "samples refused at the edge");
                }
                return true;
            }
            Err(SubmitError::Closed(why)) => {
                info!(why, "the log is closed, the beam collector ends");
                shared.stop.cancel();
                return false;
            }
            Err(SubmitError::Overloaded { reason, retry_after }) => {
                if Instant::now() + retry_after > end {
                    warn!(reason, samples = batch.samples(), "samples dropped, the log is behind");
                    return true;
                }
                sleep(retry_after).await;
            }
        }
    }
}
