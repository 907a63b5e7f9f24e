//! The bounded queue between those who append and the writer of a partition.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use forewarn_schemas::Offset;
use tokio::sync::{Notify, oneshot};

use super::LogError;
use super::frame::FRAME_OVERHEAD;

pub(super) type Reply = oneshot::Sender<Result<Offset, LogError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Write a record.
    Append(Bytes, Reply),
    /// Give no offset below this one from now on.
    Advance(Offset, Reply),
}

impl Job {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append(record, _) => FRAME_OVERHEAD + record.len(),
            Self::Advance(..) => 0,
        }
    }

    pub(super) fn answer(self, answer: Result<Offset, LogError>) {
        let (Self::Append(_, reply) | Self::Advance(_, reply)) = self;
        // Who dropped the answer does not want it.
        let _ = reply.send(answer);
    }
}

/// A queue bounded in bytes.
#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: usize,
    state: Mutex<State>,
    filled: Condvar,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    jobs: Vec<Job>,
    bytes: usize,
    closing: bool,
}

/// Why a job was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closing,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default(), filled: Condvar::new(), emptied: Notify::new() }
    }

    /// Adds a job; returns the bytes that now wait. An empty queue takes a job of any size.
    pub(super) fn push(&self, job: Job) -> Result<usize, Refused> {
        let mut state = self.lock();
        if state.closing {
            return Err(Refused::Closing);
        }
        if !state.jobs.is_empty() && state.bytes + job.bytes() > self.bytes_max {
            return Err(Refused::Full);
        }
        state.bytes += job.bytes();
        state.jobs.push(job);
        self.filled.notify_one();
        Ok(state.bytes)
    }

    /// Blocks until there are jobs and takes all of them; `None` once the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Job>> {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.closing {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes = 0;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.emptied.notify_waiters();
        Some(jobs)
    }

    /// Resolves when the queue is or has just been emptied (the writer always takes all of it), or is closed.
    pub(super) async fn room(&self) {
        let emptied = self.emptied.notified();
        if self.is_waiting() {
            emptied.await;
        }
    }

    fn is_waiting(&self) -> bool {
        let state = self.lock();
        !state.closing && !state.jobs.is_empty()
    }

    /// Takes no more jobs; what waits is still given out.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_all();
        self.emptied.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each method leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(bytes: usize) -> Job {
        Job::Append(Bytes::from(vec![0; bytes - FRAME_OVERHEAD]), oneshot::channel().0)
    }

    #[tokio::test]
    async fn bounded_in_bytes_but_takes_one_of_any_size() {
        let queue = Queue::new(100);
        assert_eq!(queue.push(job(60)), Ok(60));
        assert_eq!(queue.push(job(60)), Err(Refused::Full));
        assert_eq!(queue.push(job(40)), Ok(100));
        assert_eq!(queue.take().unwrap().len(), 2);
        assert_eq!(queue.push(job(500)), Ok(500));
        let mut room = Box::pin(queue.room());
        assert!(futures::poll!(&mut room).is_pending());
        queue.take().unwrap();
        assert!(futures::poll!(&mut room).is_ready());
    }

    #[tokio::test]
    async fn a_closed_queue_gives_out_what_waits() {
        let queue = Queue::new(100);
        queue.push(job(100)).unwrap();
        let mut room = Box::pin(queue.room());
        assert!(futures::poll!(&mut room).is_pending());
        queue.close();
        assert!(futures::poll!(&mut room).is_ready());
        assert_eq!(queue.push(job(50)), Err(Refused::Closing));
        assert_eq!(queue.take().unwrap().len(), 1);
        assert!(queue.take().is_none());
    }
}
