//! The fast cycle: what is asked of a node at every poll, and the numbers that come of it.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::call::{Call, ControllerFile, HostFile, Statistics, SystemInfo};
use super::host_text::{self, CgroupDir};
use super::link::{CallError, Client};
use super::term::Term;
use crate::host::{MemoryFiles, cgroup_memory_used_by};

/// A metric's name and its value.
pub(super) type Row = (&'static str, f64);

/// What one poll brought.
#[derive(Debug, PartialEq)]
pub(super) struct Poll {
    /// The samples.
    pub(super) rows: Vec<Row>,
    /// Whether every question was answered, so that a series which is not there is gone.
    pub(super) complete: bool,
}

/// What is known of a node for as long as a connection lasts, and where to look on its machine.
#[derive(Debug)]
pub(super) struct Session {
    /// Name and version of the release, unless it is the one of plain Erlang.
    pub(super) release: Option<(String, String)>,
    /// Facts for a person.
    pub(super) facts: BTreeMap<String, String>,
    /// Start of the emulator in native time units, and how many of them are a second.
    start: Option<(i64, f64)>,
    /// Start of the emulator in seconds since the epoch.
    start_time: Option<f64>,
    page_bytes: u64,
    cgroup: Option<MemoryCgroup>,
    pids: Option<CgroupDir>,
    /// The last limit read: the node says that its process table is full when it starts no process for us any more.
    process_limit: Option<f64>,
}

/// The levels of the memory controller above a node, and which of them binds.
#[derive(Debug)]
struct MemoryCgroup {
    levels: Vec<CgroupDir>,
    version: MemoryFiles,
    limit_file: ControllerFile,
    /// Read in the node's own level: kills there, not in groups below or beside it.
    oom_file: ControllerFile,
    binding: Option<usize>,
}

const SYSTEM_INFO: [(SystemInfo, &str); 9] = [
    (SystemInfo::ProcessCount, "beam_processes"),
    (SystemInfo::ProcessLimit, "beam_processes_limit"),
    (SystemInfo::PortCount, "beam_ports"),
    (SystemInfo::PortLimit, "beam_ports_limit"),
    (SystemInfo::AtomCount, "beam_atoms"),
    (SystemInfo::AtomLimit, "beam_atoms_limit"),
    (SystemInfo::EtsCount, "beam_ets_tables"),
    (SystemInfo::EtsLimit, "beam_ets_tables_limit"),
    (SystemInfo::SchedulersOnline, "beam_schedulers_online"),
];

const STATISTICS: [Statistics; 7] = [
    Statistics::RunQueueLengths,
    Statistics::RunQueueLengthsAll,
    Statistics::ActiveTasksAll,
    Statistics::Reductions,
    Statistics::GarbageCollection,
    Statistics::Io,
    Statistics::ContextSwitches,
];

const MEMORY_KINDS: [(&str, &str); 9] = [
    ("total", "beam_memory_total_bytes"),
    ("processes", "beam_memory_processes_bytes"),
    ("processes_used", "beam_memory_processes_used_bytes"),
    ("system", "beam_memory_system_bytes"),
    ("atom", "beam_memory_atom_bytes"),
    ("atom_used", "beam_memory_atom_used_bytes"),
    ("binary", "beam_memory_binary_bytes"),
    ("code", "beam_memory_code_bytes"),
    ("ets", "beam_memory_ets_bytes"),
];

impl Session {
    /// Learns what stays the same while the connection lasts.
    ///
    /// # Errors
    /// [`CallError`] when the node answers nothing; single questions may fail.
    pub(super) async fn open(client: &Client) -> Result<Self, CallError> {
        let info = |item| client.call(Call::SystemInfo(item));
        let file = |file| read(client, file);
        let (otp, erts, start, native, offset, script, status, statm, cgroup) = tokio::join!(
            info(SystemInfo::OtpRelease),
            info(SystemInfo::ErtsVersion),
            info(SystemInfo::StartTime),
            client.call(Call::NativePerSecond),
            client.call(Call::TimeOffset),
            client.call(Call::ScriptId),
            file(HostFile::Status),
            file(HostFile::Statm),
            file(HostFile::Cgroup),
        );
        // A full process table refuses all of this, and is the moment in which the node must not be lost.
        if let Err(why) = &otp
            && !why.is_table_full()
        {
            return Err(why.clone());
        }
        let number = |answer: Result<Term, CallError>| answer.ok().and_then(|t| t.int());
        let native = number(native).filter(|n| *n > 0).map(|n| n as f64);
        let start = number(start).zip(native);
        let start_time = start.zip(number(offset)).map(|((start, per_second), offset)| {
            // To the millisecond: finer is noise of the clock's correction.
            ((start.saturating_add(offset) as f64 / per_second) * 1000.0).round() / 1000.0
        });
        let page_bytes = status.ok().zip(statm.ok()).and_then(|(s, m)| host_text::page_bytes(&s, &m)).unwrap_or(4096);
        let release = script.ok().and_then(|t| release_of(&t));
        let mut facts = BTreeMap::new();
        for (name, answer) in [("otp_release", otp), ("erts", erts)] {
            facts.extend(answer.ok().and_then(|t| t.text()).map(|text| (name.to_owned(), text)));
        }
        facts.extend(release.as_ref().map(|(name, version)| ("release".to_owned(), format!("{name} {version}"))));
        let groups = host_text::cgroups(&cgroup.unwrap_or_default());
        let pids = finite_pids(client, groups.unified.iter().chain(&groups.pids_v1)).await;
        let cgroup = MemoryCgroup::find(client, groups).await;
        Ok(Self { release, facts, start, start_time, page_bytes, cgroup, pids, process_limit: None })
    }

    /// Asks everything at once.
    ///
    /// # Errors
    /// [`CallError::Lost`] when the connection is gone; another when nothing at all was answered.
    pub(super) async fn poll(&mut self, client: &Client) -> Result<Poll, CallError> {
        let calls = self.calls();
        let answers = join_all(calls.iter().map(|call| client.call(call.clone()))).await;
        if answers.contains(&Err(CallError::Lost)) {
            return Err(CallError::Lost);
        }
        let alive = answers.iter().any(|a| a.as_ref().err().is_none_or(CallError::is_table_full));
        if let (false, Some(Err(why))) = (alive, answers.first()) {
            return Err(why.clone());
        }
        let mut poll = Poll { rows: Vec::with_capacity(64), complete: !answers.contains(&Err(CallError::Late)) };
        let mut files = BTreeMap::new();
        let mut table_full = false;
        for (call, answer) in calls.iter().zip(answers) {
            match (call, answer) {
                (Call::ReadFile(file), Ok(answer)) => files.extend(text_of(&answer).map(|t| (file.clone(), t))),
                (_, Ok(answer)) => self.rows(call, &answer, &mut poll.rows),
                (_, Err(why)) => table_full |= why.is_table_full(),
            }
        }
        let of = |rows: &[Row], name| rows.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        self.process_limit = of(&poll.rows, "beam_processes_limit").or(self.process_limit);
        if table_full {
            // Not a guess: a node refuses with system_limit when no slot of its process table is free.
            poll.complete = false;
            let limit = self.process_limit;
            for name in ["beam_processes", "beam_processes_limit"] {
                if of(&poll.rows, name).is_none() {
                    poll.rows.extend(limit.map(|limit| (name, limit)));
                }
            }
        }
        self.memory(&files, &mut poll.rows);
        self.pids(&files, &mut poll.rows);
        Ok(poll)
    }

    fn calls(&self) -> Vec<Call> {
        let mut calls = vec![Call::Memory, Call::MonotonicTime];
        calls.extend(SYSTEM_INFO.iter().map(|(item, _)| Call::SystemInfo(*item)));
        calls.extend(STATISTICS.iter().map(|item| Call::Statistics(*item)));
        let mut files = vec![HostFile::Statm, HostFile::Meminfo];
        if let Some(group) = &self.cgroup {
            files.extend(group.files());
        }
        if let Some(dir) = &self.pids {
            let pids = [ControllerFile::PidsCurrent, ControllerFile::PidsMax];
            files.extend(pids.map(|file| HostFile::Controller(dir.clone(), file)));
        }
        calls.extend(files.into_iter().map(Call::ReadFile));
        calls
    }

    fn rows(&self, call: &Call, answer: &Term, rows: &mut Vec<Row>) {
        let part = |i: usize| answer.tuple()?.get(i)?.number();
        let mut add = |name, value: Option<f64>| rows.extend(value.map(|v| (name, v)));
        match call {
            Call::Memory => {
                for (kind, bytes) in pairs(answer) {
                    let name = MEMORY_KINDS.iter().find(|(k, _)| *k == kind).map(|(_, name)| *name);
                    if let Some(name) = name {
                        add(name, bytes.number());
                    }
                }
            }
            Call::MonotonicTime => {
                let uptime = self.start.zip(answer.int());
                let uptime = uptime.map(|((start, per_second), now)| now.saturating_sub(start) as f64 / per_second);
                add("beam_uptime_seconds", uptime);
                add("beam_start_time_seconds", uptime.and(self.start_time));
            }
            Call::SystemInfo(item) => {
                if let Some((_, name)) = SYSTEM_INFO.iter().find(|(i, _)| i == item) {
                    add(name, answer.number());
                }
            }
            Call::Statistics(item) => match item {
                Statistics::RunQueueLengths => add("beam_run_queue_length", answer.number()),
                Statistics::RunQueueLengthsAll => add("beam_run_queues_length", answer.number()),
                Statistics::ActiveTasksAll => add("beam_active_tasks", answer.number()),
                Statistics::Reductions => add("beam_reductions_total", part(0)),
                Statistics::ContextSwitches => add("beam_context_switches_total", part(0)),
                Statistics::GarbageCollection => {
                    add("beam_gc_total", part(0));
                    add("beam_gc_words_reclaimed_total", part(1));
                }
                Statistics::Io => {
                    let bytes = |i: usize| answer.tuple()?.get(i)?.tuple()?.get(1)?.number();
                    add("beam_io_input_bytes_total", bytes(0));
                    add("beam_io_output_bytes_total", bytes(1));
                }
            },
            _ => {}
        }
    }

    /// The memory that the OOM killer looks at: against a limit of the cgroup, what the cgroup cannot give back (no
    /// page cache); against RAM, the resident set.
    fn memory(&mut self, files: &BTreeMap<HostFile, String>, rows: &mut Vec<Row>) {
        let rss = files.get(&HostFile::Statm).and_then(|t| host_text::statm(t));
        let rss = rss.and_then(|(_, pages)| pages.checked_mul(self.page_bytes));
        let ram = files.get(&HostFile::Meminfo).and_then(|t| host_text::ram_bytes(t));
        rows.extend(rss.map(|rss| ("beam_memory_rss_bytes", rss as f64)));
        let mut used_and_limit = rss.zip(ram);
        let mut basis = "RSS of the emulator against RAM".to_owned();
        if let Some(group) = &mut self.cgroup {
            let text = |dir: &CgroupDir, file| files.get(&HostFile::Controller(dir.clone(), file));
            let asked = group.binding;
            group.choose(files, ram);
            if let Some(level) = group.binding {
                let dir = &group.levels[level];
                let stat = text(dir, ControllerFile::MemoryStat);
                let used = stat.and_then(|stat| cgroup_memory_used_by(group.version, stat));
                let limit = text(dir, group.limit_file).and_then(|t| host_text::single(t));
                // Right after the binding level changed, its use was not asked for yet.
                used_and_limit = used.filter(|_| asked == group.binding).zip(limit);
                basis = format!("use of the cgroup {} against its limit", dir.path());
                let kills = group.levels.first().and_then(|own| text(own, group.oom_file));
                let kills = kills.and_then(|t| host_text::keyed(t, "oom_kill"));
                rows.extend(kills.map(|kills| ("beam_cgroup_oom_kills_total", kills as f64)));
            }
        }
        if let Some((used, limit)) = used_and_limit {
            rows.push(("beam_memory_used_bytes", used as f64));
            rows.push(("beam_memory_limit_bytes", limit as f64));
            self.facts.insert("memory".into(), basis);
        }
    }

    fn pids(&self, files: &BTreeMap<HostFile, String>, rows: &mut Vec<Row>) {
        let Some(dir) = &self.pids else { return };
        let number = |file| files.get(&HostFile::Controller(dir.clone(), file)).and_then(|t| host_text::single(t));
        if let Some((used, limit)) = number(ControllerFile::PidsCurrent).zip(number(ControllerFile::PidsMax)) {
            rows.push(("beam_cgroup_pids", used as f64));
            rows.push(("beam_cgroup_pids_limit", limit as f64));
        }
    }
}

impl MemoryCgroup {
    /// Finds the directory that is the node's own on its machine; in a container that is often the mount itself.
    async fn find(client: &Client, groups: host_text::Cgroups) -> Option<Self> {
        use ControllerFile as File;
        let v1 = (groups.memory_v1, MemoryFiles::V1, File::MemoryLimitV1, File::MemoryUsageV1);
        let v2 = (groups.unified, MemoryFiles::V2, File::MemoryMax, File::MemoryCurrent);
        for (mut levels, version, limit_file, usage_file) in [v1, v2] {
            let uses = join_all(levels.iter().map(|d| read(client, HostFile::Controller(d.clone(), usage_file)))).await;
            let Some(own) = uses.iter().position(Result::is_ok) else { continue };
            levels.drain(..own);
            let oom_file = match version {
                MemoryFiles::V1 => File::MemoryOomV1,
                MemoryFiles::V2 => {
                    let local = HostFile::Controller(levels[0].clone(), File::MemoryEventsLocal);
                    if read(client, local).await.is_ok() { File::MemoryEventsLocal } else { File::MemoryEvents }
                }
            };
            let mut group = Self { levels, version, limit_file, oom_file, binding: None };
            let limits = group.levels.iter().map(|d| HostFile::Controller(d.clone(), limit_file));
            let wanted: Vec<HostFile> = limits.chain([HostFile::Meminfo]).collect();
            let texts = join_all(wanted.iter().map(|file| read(client, file.clone()))).await;
            let files: BTreeMap<HostFile, String> =
                wanted.into_iter().zip(texts).filter_map(|(file, text)| Some((file, text.ok()?))).collect();
            group.choose(&files, files.get(&HostFile::Meminfo).and_then(|t| host_text::ram_bytes(t)));
            return Some(group);
        }
        None
    }

    fn files(&self) -> Vec<HostFile> {
        let limits = self.levels.iter().map(|dir| HostFile::Controller(dir.clone(), self.limit_file));
        let binding = self.binding.map(|level| &self.levels[level]);
        let of_binding = binding.into_iter().flat_map(|dir| {
            let own = self.levels.first().map(|own| HostFile::Controller(own.clone(), self.oom_file));
            own.into_iter().chain([HostFile::Controller(dir.clone(), ControllerFile::MemoryStat)])
        });
        limits.chain(of_binding).collect()
    }

    /// Chooses the level with the lowest limit, if that is below RAM.
    fn choose(&mut self, files: &BTreeMap<HostFile, String>, ram: Option<u64>) {
        let limits = self.levels.iter().enumerate().filter_map(|(level, dir)| {
            let text = files.get(&HostFile::Controller(dir.clone(), self.limit_file))?;
            Some((host_text::single(text)?, level))
        });
        self.binding = limits.min().filter(|(limit, _)| ram.is_none_or(|ram| *limit < ram)).map(|(_, level)| level);
    }
}

/// Counts the emulator's descriptors and reads how many it may have; part of the slow cycle, because the list is as
/// long as the count.
pub(super) async fn descriptors(client: &Client) -> Vec<Row> {
    let (open, limits) = tokio::join!(client.call(Call::OpenFds), read(client, HostFile::Limits));
    // One entry is the directory that was opened to list it.
    let open = open.ok().and_then(|t| Some(ok_of(&t)?.list()?.len().saturating_sub(1)));
    let limit = limits.ok().and_then(|text| host_text::open_files_max(&text));
    let open = open.map(|n| ("beam_fds", n as f64));
    open.into_iter().chain(limit.map(|n| ("beam_fds_limit", n as f64))).collect()
}

async fn finite_pids<'a>(client: &Client, dirs: impl Iterator<Item = &'a CgroupDir>) -> Option<CgroupDir> {
    let dirs: Vec<&CgroupDir> = dirs.collect();
    let file = |dir: &CgroupDir| HostFile::Controller(dir.clone(), ControllerFile::PidsMax);
    let limits = join_all(dirs.iter().map(|dir| read(client, file(dir)))).await;
    let finite = |text: &Result<String, CallError>| text.as_ref().ok().and_then(|t| host_text::single(t)).is_some();
    let level = limits.iter().position(finite)?;
    Some(dirs[level].clone())
}

