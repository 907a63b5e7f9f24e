//! Process ids of the whole host. Each thread takes one.

use super::collector::Part;
use super::error::Error;
use super::series::Out;
use super::text::read_number;
use super::tree::{Tree, read_text};

#[derive(Debug)]
pub(super) struct Pids;

impl Part for Pids {
    fn name(&self) -> &'static str {
        "pids"
    }

    fn collect(&mut self, tree: &Tree, out: &mut Out<'_>) -> Result<(), Error> {
        let path = tree.proc("loadavg");
        let used = threads(&read_text(&path)?).ok_or_else(|| Error::malformed(&path, "count of threads"))?;
        let pid_max = read_number(&tree.proc("sys/kernel/pid_max"))?;
        let threads_max = read_number(&tree.proc("sys/kernel/threads-max"))?;
        out.set("host_pids_used", used as f64);
        out.set("host_pids_limit", pid_max.min(threads_max) as f64);
        Ok(())
    }
}

/// Reads the threads that exist from `0.28 0.42 0.53 1/91 19048`: the number after the slash.
fn threads(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn the_smaller_limit_counts() {
        let f = Fixture::healthy();
        let s = f.collect_part(Pids);
        assert_eq!((s.value("host_pids_used"), s.value("host_pids_limit")), (91.0, 32768.0));
        f.write("proc/sys/kernel/threads-max", "1000\n");
        assert_eq!(f.collect_part(Pids).value("host_pids_limit"), 1000.0);
        for bad in ["", "0.1 0.2 0.3", "0.1 0.2 0.3 91 1", "0.1 0.2 0.3 1/x 1"] {
            assert_eq!(threads(bad), None);
        }
    }
}
