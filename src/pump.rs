//! The pump: takes each durable record from the log to the store and the analyzer, and what the analyzer says to the
//! page and the router. One per partition, on a thread of its own.
//!
//! Invariants:
//! - Records are taken in order of offset, each once. The store's checkpoint says where to begin.
//! - Nothing here reads a clock. Time is `received_at` of the records; an edge without records appends ticks.
//! - `evaluate(at)` is called for multiples of the step, after all records with `received_at <= at` and before any later
//!   one. So the evaluations are a function of the log, and a replay after a crash repeats them.
//! - While it catches up after a start, evaluations update state and emit nothing; the router then gets one reconciled
//!   set.
//! - The analyzer's snapshot is published with the flush, at the same offset.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forewarn_alert::{Input, rules};
use forewarn_analyze::{Analyzer, Catalogue, History};
use forewarn_ingest::edge::Edge;
use forewarn_ingest::log::{Log, LogError};
use forewarn_ingest::status::Board;
use forewarn_schemas::{Offset, PartitionId, Record, RecordBody, Sample, SeriesId, TimeRange, Timestamp};
use forewarn_store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::view::{View, Views};

/// Bytes read from the log at once when the hand-over does not have a record.
const READ_BYTES: usize = 4 << 20;
/// Without records for longer than this, the evaluations in between are left out: nothing could have changed.
const IDLE_STEPS_MAX: u32 = 60;

/// After its state could not be read, a partition raises alerts but ends none for this long: what it does not know yet
/// may still be going on.
const RELEARN: Duration = Duration::from_secs(600);
/// While flushes fail, records are taken until the un-flushed ones are this many times what is flushed at once; then they
/// stay in the log, and the edge slows down.
const UNFLUSHED_MAX: u64 = 8;
/// How long to wait before a flush is tried again when nothing may be taken any more.
const FLUSH_RETRY: Duration = Duration::from_secs(5);

/// A node that says nothing for so long is down: the pause that WombatOAM makes.
const NODE_DOWN_AFTER: Duration = Duration::from_secs(30);

/// What a pump works on.
pub struct Parts {
    /// The partition.
    pub partition: PartitionId,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Keeps decoded records for a while.
    pub edge: Arc<Edge>,
    /// The history.
    pub store: Arc<Store>,
    /// What can run out.
    pub catalogue: Catalogue,
    /// How it is judged.
    pub config: forewarn_analyze::AnalyzeConfig,
    /// Un-flushed bytes at which the head is flushed.
    pub flush_bytes: u64,
    /// Where what could not be done is said.
    pub board: Arc<Board>,
    /// Where the page reads.
    pub views: Arc<Views>,
    /// Where alerts go.
    pub alerts: forewarn_alert::Handle,
    /// The router's own health, which counts refused forecasts.
    pub alert_metrics: forewarn_alert::Metrics,
    /// For links in alerts.
    pub external_url: String,
    /// Own health.
    pub metrics: crate::metrics::PumpMetrics,
}

/// One partition's pump.
pub struct Pump {
    parts: Parts,
    analyzer: Analyzer,
    step: Duration,
    /// Next offset to take.
    next: Offset,
    /// Latest `received_at` so far.
    received: Timestamp,
    /// Next evaluation.
    next_at: Timestamp,
    /// Records below this were there at the start.
    catch_up: Offset,
    /// Until then alerts are raised but not ended, because the state of the analyzer could not be read.
    relearning: Option<Timestamp>,
    /// Whether the last flush failed.
    unflushed: bool,
}

