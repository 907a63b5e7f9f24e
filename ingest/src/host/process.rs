//! Descriptors of processes against their soft limit, by process name: of several processes with one name the one
//! nearest to its limit stands for all. A pid never leaves this module.
//!
//! Cost. Since Linux 6.2 the size of `/proc/<pid>/fd` is the number of its entries, so one `stat` counts them, and
//! it needs no right over the process. Before, the directory must be read, which takes long where there are many
//! entries and needs the right to trace the process. There, a process is counted when it is first seen, in every cycle
//! while it uses a sixteenth of its limit or more, and else in every sixth cycle; between, its last count stands.
//! Limits are read again by the same rule, and when the name changes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::closest::keep_closest;
use super::collector::Part;
use super::error::{Error, is_gone};
use super::series::Out;
use super::text::printable;
use super::tree::{Tree, read_bytes, read_text};

/// Cycles from one look at a process far from its limit to the next.
const ROTATION: u64 = 6;
/// From this share of its limit on a process is looked at in every cycle.
const NEAR: f64 = 1.0 / 16.0;

/// A lower limit is no budget but a ban on opening more: a sandbox sets it on purpose.
const LIMIT_MIN: u64 = 16;

const UNREADABLE: &str = "descriptors of some processes may not be read";
const UNREADABLE_MEND: &str =
    "grant CAP_SYS_PTRACE (systemd: AmbientCapabilities=CAP_SYS_PTRACE), or run as the user that owns them";
const HIDDEN: &str = "processes of other users are hidden (hidepid)";
const HIDDEN_MEND: &str = "mount /proc without hidepid, or run in the group that its option gid= names";

#[derive(Debug)]
pub(super) struct Processes {
    top: usize,
    /// Whether the size of the directory is the count.
    counts_by_size: bool,
    cycle: u64,
    known: HashMap<u32, Process>,
}

#[derive(Debug, Clone)]
struct Process {
    name: String,
    used: u64,
    /// `None` when the soft limit is "unlimited".
    limit: Option<u64>,
    seen: u64,
}

impl Process {
    /// The label; a name can be empty, a label cannot.
    fn key(&self) -> &str {
        if self.name.is_empty() { "(none)" } else { &self.name }
    }

    /// Whether the limit is one that the process can run into: not when it was set below what was open already, as by
    /// sshd's child before the login.
    fn is_limited(&self) -> bool {
        self.limit.is_some_and(|limit| limit >= LIMIT_MIN && self.used <= limit)
    }

    fn share(&self) -> f64 {
        self.limit.map_or(0.0, |limit| self.used as f64 / limit as f64)
    }
}

impl Processes {
    /// Makes the part; `release` is the kernel's, such as `6.1.0-13-amd64`.
    pub(super) fn new(top: usize, release: &str, tree: &Tree) -> Self {
        // An emulated kernel may claim a release and lack the count. This process has descriptors for certain.
        let own = fs::metadata(tree.proc("self/fd")).is_ok_and(|m| m.len() > 0);
        Self { top, counts_by_size: counts_by_size(release) && own, cycle: 0, known: HashMap::new() }
    }

    /// Looks at one process; `None` when it has no descriptors (a kernel thread) or ended meanwhile.
    fn look(&self, dir: &mut PathBuf, pid: u32) -> Result<Option<Process>, Error> {
        let before = self.known.get(&pid);
        let due = (u64::from(pid) + self.cycle).is_multiple_of(ROTATION);
        let again = |p: &Process| due || p.share() >= NEAR;
        let used = match before {
            Some(p) if !self.counts_by_size && !again(p) => p.used,
            _ => read_at(dir, "fd", |fd| {
                let count = if self.counts_by_size { fs::metadata(fd).map(|m| m.len()) } else { count_entries(fd) };
                count.map_err(|e| Error::io(fd, e))
            })?,
        };
        if used == 0 {
            return Ok(None);
        }
        let name = printable(read_at(dir, "comm", read_bytes)?.trim_ascii_end());
        let limit = match before {
            Some(p) if p.name == name && !again(p) => p.limit,
            _ => read_at(dir, "limits", |path| {
                soft_limit(&read_text(path)?).ok_or_else(|| Error::malformed(path, "limit of open files"))
            })?,
        };
        Ok(Some(Process { name, used, limit, seen: self.cycle }))
    }
}

