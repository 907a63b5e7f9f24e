//! Open files of the whole host, against `fs.file-max`.

use super::collector::Part;
use super::error::Error;
use super::series::Out;
use super::text::column;
use super::tree::{Tree, read_text};

#[derive(Debug)]
pub(super) struct Descriptors;

/// From here on the limit is "none": systemd sets the largest number there is.
const UNLIMITED: u64 = 1 << 62;

impl Part for Descriptors {
    fn name(&self) -> &'static str {
        "descriptors"
    }

    fn collect(&mut self, tree: &Tree, out: &mut Out<'_>) -> Result<(), Error> {
        let path = tree.proc("sys/fs/file-nr");
        let text = read_text(&path)?;
        // Allocated, free (always zero since 2.6), most.
        let [used, limit] = [0, 2].map(|i| column::<u64>(&text, i));
        let (Some(used), Some(limit)) = (used, limit) else { return Err(Error::malformed(&path, "file count")) };
        out.set("host_file_descriptors_used", used as f64);
        if limit < UNLIMITED {
            out.set("host_file_descriptors_limit", limit as f64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn used_and_limit() {
        let f = Fixture::healthy();
        let s = f.collect_part(Descriptors);
        assert_eq!(s.value("host_file_descriptors_used"), 520.0);
        assert_eq!(s.value("host_file_descriptors_limit"), 1000.0);
        f.write("proc/sys/fs/file-nr", "520\t0\t9223372036854775807\n");
        assert_eq!(f.collect_part(Descriptors).get("host_file_descriptors_limit"), None);
        for bad in ["", "520", "520 0", "a b c"] {
            f.write("proc/sys/fs/file-nr", bad);
            assert_ne!(f.collect_part(Descriptors).error, "", "{bad:?}");
        }
    }
}
