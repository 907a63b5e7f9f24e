//! The slow cycle: which processes have long mailboxes. Lengths only; no message is ever copied.
//!
//! Registered processes are looked at in every scan. The others are taken from `erlang:processes()`, all of them or,
//! when there are many, a sample that moves on with each scan. What is found long is watched at every poll until it is
//! short again. A process is known by its registered name; those without one share the name [`UNREGISTERED`], under
//! which the longest mailbox is reported.

use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use futures::stream::{self, StreamExt};

use super::call::{Call, SystemInfo};
use super::config::BeamConfig;
use super::link::{CallError, Client};
use super::term::Term;

/// The object of processes without a name.
pub(super) const UNREGISTERED: &str = "unregistered";
/// Mailboxes watched at every poll.
const WATCHED_MAX: usize = 50;
/// Of these, processes without a name: they share one series.
const WATCHED_UNREGISTERED_MAX: usize = 10;
/// Processes in one call: 250 take about half a millisecond on the node and answer with 16 KiB.
const BATCH: usize = 250;
/// Calls of a scan in flight, so that polls find room between them.
const BATCHES_IN_FLIGHT: usize = 4;
/// Batches of one scan that are asked again process by process after no answer: one process that does not answer
/// must not hide its 249 neighbours.
const BATCHES_RETRIED_MAX: usize = 2;
/// Processes without an answer at which asking one by one ends: each costs its whole deadline.
const SILENT_MAX: usize = 8;
/// Bytes of a process id in an answer, without the node's name.
const PID_BYTES: usize = 16;

/// A process whose mailbox is watched.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Watched {
    /// The process.
    pub(super) pid: Term,
    /// Its registered name.
    pub(super) name: Option<String>,
    /// Messages waiting when it was last looked at.
    pub(super) length: u64,
}

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Mailboxes of at least half of the configured length.
    pub(super) long: Vec<Watched>,
    /// Processes looked at.
    pub(super) looked_at: usize,
    /// Processes on the node.
    pub(super) processes: usize,
}

/// Looks at mailboxes. `cursor` is where the rotating sample stands; it is moved on.
///
/// # Errors
/// [`CallError`] when the lists cannot be had. Batches without an answer are left out.
pub(super) async fn scan(
    client: &Client,
    config: &BeamConfig,
    node: &str,
    cursor: &mut usize,
) -> Result<Scan, CallError> {
    let (count, registered) = tokio::join!(client.call(Call::SystemInfo(SystemInfo::ProcessCount)), registered(client));
    let processes = count?.int().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let mut targets = registered?;
    // A list that would be cut off by our own cap, and cost us the connection, is not asked for.
    let list_bytes = processes.saturating_mul(PID_BYTES + node.len());
    if list_bytes <= config.reply_bytes_max.bytes() as usize / 2 {
        let named: HashSet<&[u8]> = targets.iter().filter_map(Term::pid_bytes).collect();
        let all = pids(client.call(Call::Processes).await?);
        let nameless = |pid: &Term| pid.pid_bytes().is_some_and(|raw| !named.contains(raw));
        let others: Vec<Term> = all.into_iter().filter(nameless).collect();
        targets.extend(sample(others, config.scan_processes_max, cursor));
    }
    let least = config.mailbox_watch_min.div_ceil(2);
    let mut scan = Scan { processes, ..Scan::default() };
    let mut unanswered = Vec::new();
    let batches = stream::iter(targets.chunks(BATCH).map(<[Term]>::to_vec));
    let mut answers = batches
        .map(|batch| async move { (client.call(Call::Mailboxes(batch.clone())).await, batch) })
        .buffer_unordered(BATCHES_IN_FLIGHT);
    while let Some((answer, batch)) = answers.next().await {
        match answer {
            Ok(answer) => {
                scan.looked_at += batch.len();
                let lengths = answer.list().unwrap_or_default().iter();
                let found = batch.iter().zip(lengths).filter_map(|(pid, info)| watched(pid, info));
                scan.long.extend(found.filter(|w| w.length >= least));
            }
            Err(CallError::Lost) => return Err(CallError::Lost),
            Err(_) => unanswered.push(batch),
        }
    }
    drop(answers);
    let singles: Vec<Term> = unanswered.into_iter().take(BATCHES_RETRIED_MAX).flatten().collect();
    let mut answers = stream::iter(singles)
        .map(|pid| async move { (client.call(Call::Mailbox(pid.clone())).await, pid) })
        .buffer_unordered(BATCHES_IN_FLIGHT);
    let mut silent = 0;
    while let Some((answer, pid)) = answers.next().await {
        match answer {
            Ok(info) => {
                scan.looked_at += 1;
                scan.long.extend(watched(&pid, &info).filter(|w| w.length >= least));
            }
            Err(CallError::Lost) => return Err(CallError::Lost),
            Err(_) => silent += 1,
        }
        if silent >= SILENT_MAX {
            break;
        }
    }
    drop(answers);
    Ok(scan)
}

