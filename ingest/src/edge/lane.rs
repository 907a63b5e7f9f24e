//! What the edge keeps for one partition: the last stamp, and the records on their way to the pump.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use forewarn_schemas::record::{encode_control, encode_samples};
use forewarn_schemas::{Batch, Clock, Offset, PartitionId, Record, RecordBody, Timestamp};
use futures::FutureExt;
use futures::future::Shared;
use tokio::sync::Notify;

use super::{EdgeConfig, TICK, TICK_SOURCE, not_encodable};
use crate::log::{Appending, Log, LogError};

/// An answer of the log that both the submitter and the lane look at.
pub(super) type Answer = Shared<Appending>;

/// The answers to what was enqueued, and what was not because the queue is full.
pub(super) type Queued = (Vec<Answer>, Option<Batch>);

/// One partition's side of the edge.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: PartitionId,
    has_pump: bool,
    hand_over_bytes_max: usize,
    backlog_bytes_max: usize,
    state: Mutex<State>,
    progress: Notify,
}

#[derive(Debug)]
struct State {
    /// What the last record was stamped with.
    last: Timestamp,
    /// Whether there was a record since the last tick.
    busy: bool,
    /// Enqueued, in order; the log has not answered yet, or nobody has looked.
    pending: VecDeque<(Answer, Kept)>,
    /// Durable, by rising offset, and not consumed.
    durable: VecDeque<(Offset, Kept)>,
    /// Bytes of both.
    backlog_bytes: usize,
    /// Bytes of those whose record is kept.
    kept_bytes: usize,
}

#[derive(Debug)]
struct Kept {
    bytes: usize,
    record: Option<Arc<Record>>,
}

