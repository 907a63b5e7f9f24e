//! A script of appends, rolls and truncations is crashed after each of its file operations, and whatever the disk may
//! hold then, the log comes back: everything acknowledged is there once, at its offset, in order; nothing appears that
//! was not enqueued; no loss is reported, because nothing is lost. Then it is crashed again while it recovers.

#[path = "support/log.rs"]
mod support;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forewarn_ingest::log::{EmbeddedLog, Log};
use forewarn_schemas::{Offset, PartitionId};
use forewarn_vfs::{Entry, Open, SimVfs, Vfs, VfsFile};
use support::{open, read_all};

const PARTITIONS: u32 = 2;
const SEGMENT: u64 = 3000;
/// States tried after each operation, unless `FOREWARN_STATES` says otherwise.
const STATES_MAX: usize = 30;

/// A file system whose syncs wait for a gate, so that the test decides which records share a commit.
#[derive(Debug, Clone)]
struct Gated(SimVfs, Arc<Mutex<()>>);

#[derive(Debug)]
struct GatedFile(Box<dyn VfsFile>, Arc<Mutex<()>>);

impl Vfs for Gated {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.0.list(dir)
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(GatedFile(self.0.open(path, how)?, Arc::clone(&self.1))))
    }
    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_no_replace(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn available(&self, dir: &Path) -> io::Result<u64> {
        self.0.available(dir)
    }
}

impl VfsFile for GatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }
    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.0.truncate(bytes)
    }
    fn sync(&self) -> io::Result<()> {
        let _gate = self.1.lock().unwrap();
        self.0.sync()
    }
}

/// What must be true of a partition after the crash.
#[derive(Debug, Default, Clone)]
struct Ledger {
    /// Every record in the order it was enqueued; they are all different.
    enqueued: Vec<Bytes>,
    acknowledged: BTreeMap<Offset, Bytes>,
    /// What a truncation, finished or not, allowed to forget.
    forgotten: Offset,
}

enum Step {
    /// One record alone in its commit, then these many in the next one.
    Append(u32, usize),
    /// Forget all but the last so many.
    Truncate(u32, u64),
    Reopen,
}

const SCRIPT: [Step; 16] = [
    Step::Append(0, 0),
    Step::Append(0, 2),
    Step::Append(1, 1),
    Step::Append(0, 9),
    Step::Append(1, 20),
    Step::Truncate(0, 3),
    Step::Append(0, 1),
    Step::Reopen,
    Step::Append(0, 30),
    Step::Truncate(1, 0),
    Step::Append(1, 0),
    Step::Append(0, 0),
    Step::Truncate(0, 0),
    Step::Reopen,
    Step::Append(0, 3),
    Step::Append(1, 3),
];

/// Plays the script until it ends or the disk is gone.
async fn play(vfs: &SimVfs) -> Vec<Ledger> {
    let gate = Arc::new(Mutex::new(()));
    let mut ledgers = vec![Ledger::default(); PARTITIONS as usize];
    let gated = Gated(vfs.clone(), Arc::clone(&gate));
    let Ok((mut log, _)) = open(gated.clone(), PARTITIONS, SEGMENT) else { return ledgers };
    let mut number = 0u64;
    for step in &SCRIPT {
        match step {
            Step::Append(p, more) => {
                let (ledger, p) = (&mut ledgers[*p as usize], PartitionId(*p));
                let mut answers = Vec::new();
                let closed = {
                    let waiting = gate.lock().unwrap();
                    let mut enqueue = |log: &EmbeddedLog, answers: &mut Vec<_>| {
                        number += 1;
                        let size = 20 + number as usize * 37 % 700;
                        let record = Bytes::from(format!("{number:0size$}"));
                        match log.enqueue(p, record.clone()) {
                            Ok(answer) => {
                                ledger.enqueued.push(record.clone());
                                answers.push((record, answer));
                                false
                            }
                            Err(_) => true,
                        }
                    };
                    let mut closed = enqueue(&log, &mut answers);
                    // When the queue is empty the writer has taken the first, and waits at the gate with it.
                    futures::executor::block_on(log.room(p));
                    for _ in 0..*more {
                        closed |= enqueue(&log, &mut answers);
                    }
                    drop(waiting);
                    closed
                };
                let mut failed = closed;
                for (record, answer) in answers {
                    match answer.await {
                        Ok(offset) => assert!(ledger.acknowledged.insert(offset, record).is_none()),
                        Err(_) => failed = true,
                    }
                }
                if failed {
                    return ledgers;
                }
            }
            Step::Truncate(p, keep) => {
                let (ledger, p) = (&mut ledgers[*p as usize], PartitionId(*p));
                let before = Offset(log.bounds(p).end.0.saturating_sub(*keep));
                ledger.forgotten = ledger.forgotten.max(before);
                if log.truncate(p, before).await.is_err() {
                    return ledgers;
                }
            }
            Step::Reopen => {
                drop(log);
                let Ok((reopened, _)) = open(gated.clone(), PARTITIONS, SEGMENT) else { return ledgers };
                log = reopened;
            }
        }
    }
    ledgers
}