async fn read(client: &Client, file: HostFile) -> Result<String, CallError> {
    let answer = client.call(Call::ReadFile(file)).await?;
    text_of(&answer).ok_or(CallError::Failed("no such file".into()))
}

fn text_of(answer: &Term) -> Option<String> {
    ok_of(answer)?.text()
}

fn ok_of(answer: &Term) -> Option<&Term> {
    match answer.tuple()? {
        [ok, value] if ok.as_atom() == Some("ok") => Some(value),
        _ => None,
    }
}

fn pairs(list: &Term) -> impl Iterator<Item = (&str, &Term)> {
    list.list().unwrap_or_default().iter().filter_map(|pair| match pair.tuple()? {
        [key, value] => Some((key.as_atom()?, value)),
        _ => None,
    })
}

/// Reads `init:script_id()`. The boot scripts that come with Erlang name Erlang, not what runs on it.
fn release_of(script_id: &Term) -> Option<(String, String)> {
    let [name, version] = script_id.tuple()? else { return None };
    let (name, version) = (name.text()?, version.text()?);
    let of_erlang = name.starts_with("Erlang") || name.starts_with("OTP") || name.starts_with("start_");
    let plain = !name.is_empty() && name.len() <= 255 && !name.contains(|c: char| c.is_control());
    (plain && !of_erlang).then_some((name, version))
}

#[cfg(test)]
mod tests;