/// Decides what is watched from now on: the longest of what a scan found, and of what was watched before as long as it
/// is not short again (half of `watch_min`).
pub(super) fn choose(before: &[Watched], scan: Scan, watch_min: u64) -> Vec<Watched> {
    let keep = |w: &Watched| w.length >= watch_min || before.iter().any(|b| b.pid == w.pid);
    let mut chosen: Vec<Watched> = scan.long.into_iter().filter(keep).collect();
    // The sample may not have come by what is watched already.
    for old in before {
        if old.length.saturating_mul(2) >= watch_min && chosen.iter().all(|c| c.pid != old.pid) {
            chosen.push(old.clone());
        }
    }
    chosen.sort_by_key(|w| std::cmp::Reverse(w.length));
    let mut nameless = 0;
    chosen.retain(|w| {
        nameless += usize::from(w.name.is_none());
        w.name.is_some() || nameless <= WATCHED_UNREGISTERED_MAX
    });
    chosen.truncate(WATCHED_MAX);
    chosen
}

/// Looks again at what is watched. Processes that are gone are left out; those without an answer keep their place and
/// have `None`.
///
/// # Errors
/// [`CallError::Lost`].
pub(super) async fn look(client: &Client, watched_now: &[Watched]) -> Result<Vec<(Watched, Option<u64>)>, CallError> {
    let answers = join_all(watched_now.iter().map(|w| client.call(Call::Mailbox(w.pid.clone())))).await;
    let mut seen = Vec::with_capacity(watched_now.len());
    for (old, answer) in watched_now.iter().zip(answers) {
        match answer {
            Ok(info) => seen.extend(watched(&old.pid, &info).map(|w| (w.clone(), Some(w.length)))),
            Err(CallError::Lost) => return Err(CallError::Lost),
            Err(_) => seen.push((old.clone(), None)),
        }
    }
    Ok(seen)
}

/// Returns the messages to report for each name: of processes that share a name, the longest mailbox.
pub(super) fn by_name(lengths: impl Iterator<Item = (Option<String>, u64)>) -> BTreeMap<String, u64> {
    let mut longest = BTreeMap::new();
    for (name, length) in lengths {
        let entry = longest.entry(name.unwrap_or_else(|| UNREGISTERED.into())).or_insert(0);
        *entry = length.max(*entry);
    }
    longest
}

async fn registered(client: &Client) -> Result<Vec<Term>, CallError> {
    let names = client.call(Call::Registered).await?;
    let mut found = Vec::new();
    for batch in names.list().unwrap_or_default().chunks(BATCH) {
        let batch: Vec<Term> = batch.iter().filter(|n| matches!(n, Term::Atom(_))).cloned().collect();
        found.extend(pids(client.call(Call::Whereis(batch)).await?));
    }
    Ok(found)
}

fn pids(list: Term) -> Vec<Term> {
    let Term::List(items) = list else { return Vec::new() };
    items.into_iter().filter(|t| matches!(t, Term::Pid(_))).collect()
}

/// Takes `max` of `all`, beginning where the last scan ended.
fn sample(mut all: Vec<Term>, max: usize, cursor: &mut usize) -> Vec<Term> {
    if all.len() <= max {
        *cursor = 0;
        return all;
    }
    let start = *cursor % all.len();
    *cursor = (start + max) % all.len();
    all.rotate_left(start);
    all.truncate(max);
    all
}

/// Reads `[{message_queue_len, N}, {registered_name, Name | []}]`; a process that is gone is `undefined`.
fn watched(pid: &Term, info: &Term) -> Option<Watched> {
    let (mut length, mut name) = (None, None);
    for pair in info.list()? {
        let [key, value] = pair.tuple()? else { return None };
        match key.as_atom()? {
            "message_queue_len" => length = value.int().and_then(|n| u64::try_from(n).ok()),
            "registered_name" => name = value.as_atom().map(str::to_owned),
            _ => {}
        }
    }
    Some(Watched { pid: pid.clone(), name, length: length? })
}

#[cfg(test)]
mod tests {
    use super::super::term::pid;
    use super::*;

    fn one(id: u32, name: &str, length: u64) -> Watched {
        Watched { pid: pid("n@h", id, 0, 1), name: (!name.is_empty()).then(|| name.into()), length }
    }

    #[test]
    fn a_sample_comes_by_every_process() {
        let all: Vec<Term> = (0..10).map(Term::Int).collect();
        let mut cursor = 0;
        let mut seen = HashSet::new();
        for _ in 0..4 {
            let some = sample(all.clone(), 3, &mut cursor);
            assert_eq!(some.len(), 3);
            seen.extend(some.iter().map(|t| t.int().unwrap()));
        }
        assert_eq!(seen.len(), 10);
        assert_eq!(sample(all.clone(), 10, &mut cursor), all);
    }