async fn verify(vfs: &SimVfs, ledgers: &[Ledger], context: &str) {
    let (log, recovery) = open(vfs.clone(), PARTITIONS, SEGMENT).unwrap_or_else(|e| panic!("{context}: {e}"));
    assert!(recovery.gaps.is_empty(), "{context}: {recovery:?}");
    for (p, ledger) in ledgers.iter().enumerate() {
        let p = PartitionId(p as u32);
        let found = read_all(&log, p).await;
        let start = log.bounds(p).start;
        assert!(start <= ledger.forgotten, "{context}: begins at {start}");
        let mut missing = ledger.acknowledged.clone();
        missing.retain(|offset, _| *offset >= start);
        let mut enqueued = ledger.enqueued.iter();
        for (offset, record) in &found {
            if let Some(acknowledged) = missing.remove(offset) {
                assert_eq!(*record, acknowledged, "{context}: at {offset}");
            }
            // In order, each once, and none that nobody enqueued.
            assert!(enqueued.any(|e| e == record), "{context}: {record:?} at {offset}");
        }
        assert!(missing.is_empty(), "{context}: lost {:?}", missing.keys());
        // What was served once is durable: a power cut now takes nothing of it away.
        let cut = vfs.crash_states(0, 1).next().expect("the first state");
        let (log_after_cut, _) = open(cut, PARTITIONS, SEGMENT).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(read_all(&log_after_cut, p).await, found, "{context}: served and then lost");
        let next = log.append(p, Bytes::from_static(b"after")).await.unwrap_or_else(|e| panic!("{context}: {e}"));
        let highest = ledger.acknowledged.keys().next_back();
        assert!(highest.is_none_or(|h| next > *h), "{context}: {next} was given before");
        assert_eq!(read_all(&log, p).await.last(), Some(&(next, Bytes::from_static(b"after"))), "{context}");
        let cut = vfs.crash_states(0, 1).next().expect("the first state");
        let (log_after_cut, _) = open(cut, PARTITIONS, SEGMENT).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(read_all(&log_after_cut, p).await, read_all(&log, p).await, "{context}: written and then lost");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn whatever_a_crash_leaves() {
    let whole = SimVfs::new();
    let ledgers = play(&whole).await;
    assert!(ledgers.iter().all(|l| l.acknowledged.len() == l.enqueued.len() && l.forgotten > Offset(0)));
    assert!(ledgers[0].acknowledged.len() > 50);
    let ops = whole.ops();
    let states_max = std::env::var("FOREWARN_STATES").map_or(STATES_MAX, |n| n.parse().unwrap());
    let mut checked = 0;
    for n in 0..=ops {
        let vfs = SimVfs::new();
        vfs.crash_after(n);
        let ledgers = play(&vfs).await;
        for (i, state) in vfs.crash_states(n, states_max).enumerate() {
            let context = format!("after operation {n}, state {i} of seed {n}");
            verify(&state.crash_states(0, 1).next().unwrap(), &ledgers, &context).await;
            checked += 1;
            if i % 10 == n as usize % 10 {
                crash_again(&state, &ledgers, &context).await;
            }
        }
        // Only the process died: what it had not synced is still there, for as long as the machine lives.
        vfs.crash_after(u64::MAX);
        verify(&vfs, &ledgers, &format!("killed after operation {n}")).await;
    }
    println!("{ops} operations, {checked} states");
    assert!(checked > 1000);
}

/// Crashes the recovery of `state` after each of its own operations.
async fn crash_again(state: &SimVfs, ledgers: &[Ledger], context: &str) {
    let copy = || state.crash_states(0, 1).next().expect("the first state");
    let ops = {
        let vfs = copy();
        drop(open(vfs.clone(), PARTITIONS, SEGMENT));
        vfs.ops()
    };
    for n in 0..ops {
        let vfs = copy();
        vfs.crash_after(n);
        drop(open(vfs.clone(), PARTITIONS, SEGMENT));
        for (i, twice) in vfs.crash_states(n, 6).enumerate() {
            verify(&twice, ledgers, &format!("{context}, then in recovery after {n}, state {i}")).await;
        }
    }
}