impl Part for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn collect(&mut self, tree: &Tree, out: &mut Out<'_>) -> Result<(), Error> {
        self.cycle += 1;
        let root = tree.proc_root();
        let list = fs::read_dir(root).map_err(|e| Error::io(root, e))?;
        let mut dir = root.to_owned();
        let mut unreadable = 0u32;
        for entry in list {
            let entry = entry.map_err(|e| Error::io(root, e))?;
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            dir.push(entry.file_name());
            match self.look(&mut dir, pid) {
                Ok(Some(process)) => {
                    self.known.insert(pid, process);
                }
                Ok(None) => {}
                Err(e) if e.is_gone() => {}
                Err(Error::Io { .. }) if is_kernel_thread(&mut dir) => {}
                Err(Error::Io { .. }) => unreadable += 1,
                Err(e) => {
                    out.error(&e);
                    if let Some(p) = self.known.get(&pid) {
                        out.unknown(p.key());
                    }
                }
            }
            dir.pop();
        }
        self.known.retain(|_, p| p.seen == self.cycle);
        write(worst_by_name(self.known.values()), self.top, out);

        out.set("host_process_unreadable", f64::from(unreadable));
        if unreadable > 0 {
            out.notice(UNREADABLE, UNREADABLE_MEND);
        } else {
            out.mended(UNREADABLE);
        }
        // Process 1 is in every process namespace.
        if self.cycle == 1 && !root.join("1").exists() {
            out.notice(HIDDEN, HIDDEN_MEND);
        }
        Ok(())
    }
}

/// Of all processes with one name the one nearest to its limit, by name.
fn worst_by_name<'p>(processes: impl Iterator<Item = &'p Process>) -> Vec<&'p Process> {
    let mut worst: HashMap<&str, &Process> = HashMap::new();
    for p in processes.filter(|p| p.is_limited()) {
        let one = worst.entry(&p.name).or_insert(p);
        if p.share() > one.share() {
            *one = p;
        }
    }
    let mut list: Vec<_> = worst.into_values().collect();
    list.sort_by(|a, b| a.name.cmp(&b.name));
    list
}

fn write(mut list: Vec<&Process>, top: usize, out: &mut Out<'_>) {
    keep_closest(&mut list, top, |p| p.share(), |p| out.knows(p.key()));
    for p in list {
        let Some(limit) = p.limit else { continue };
        let labels = [("process", p.key())];
        let mut object = out.object(p.key(), &labels);
        object.set("host_process_file_descriptors_used", p.used as f64);
        object.set("host_process_file_descriptors_limit", limit as f64);
    }
}

/// Says whether a process has no command line: it is a thread of the kernel, or has ended and waits to be reaped.
fn is_kernel_thread(dir: &mut PathBuf) -> bool {
    read_at(dir, "cmdline", read_bytes).is_ok_and(|c| c.is_empty())
}

/// Calls `read` with the path of a file below `dir`.
fn read_at<T>(dir: &mut PathBuf, file: &str, read: impl FnOnce(&Path) -> Result<T, Error>) -> Result<T, Error> {
    dir.push(file);
    let done = read(dir);
    dir.pop();
    done
}

fn count_entries(dir: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        match entry {
            Ok(_) => count += 1,
            Err(e) if is_gone(&e) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

/// Reads the soft limit from `Max open files            1024                 4096                 files`.
///
/// Returns `None` when there is no such line, `Some(None)` when it says `unlimited`.
fn soft_limit(limits: &str) -> Option<Option<u64>> {
    let rest = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    let mut words = rest.split_ascii_whitespace();
    let soft = words.next()?;
    // A line cut short could end within the number.
    words.next()?;
    if soft == "unlimited" { Some(None) } else { soft.parse().ok().map(Some) }
}

fn counts_by_size(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 2)
}

#[cfg(test)]
mod tests;
