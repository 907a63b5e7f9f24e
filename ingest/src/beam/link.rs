//! One connection to a node: [`Driver`] moves the bytes, [`Client`] asks.
//!
//! Calls are written as they come and answered in any order; each has its own deadline. The driver is a future that its
//! owner polls beside the questions, so there is no task to lose. A call whose asker went away is abandoned on the node
//! too (its worker is killed).
//!
//! When the client is dropped, the driver waits for what is still under way and only then closes. The emulator has a
//! habit that makes this necessary: a worker that starts while its connection is being closed makes the node connect
//! back to us, for which it loads a resolver, makes atoms and asks our epmd.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::call::Call;
use super::term::Term;
use super::wire::{self, Incoming, Wire, WireError};

/// Calls in flight on one node: each is a process there for as long as it takes.
const CALLS_IN_FLIGHT_MAX: usize = 32;
/// A tick is sent after this time without a write. The usual `net_ticktime` of 60 s cuts after 60 s of silence; for
/// nodes with a shorter one, each tick of theirs is answered at once.
const TICK_EVERY: Duration = Duration::from_secs(15);
/// How often abandoned calls are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Bytes waiting to be written at which no further call is taken, and no answer to the uninvited is given.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Room made before each read.
const READ_BYTES: usize = 16 << 10;
/// Messages that are not for us taken in one second; a peer that sends more is cut off.
const UNINVITED_MAX: usize = 1_000;
/// Time that answers still under way have after the client is dropped: long enough for one sweep.
const DRAIN: Duration = Duration::from_secs(2);
/// A call of which we never learnt the worker is forgotten after this time.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// The node did not start a process for it: `system_limit` when its process table is full.
    #[error("the node starts no process for it: {0}")]
    Refused(Box<str>),
    /// The function failed on the node.
    #[error("it failed on the node: {0}")]
    Failed(Box<str>),
    /// No answer before the deadline.
    #[error("no answer in time")]
    Late,
    /// The connection is gone.
    #[error("the connection is gone")]
    Lost,
}