/// Why a pump stopped.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store refused a record.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Pump {
    /// Opens the partition where its checkpoint says.
    pub fn open(parts: Parts) -> Self {
        let p = parts.partition;
        let step = parts.config.step;
        let next = parts.store.checkpoint(p);
        let restored = parts.store.snapshot(p).and_then(|bytes| {
            restore(&parts.catalogue, &parts.config, &bytes)
                .inspect_err(|e| error!(partition = p.0, error = %e, "forecast state is not readable"))
                .ok()
        });
        let lost = restored.is_none() && next > Offset(0);
        if lost {
            let message = format!("the forecasts of partition {p} are learnt anew: their state could not be read");
            parts.board.notice("analyze", &message, "nothing to do; alerts are not ended for ten minutes");
        }
        let fresh = || (Analyzer::new(parts.catalogue.clone(), parts.config.clone()), Timestamp::MIN, Timestamp::MIN);
        let (analyzer, received, next_at) = restored.unwrap_or_else(fresh);
        let catch_up = parts.log.bounds(p).end;
        let relearning = lost.then_some(Timestamp::MAX);
        Self { parts, analyzer, step, next, received, next_at, catch_up, relearning, unflushed: false }
    }

    /// Runs until cancelled, then takes what is durable, flushes and returns. `caught_up` is set once all that was in the
    /// log at the start has been taken.
    ///
    /// # Errors
    /// [`PumpError`] when records can no longer be taken; the process cannot go on then.
    pub async fn run(mut self, cancel: CancellationToken, caught_up: watch::Sender<bool>) -> Result<(), PumpError> {
        let mut end = self.parts.log.watch_end(self.parts.partition);
        loop {
            while self.next < *end.borrow_and_update() {
                if self.is_full() {
                    tokio::select! {
                        () = cancel.cancelled() => return self.flush().await,
                        () = tokio::time::sleep(FLUSH_RETRY) => self.flush().await?,
                    }
                    continue;
                }
                self.take_next().await?;
            }
            if !*caught_up.borrow() {
                if self.received > Timestamp::MIN {
                    self.emit(self.received).await;
                }
                caught_up.send_replace(true);
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = end.changed() => if changed.is_err() { break },
            }
        }
        while self.next < *end.borrow_and_update() {
            self.take_next().await?;
        }
        self.flush().await
    }

    async fn take_next(&mut self) -> Result<(), PumpError> {
        let p = self.parts.partition;
        if let Some(record) = self.parts.edge.take(p, self.next) {
            return self.take(self.next, &record).await;
        }
        let chunk = self.parts.log.read(p, self.next, READ_BYTES).await?;
        for gap in &chunk.gaps {
            warn!(partition = p.0, from = gap.start.0, to = gap.end.0, "records are lost: the log is damaged there");
        }
        for (offset, bytes) in chunk.records {
            match Record::decode(&bytes) {
                Ok(record) => self.take(offset, &record).await?,
                Err(e) => {
                    self.parts.metrics.poison.inc();
                    error!(partition = p.0, offset = offset.0, error = %e, "record skipped");
                }
            }
        }
        self.next = self.next.max(chunk.next);
        self.parts.edge.consumed(p, self.next);
        Ok(())
    }

    async fn take(&mut self, offset: Offset, record: &Record) -> Result<(), PumpError> {
        let p = self.parts.partition;
        self.advance_to(record.received_at).await;
        let ids = self.parts.store.append(p, offset, record)?;
        if let RecordBody::Samples(batch) = &record.body {
            self.analyzer.observe(record.received_at, batch, &ids);
            self.parts.metrics.samples.inc_by(batch.samples() as u64);
        }
        self.next = offset.next();
        self.parts.edge.consumed(p, self.next);
        // After a failed flush the store says no for a while.
        if self.parts.store.flush_due(p, self.received) {
            self.flush().await?;
        }
        Ok(())
    }

    /// Makes the evaluations that are due before a record received at `received` is taken.
    async fn advance_to(&mut self, received: Timestamp) {
        if self.relearning == Some(Timestamp::MAX) {
            self.relearning = Some(received + RELEARN);
        }
        if self.received == Timestamp::MIN {
            self.next_at = received.align_down(self.step) + self.step;
        }
        self.received = self.received.max(received);
        if self.next_at + self.step * IDLE_STEPS_MAX < self.received {
            self.evaluate(self.next_at).await;
            self.next_at = self.received.align_down(self.step);
        }
        while self.next_at < self.received {
            self.evaluate(self.next_at).await;
            self.next_at = self.next_at + self.step;
        }
    }

    async fn evaluate(&mut self, at: Timestamp) {
        let timer = self.parts.metrics.evaluation.start_timer();
        let history = PartitionHistory { store: &self.parts.store, partition: self.parts.partition };
        self.analyzer.evaluate(at, &history);
        timer.observe_duration();
        if self.next >= self.catch_up {
            self.emit(at).await;
        }
    }

    /// Publishes what is said now; waits while the router is behind.
    async fn emit(&self, at: Timestamp) {
        let Parts { partition, external_url, .. } = &self.parts;
        let forecasts: Vec<_> = self.analyzer.forecasts().cloned().collect();
        let mut said = rules::evaluate(forecasts.iter().map(AsRef::as_ref), external_url);
        self.parts.alert_metrics.count_refused(&said.refused);
        said.alerts.extend(self.analyzer.nodes().into_iter().filter_map(|n| {
            let down = n.up == Some(false) && at.since(n.since) >= NODE_DOWN_AFTER;
            down.then(|| rules::node_down_alert(&n.node, &n.family, n.since, n.configured, external_url))
        }));
        let sources =
            forecasts.iter().filter_map(|f| Some((f.key.clone(), self.analyzer.series_of(&f.key)?))).collect();
        self.parts.views.publish(*partition, View { at, forecasts, counts: self.analyzer.counts(), sources });
        let input = match self.relearning {
            Some(until) if at < until => Input::Apply(said.alerts),
            _ => Input::Reconcile { scope: format!("p{partition}"), alerts: said.alerts, held: said.held },
        };
        // A router that has stopped is a shutdown; the next start reconciles again.
        let _ = self.parts.alerts.send(input).await;
    }

    /// Says whether so much could not be flushed that no more is taken.
    fn is_full(&self) -> bool {
        if !self.unflushed {
            return false;
        }
        let stats = self.parts.store.stats();
        let head = stats.iter().find(|s| s.partition == self.parts.partition).map_or(0, |s| s.head_bytes);
        head > self.parts.flush_bytes.saturating_mul(UNFLUSHED_MAX)
    }

    /// Flushes the head; when a full or failing disk refuses, it is tried again later and the log keeps the samples
    /// meanwhile.
    async fn flush(&mut self) -> Result<(), PumpError> {
        let p = self.parts.partition;
        let snapshot = snapshot(&self.analyzer, self.received, self.next_at);
        match self.parts.store.flush(p, Some(snapshot)) {
            Ok(offset) => {
                if let Err(e) = self.parts.log.truncate(p, offset).await {
                    warn!(partition = p.0, error = %e, "log not truncated; it is tried again at the next flush");
                }
                self.unflushed = false;
                self.parts.board.mended("store", &self.unflushed_message());
                info!(partition = p.0, offset = offset.0, "head flushed");
            }
            Err(e) if e.is_retryable() => {
                self.unflushed = true;
                self.parts.metrics.flush_failures.inc();
                self.parts.board.notice(
                    "store",
                    &self.unflushed_message(),
                    "free disk space; samples are kept in the log meanwhile",
                );
                error!(partition = p.0, error = %e, "head not flushed; samples are safe in the log");
            }
            // The manifest is another process's now, or its state on disk is unknown: only a new start finds out.
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    fn unflushed_message(&self) -> String {
        format!("the history of partition {} cannot be written", self.parts.partition)
    }
}

/// A fit's view of the history: what the store has, which is what was taken before the evaluation.
struct PartitionHistory<'a> {
    store: &'a Store,
    partition: PartitionId,
}

