//! The closed list of what we call on a node. Nothing else can be called: [`Call`] is the only thing that a
//! connection takes, and its variants carry no function names.
//!
//! Each function reads. None evaluates code, loads a module, starts a process that outlives the call, or copies a
//! message. All are called through `erpc:execute_call/4`, which is loaded on every distributed node since OTP 23.

use super::host_text::CgroupDir;
use super::term::Term;

/// One question to a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    /// `erlang:memory()`.
    Memory,
    /// `erlang:system_info(Item)`.
    SystemInfo(SystemInfo),
    /// `erlang:statistics(Item)`.
    Statistics(Statistics),
    /// `erlang:monotonic_time()`, in native units.
    MonotonicTime,
    /// `erlang:time_offset()`, in native units.
    TimeOffset,
    /// `erlang:convert_time_unit(1, second, native)`.
    NativePerSecond,
    /// `init:script_id()`: name and version of the release.
    ScriptId,
    /// `prim_file:read_file(Path)`, which runs in the caller, not in the file server.
    ReadFile(HostFile),
    /// `prim_file:list_dir("/proc/self/fd")`: the descriptors of the emulator, to be counted.
    OpenFds,
    /// `erlang:registered()`.
    Registered,
    /// `lists:map(fun erlang:whereis/1, Names)`: names that [`Call::Registered`] returned, so no new atoms.
    Whereis(Vec<Term>),
    /// `erlang:processes()`.
    Processes,
    /// `lists:zipwith(fun erlang:process_info/2, Pids, Items)`, each item `[message_queue_len, registered_name]`.
    Mailboxes(Vec<Term>),
    /// `erlang:process_info(Pid, [message_queue_len, registered_name])`, for a process that is watched.
    Mailbox(Term),
}

macro_rules! items {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $atom:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum $name { $(#[doc = concat!("`", $atom, "`")] $variant),+ }

        impl $name {
            fn atom(self) -> &'static str {
                match self { $(Self::$variant => $atom),+ }
            }
        }
    };
}

items! {
    /// An item of `erlang:system_info/1`.
    SystemInfo {
        ProcessCount = "process_count",
        ProcessLimit = "process_limit",
        PortCount = "port_count",
        PortLimit = "port_limit",
        AtomCount = "atom_count",
        AtomLimit = "atom_limit",
        EtsCount = "ets_count",
        EtsLimit = "ets_limit",
        SchedulersOnline = "schedulers_online",
        StartTime = "start_time",
        OtpRelease = "otp_release",
        ErtsVersion = "version",
    }
}

items! {
    /// An item of `erlang:statistics/1`.
    Statistics {
        RunQueueLengths = "total_run_queue_lengths",
        RunQueueLengthsAll = "total_run_queue_lengths_all",
        ActiveTasksAll = "total_active_tasks_all",
        Reductions = "reductions",
        GarbageCollection = "garbage_collection",
        Io = "io",
        ContextSwitches = "context_switches",
    }
}

/// A file that the node reads for us.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostFile {
    /// `/proc/self/statm`: sizes in pages.
    Statm,
    /// `/proc/self/status`: read once, to learn the size of a page.
    Status,
    /// `/proc/self/limits`.
    Limits,
    /// `/proc/self/cgroup`.
    Cgroup,
    /// `/proc/meminfo`.
    Meminfo,
    /// A file of the memory or pids controller in the node's own cgroup or one above it.
    Controller(CgroupDir, ControllerFile),
}

/// The files that are read in a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ControllerFile {
    /// v2 `memory.max`.
    MemoryMax,
    /// v2 `memory.current`: read once, to find the group.
    MemoryCurrent,
    /// v1 `memory.limit_in_bytes`.
    MemoryLimitV1,
    /// v1 `memory.usage_in_bytes`: read once, to find the group.
    MemoryUsageV1,
    /// `memory.stat`, in both versions: the use without what is given back.
    MemoryStat,
    /// v2 `memory.events.local`, since Linux 5.2.
    MemoryEventsLocal,
    /// v2 `memory.events`, which adds up all groups below.
    MemoryEvents,
    /// v1 `memory.oom_control`.
    MemoryOomV1,
    /// `pids.max`.
    PidsMax,
    /// `pids.current`.
    PidsCurrent,
}