impl CallError {
    /// Says whether the node starts no process because its process table is full.
    pub(super) fn is_table_full(&self) -> bool {
        matches!(self, Self::Refused(why) if &**why == "system_limit")
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The peer closed it.
    #[error("the node closed the connection")]
    Closed,
    /// The socket failed.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The peer announced more than we take.
    #[error("message of {0} bytes is longer than {1}")]
    TooLong(usize, usize),
    /// The peer does not keep to the protocol.
    #[error("protocol: {0}")]
    Wire(#[from] WireError),
    /// The peer sends what nobody asked for, and does not stop.
    #[error("more than {UNINVITED_MAX} messages in a second that nobody asked for")]
    Flood,
}

struct Request {
    call: Call,
    answer: oneshot::Sender<Result<Term, CallError>>,
}

/// Asks. When it is dropped, the driver comes to its end.
pub(super) struct Client {
    requests: mpsc::Sender<Request>,
    permits: Semaphore,
    call_timeout: Duration,
}

impl Client {
    /// Calls a function on the node. Cancel safe: a dropped call is abandoned on the node.
    ///
    /// # Errors
    /// [`CallError`].
    pub(super) async fn call(&self, call: Call) -> Result<Term, CallError> {
        let _permit = self.permits.acquire().await.map_err(|_| CallError::Lost)?;
        let (answer, answered) = oneshot::channel();
        let ask = async {
            self.requests.send(Request { call, answer }).await.map_err(|_| CallError::Lost)?;
            answered.await.map_err(|_| CallError::Lost)?
        };
        timeout(self.call_timeout, ask).await.unwrap_or(Err(CallError::Late))
    }
}

struct Pending {
    /// Who waits; closed when nobody does.
    answer: oneshot::Sender<Result<Term, CallError>>,
    worker: Option<Term>,
    since: Instant,
}

/// Moves the bytes of one connection.
pub(super) struct Driver {
    stream: TcpStream,
    wire: Wire,
    requests: mpsc::Receiver<Request>,
    frame_bytes_max: usize,
    received: BytesMut,
    waiting: BytesMut,
    pending: HashMap<u64, Pending>,
    last_id: u64,
    uninvited: usize,
}

/// Makes both ends of a connection whose handshake is done.
///
/// - `frame_bytes_max`: longest message taken.
/// - `call_timeout`: deadline of each call, from the moment it may be sent.
pub(super) fn link(stream: TcpStream, wire: Wire, frame_bytes_max: usize, call_timeout: Duration) -> (Driver, Client) {
    let (tx, rx) = mpsc::channel(CALLS_IN_FLIGHT_MAX);
    let driver = Driver {
        stream,
        wire,
        requests: rx,
        frame_bytes_max,
        received: BytesMut::new(),
        waiting: BytesMut::new(),
        pending: HashMap::new(),
        last_id: 0,
        uninvited: 0,
    };
    (driver, Client { requests: tx, permits: Semaphore::new(CALLS_IN_FLIGHT_MAX), call_timeout })
}

impl Driver {
    /// Runs until the connection ends, and says why; [`LinkError::Closed`] also after the client was dropped and the
    /// calls under way were answered or two seconds have passed.
    pub(super) async fn run(mut self) -> LinkError {
        match self.move_bytes().await {
            Ok(()) => LinkError::Closed,
            Err(why) => why,
        }
    }

    async fn move_bytes(&mut self) -> Result<(), LinkError> {
        let mut sweep = interval_at(Instant::now() + SWEEP_EVERY, SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = Instant::now();
        let mut drain_until = None;
        loop {
            let drained = self.pending.is_empty() && self.waiting.is_empty();
            if drain_until.is_some_and(|end| drained || Instant::now() >= end) {
                return Ok(());
            }
            self.received.reserve(READ_BYTES);
            let (mut reader, mut writer) = self.stream.split();
            // Each arm is cancel safe: a read or write either happened or did not, and what waits stays in our buffers.
            tokio::select! {
                read = reader.read_buf(&mut self.received) => {
                    if read? == 0 {
                        return Err(LinkError::Closed);
                    }
                    self.take_frames()?;
                }
                wrote = writer.write(&self.waiting), if !self.waiting.is_empty() => {
                    self.waiting.advance(wrote?);
                    written = Instant::now();
                }
                request = self.requests.recv(), if drain_until.is_none() && self.waiting.len() < WAITING_BYTES_MAX => {
                    let Some(request) = request else {
                        drain_until = Some(Instant::now() + DRAIN);
                        continue;
                    };
                    self.send(request);
                    // Those that wait already share the write.
                    while let Ok(request) = self.requests.try_recv() {
                        self.send(request);
                    }
                }
                () = sleep_until(drain_until.unwrap_or(written)), if drain_until.is_some() => return Ok(()),
                now = sweep.tick() => {
                    self.uninvited = 0;
                    self.abandon_unwanted(now);
                    if self.waiting.is_empty() && now.duration_since(written) >= TICK_EVERY {
                        self.say(wire::tick);
                    }
                }
            }
        }
    }

    fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.waiting.extend_from_slice(&out);
    }

    fn send(&mut self, Request { call, answer }: Request) {
        if answer.is_closed() {
            return;
        }
        self.last_id += 1;
        let mut out = Vec::new();
        self.wire.request(self.last_id, &call, &mut out);
        self.waiting.extend_from_slice(&out);
        self.pending.insert(self.last_id, Pending { answer, worker: None, since: Instant::now() });
    }

    /// Takes whole messages off what was received. The buffer grows with the bytes that arrive, not with the length
    /// that was announced.
    fn take_frames(&mut self) -> Result<(), LinkError> {
        while let Some(header) = self.received.first_chunk::<4>() {
            let length = u32::from_be_bytes(*header) as usize;
            if length > self.frame_bytes_max {
                return Err(LinkError::TooLong(length, self.frame_bytes_max));
            }
            if self.received.len() < 4 + length {
                return Ok(());
            }
            self.received.advance(4);
            let frame = self.received.split_to(length);
            self.take(&frame)?;
        }
        // A long answer should not be held for the life of the connection.
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
        Ok(())
    }

    fn take(&mut self, frame: &[u8]) -> Result<(), LinkError> {
        match self.wire.parse(frame)? {
            Incoming::Tick => {
                if self.waiting.is_empty() {
                    self.say(wire::tick);
                }
            }
            Incoming::Spawned { id, worker: Ok(worker) } if self.pending.contains_key(&id) => {
                if let Some(pending) = self.pending.get_mut(&id) {
                    pending.worker = Some(worker);
                }
            }
            Incoming::Spawned { id, worker: Err(why) } if self.pending.contains_key(&id) => {
                self.finish(id, Err(CallError::Refused(why)));
            }
            Incoming::Ended { id, reason } if self.pending.contains_key(&id) => {
                self.finish(id, outcome(reason));
            }
            Incoming::Wanted { answer } => {
                self.count_uninvited()?;
                if self.waiting.len() < WAITING_BYTES_MAX {
                    self.waiting.extend_from_slice(&answer);
                }
            }
            Incoming::Spawned { .. } | Incoming::Ended { .. } | Incoming::Ignored => self.count_uninvited()?,
        }
        Ok(())
    }

    fn count_uninvited(&mut self) -> Result<(), LinkError> {
        self.uninvited += 1;
        if self.uninvited > UNINVITED_MAX { Err(LinkError::Flood) } else { Ok(()) }
    }

    fn finish(&mut self, id: u64, result: Result<Term, CallError>) {
        if let Some(pending) = self.pending.remove(&id) {
            // Whoever asked may have stopped waiting in this moment: then nobody misses the answer.
            let _ = pending.answer.send(result);
        }
    }

    fn abandon_unwanted(&mut self, now: Instant) {
        let (wire, waiting) = (&self.wire, &mut self.waiting);
        self.pending.retain(|id, pending| match &pending.worker {
            _ if !pending.answer.is_closed() => true,
            Some(worker) => {
                let mut out = Vec::new();
                wire.abandon(*id, worker, &mut out);
                waiting.extend_from_slice(&out);
                false
            }
            None => now.duration_since(pending.since) < FORGET_AFTER,
        });
    }
}

/// Reads the reason of a worker's end: `{Ref, return, Value}`, or how the function failed.
fn outcome(reason: Term) -> Result<Term, CallError> {
    match reason {
        Term::Tuple(mut parts) if parts.len() >= 3 && matches!(parts[0], Term::Reference(_)) => {
            match parts[1].as_atom() {
                Some("return") => Ok(parts.swap_remove(2)),
                class => {
                    let what = parts[2].as_atom().or_else(|| parts[2].tuple()?.first()?.as_atom());
                    let class = class.unwrap_or("unknown");
                    Err(CallError::Failed(format!("{class} {}", what.unwrap_or("of another form")).into()))
                }
            }
        }
        Term::Atom(why) => Err(CallError::Failed(why)),
        // `{undef, [...]}` where erpc is missing.
        Term::Tuple(parts) => {
            Err(CallError::Failed(parts.first().and_then(Term::as_atom).unwrap_or("unknown reason").into()))
        }
        _ => Err(CallError::Failed("unknown reason".into())),
    }
}

#[cfg(test)]
pub(super) mod tests;