impl History for PartitionHistory<'_> {
    fn samples(&self, id: SeriesId, range: TimeRange) -> Vec<Sample> {
        self.store
            .history(self.partition, id, range)
            .inspect_err(|e| warn!(partition = self.partition.0, error = %e, "history not readable"))
            .unwrap_or_default()
    }
}

/// Version, `received` and `next_at` (milliseconds, little-endian), then the analyzer's own snapshot.
fn snapshot(analyzer: &Analyzer, received: Timestamp, next_at: Timestamp) -> Bytes {
    let mut out = vec![1u8];
    out.extend_from_slice(&received.as_millis().to_le_bytes());
    out.extend_from_slice(&next_at.as_millis().to_le_bytes());
    out.extend_from_slice(&analyzer.snapshot());
    out.into()
}

fn restore(
    catalogue: &Catalogue,
    config: &forewarn_analyze::AnalyzeConfig,
    bytes: &[u8],
) -> Result<(Analyzer, Timestamp, Timestamp), String> {
    let (head, rest) = bytes.split_at_checked(17).ok_or("cut short")?;
    if head[0] != 1 {
        return Err(format!("version {} is not known", head[0]));
    }
    let at = |range: std::ops::Range<usize>| {
        Timestamp::from_millis(i64::from_le_bytes(head[range].try_into().expect("eight bytes")))
    };
    let analyzer = Analyzer::restore(catalogue.clone(), config.clone(), rest).map_err(|e| e.to_string())?;
    Ok((analyzer, at(1..9), at(9..17)))
}

#[cfg(test)]
mod tests;
