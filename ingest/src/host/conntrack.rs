//! The connection table of the packet filter: when it is full, new connections are dropped.

use super::collector::Part;
use super::error::Error;
use super::series::Out;
use super::text::read_number;
use super::tree::Tree;

#[derive(Debug)]
pub(super) struct Conntrack;

impl Part for Conntrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    /// Writes nothing where the module is not loaded.
    fn collect(&mut self, tree: &Tree, out: &mut Out<'_>) -> Result<(), Error> {
        let used = match read_number(&tree.proc("sys/net/netfilter/nf_conntrack_count")) {
            Ok(used) => used,
            Err(e) if e.is_gone() => return Ok(()),
            Err(e) => return Err(e),
        };
        let limit = read_number(&tree.proc("sys/net/netfilter/nf_conntrack_max"))?;
        out.set("host_conntrack_entries_used", used as f64);
        // Zero stands for no limit.
        if limit > 0 {
            out.set("host_conntrack_entries_limit", limit as f64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn read_where_there_is_a_table() {
        let f = Fixture::healthy();
        let s = f.collect_part(Conntrack);
        assert_eq!((s.value("host_conntrack_entries_used"), s.value("host_conntrack_entries_limit")), (7.0, 65536.0));
        f.write("proc/sys/net/netfilter/nf_conntrack_count", "");
        assert_ne!(f.collect_part(Conntrack).error, "");
        f.remove("proc/sys/net/netfilter");
        let s = f.collect_part(Conntrack);
        assert_eq!((s.len(), s.error.as_str()), (0, ""));
    }
}