impl ControllerFile {
    /// Returns the file's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MemoryMax => "memory.max",
            Self::MemoryCurrent => "memory.current",
            Self::MemoryLimitV1 => "memory.limit_in_bytes",
            Self::MemoryUsageV1 => "memory.usage_in_bytes",
            Self::MemoryStat => "memory.stat",
            Self::MemoryEventsLocal => "memory.events.local",
            Self::MemoryEvents => "memory.events",
            Self::MemoryOomV1 => "memory.oom_control",
            Self::PidsMax => "pids.max",
            Self::PidsCurrent => "pids.current",
        }
    }
}

impl HostFile {
    fn path(&self) -> String {
        match self {
            Self::Statm => "/proc/self/statm".into(),
            Self::Status => "/proc/self/status".into(),
            Self::Limits => "/proc/self/limits".into(),
            Self::Cgroup => "/proc/self/cgroup".into(),
            Self::Meminfo => "/proc/meminfo".into(),
            Self::Controller(dir, file) => format!("{}/{}", dir.path(), file.name()),
        }
    }
}

impl Call {
    /// Returns module, function and arguments.
    pub(super) fn mfa(&self) -> (&'static str, &'static str, Vec<Term>) {
        let mailbox_items = || Term::List(vec![Term::atom("message_queue_len"), Term::atom("registered_name")]);
        match self {
            Self::Memory => ("erlang", "memory", vec![]),
            Self::SystemInfo(item) => ("erlang", "system_info", vec![Term::atom(item.atom())]),
            Self::Statistics(item) => ("erlang", "statistics", vec![Term::atom(item.atom())]),
            Self::MonotonicTime => ("erlang", "monotonic_time", vec![]),
            Self::TimeOffset => ("erlang", "time_offset", vec![]),
            Self::NativePerSecond => {
                ("erlang", "convert_time_unit", vec![Term::Int(1), Term::atom("second"), Term::atom("native")])
            }
            Self::ScriptId => ("init", "script_id", vec![]),
            Self::ReadFile(file) => ("prim_file", "read_file", vec![Term::Binary(file.path().into())]),
            Self::OpenFds => ("prim_file", "list_dir", vec![Term::Binary("/proc/self/fd".into())]),
            Self::Registered => ("erlang", "registered", vec![]),
            Self::Whereis(names) => {
                ("lists", "map", vec![Term::Export("erlang", "whereis", 1), Term::List(names.clone())])
            }
            Self::Processes => ("erlang", "processes", vec![]),
            Self::Mailboxes(pids) => {
                let items = vec![mailbox_items(); pids.len()];
                let function = Term::Export("erlang", "process_info", 2);
                ("lists", "zipwith", vec![function, Term::List(pids.clone()), Term::List(items)])
            }
            Self::Mailbox(pid) => ("erlang", "process_info", vec![pid.clone(), mailbox_items()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reading_functions_are_on_the_list() {
        let file = |f| Call::ReadFile(f);
        let all = [
            Call::Memory,
            Call::SystemInfo(SystemInfo::AtomCount),
            Call::Statistics(Statistics::Io),
            Call::MonotonicTime,
            Call::TimeOffset,
            Call::NativePerSecond,
            Call::ScriptId,
            file(HostFile::Statm),
            Call::OpenFds,
            Call::Registered,
            Call::Whereis(vec![]),
            Call::Processes,
            Call::Mailboxes(vec![]),
            Call::Mailbox(Term::Int(0)),
        ];
        let names: Vec<String> = all.iter().map(|c| format!("{}:{}", c.mfa().0, c.mfa().1)).collect();
        assert_eq!(
            names.join(" "),
            "erlang:memory erlang:system_info erlang:statistics erlang:monotonic_time erlang:time_offset \
             erlang:convert_time_unit init:script_id prim_file:read_file prim_file:list_dir erlang:registered \
             lists:map erlang:processes lists:zipwith erlang:process_info"
        );
    }

    #[test]
    fn a_batch_asks_two_items_of_each_process() {
        let (_, _, arguments) = Call::Mailboxes(vec![Term::Int(1), Term::Int(2)]).mfa();
        let items = Term::List(vec![Term::atom("message_queue_len"), Term::atom("registered_name")]);
        assert_eq!(arguments[2], Term::List(vec![items.clone(), items]));
    }
}