impl Lane {
    pub(super) fn new(id: PartitionId, config: &EdgeConfig) -> Self {
        let state = State {
            last: Timestamp::MIN,
            busy: false,
            pending: VecDeque::new(),
            durable: VecDeque::new(),
            backlog_bytes: 0,
            kept_bytes: 0,
        };
        Self {
            id,
            has_pump: config.has_pump,
            hand_over_bytes_max: config.hand_over_bytes_max.bytes() as usize,
            backlog_bytes_max: config.backlog_bytes_max.bytes() as usize,
            state: Mutex::new(state),
            progress: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each method leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn resume(&self, last: Timestamp) {
        let mut state = self.lock();
        state.last = state.last.max(last);
    }

    /// Stamps, encodes and enqueues a batch, under one lock: in a partition stamps rise with offsets.
    pub(super) fn put(&self, log: &dyn Log, clock: &dyn Clock, source: &str, batch: Batch) -> Result<Queued, LogError> {
        let mut state = self.lock();
        let received_at = state.last.max(clock.now());
        let encoded = encode_samples(&batch, received_at, source).map_err(|e| not_encodable(&e))?;
        drop(batch);
        let mut answers = Vec::with_capacity(encoded.len());
        let mut encoded = encoded.into_iter();
        while let Some((bytes, batch)) = encoded.next() {
            match log.enqueue(self.id, bytes.clone()) {
                Ok(answer) => {
                    let record = Record { received_at, source: source.to_owned(), body: RecordBody::Samples(batch) };
                    answers.push(self.note(&mut state, answer, &bytes, record));
                }
                Err(LogError::Full(_)) => {
                    // Encoded anew later: others may have been stamped meanwhile.
                    let series = batch.series.into_iter().chain(encoded.flat_map(|(_, b)| b.series));
                    return Ok((answers, Some(Batch { series: series.collect() })));
                }
                Err(e) => return Err(e),
            }
        }
        Ok((answers, None))
    }

    /// Enqueues a tick; `None` when the queue is full.
    pub(super) fn tick(&self, log: &dyn Log, clock: &dyn Clock) -> Result<Option<Answer>, LogError> {
        let mut state = self.lock();
        let received_at = state.last.max(clock.now());
        let bytes = encode_control(TICK, received_at, TICK_SOURCE).map_err(|e| not_encodable(&e))?;
        let answer = match log.enqueue(self.id, bytes.clone()) {
            Err(LogError::Full(_)) => return Ok(None),
            queued => queued?,
        };
        let record = Record { received_at, source: TICK_SOURCE.into(), body: RecordBody::Control(TICK.into()) };
        let answer = self.note(&mut state, answer, &bytes, record);
        state.busy = false;
        Ok(Some(answer))
    }

    fn note(&self, state: &mut State, answer: Appending, bytes: &Bytes, record: Record) -> Answer {
        let answer = answer.shared();
        state.last = record.received_at;
        state.busy = true;
        if self.has_pump {
            let bytes = bytes.len();
            let keep = state.kept_bytes + bytes <= self.hand_over_bytes_max;
            state.backlog_bytes += bytes;
            state.kept_bytes += if keep { bytes } else { 0 };
            state.pending.push_back((answer.clone(), Kept { bytes, record: keep.then(|| Arc::new(record)) }));
        }
        answer
    }

    /// Says whether there was no record since the last call, or tick.
    pub(super) fn is_idle(&self) -> bool {
        !std::mem::take(&mut self.lock().busy)
    }

    pub(super) fn take(&self, offset: Offset) -> Option<Arc<Record>> {
        let mut state = self.lock();
        state.settle();
        let at = state.durable.binary_search_by_key(&offset, |d| d.0).ok()?;
        let kept = &mut state.durable[at].1;
        let (bytes, record) = (kept.bytes, kept.record.take()?);
        state.kept_bytes -= bytes;
        Some(record)
    }

    pub(super) fn consumed(&self, next: Offset) {
        let mut state = self.lock();
        state.settle();
        while state.durable.front().is_some_and(|d| d.0 < next) {
            if let Some((_, kept)) = state.durable.pop_front() {
                state.forget(&kept);
            }
        }
        drop(state);
        self.progress.notify_waiters();
    }

    pub(super) fn backlog_bytes(&self) -> usize {
        let mut state = self.lock();
        // What the log refused counts no longer.
        state.settle();
        state.backlog_bytes
    }

    /// Says whether the pump keeps up.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.lock();
        if state.backlog_bytes > self.backlog_bytes_max {
            // What the log refused counts no longer.
            state.settle();
        }
        state.backlog_bytes <= self.backlog_bytes_max
    }

    /// Resolves when the pump keeps up.
    pub(super) async fn room(&self) {
        loop {
            let progress = self.progress.notified();
            if self.has_room() {
                return;
            }
            progress.await;
        }
    }
}

impl State {
    /// Looks at the answers that have come.
    fn settle(&mut self) {
        while let Some((answer, _)) = self.pending.front() {
            let Some(answer) = answer.clone().now_or_never() else { return };
            let Some((_, kept)) = self.pending.pop_front() else { return };
            match answer {
                Ok(offset) => self.durable.push_back((offset, kept)),
                Err(_) => self.forget(&kept),
            }
        }
    }

    fn forget(&mut self, kept: &Kept) {
        self.backlog_bytes -= kept.bytes;
        self.kept_bytes -= if kept.record.is_some() { kept.bytes } else { 0 };
    }
}

/// Bytes of the log read at once in search of its last record.
const READ_BYTES: usize = 1 << 20;

/// Returns what the last record of a partition was stamped with. There may be no record at the last offsets, so the
/// search goes back in growing steps.
pub(super) async fn last_stamp(log: &dyn Log, p: PartitionId) -> Result<Option<Timestamp>, LogError> {
    let bounds = log.bounds(p);
    let mut step = 1;
    loop {
        let from = Offset(bounds.end.0.saturating_sub(step)).max(bounds.start);
        let (mut next, mut found) = (from, None);
        while next < bounds.end {
            let chunk = log.read(p, next, READ_BYTES).await?;
            let stamps = chunk.records.iter().filter_map(|(_, r)| Record::decode(r).ok()).map(|r| r.received_at);
            found = found.max(stamps.max());
            next = chunk.next;
        }
        if found.is_some() || from == bounds.start {
            return Ok(found);
        }
        step *= 16;
    }
}