    #[test]
    fn watches_the_longest_and_lets_go_of_the_short() {
        let scan = |long| Scan { long, ..Scan::default() };
        let before = [one(1, "a", 1500), one(2, "b", 400), one(3, "c", 900)];
        // 3 was seen at 600: not long, but watched already. 4 is new and too short. 1 was not in the sample.
        let chosen = choose(&before, scan(vec![one(3, "c", 600), one(4, "d", 700), one(5, "e", 5000)]), 1000);
        let names: Vec<&str> = chosen.iter().filter_map(|w| w.name.as_deref()).collect();
        assert_eq!(names, ["e", "a", "c"]);
        let many = (0..200).map(|i| one(i, if i % 2 == 0 { "x" } else { "" }, 1000 + u64::from(i))).collect();
        let chosen = choose(&[], scan(many), 1000);
        assert_eq!(chosen.len(), WATCHED_MAX);
        assert_eq!(chosen.iter().filter(|w| w.name.is_none()).count(), WATCHED_UNREGISTERED_MAX);
        assert_eq!(chosen[0].length, 1199);
    }

    #[tokio::test]
    async fn a_process_that_does_not_answer_hides_no_other() {
        use super::super::link::tests::scripted;
        // Process 7 of 10 never answers; each process has 1000 messages and its number.
        let script = |function: &str, arguments: &[Term]| {
            let all: Vec<Term> = (0..10).map(|i| pid("n@h", i, 0, 1)).collect();
            let info = |asked: &Term| {
                let i = all.iter().position(|p| p == asked).filter(|i| *i != 7)? as i64;
                let pair = |key: &str, value| Term::Tuple(vec![Term::atom(key), value]);
                let name = pair("registered_name", Term::List(vec![]));
                Some(Term::List(vec![pair("message_queue_len", Term::Int(1000 + i)), name]))
            };
            match function {
                "erlang:system_info" => Some(Term::Int(10)),
                "erlang:registered" => Some(Term::List(vec![])),
                "erlang:processes" => Some(Term::List(all.clone())),
                "lists:zipwith" => Some(Term::List(arguments[1].list()?.iter().map(info).collect::<Option<_>>()?)),
                "erlang:process_info" => info(&arguments[0]),
                other => panic!("{other}"),
            }
        };
        let (driver, client, saw, _node) = scripted(script, std::time::Duration::from_millis(200)).await;
        let mut cursor = 0;
        let config = BeamConfig::default();
        let scanned = tokio::select! {
            why = driver.run() => panic!("{why}"),
            scanned = scan(&client, &config, "n@h", &mut cursor) => scanned.unwrap(),
        };
        assert_eq!((scanned.looked_at, scanned.processes, scanned.long.len()), (9, 10, 9));
        let calls = saw.lock().unwrap().calls.clone();
        assert_eq!(calls.iter().filter(|c| *c == "erlang:process_info").count(), 10, "{calls:?}");
        // A list that would not fit is not asked for.
        let small = BeamConfig { reply_bytes_max: forewarn_schemas::ByteSize(100), ..config };
        let (driver, client, saw, _node) = scripted(script, std::time::Duration::from_millis(200)).await;
        let scanned = tokio::select! {
            why = driver.run() => panic!("{why}"),
            scanned = scan(&client, &small, "n@h", &mut cursor) => scanned.unwrap(),
        };
        assert_eq!((scanned.looked_at, scanned.processes), (0, 10));
        assert!(!saw.lock().unwrap().calls.iter().any(|c| c == "erlang:processes"));
    }

    #[test]
    fn reads_answers_about_processes() {
        let pair = |k: &str, v| Term::Tuple(vec![Term::atom(k), v]);
        let named =
            Term::List(vec![pair("message_queue_len", Term::Int(7)), pair("registered_name", Term::atom("kernel"))]);
        assert_eq!(watched(&Term::Int(1), &named).unwrap().name.as_deref(), Some("kernel"));
        let nameless =
            Term::List(vec![pair("message_queue_len", Term::Int(7)), pair("registered_name", Term::List(vec![]))]);
        assert_eq!(watched(&Term::Int(1), &nameless).unwrap().name, None);
        for gone in [Term::atom("undefined"), Term::List(vec![]), Term::List(vec![Term::Int(1)])] {
            assert_eq!(watched(&Term::Int(1), &gone), None);
        }
        let lengths = [(None, 5), (Some("a".into()), 2), (None, 9)];
        let expected = BTreeMap::from([("a".to_owned(), 2), (UNREGISTERED.to_owned(), 9)]);
        assert_eq!(by_name(lengths.into_iter()), expected);
    }
}
