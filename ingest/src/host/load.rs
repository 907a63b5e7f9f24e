//! Load averages, and since when the host is up.

use forewarn_schemas::Timestamp;

use super::collector::Part;
use super::error::Error;
use super::series::Out;
use super::text::{column, field};
use super::tree::{Tree, read_text};

#[derive(Debug, Default)]
pub(super) struct Load {
    /// The uptime last seen and the boot time that goes with it. The file that holds the boot time also lists every
    /// interrupt, which is long on a large machine: it is read again only when the uptime went back.
    boot: Option<(f64, Timestamp)>,
}

impl Part for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn collect(&mut self, tree: &Tree, out: &mut Out<'_>) -> Result<(), Error> {
        let path = tree.proc("loadavg");
        let text = read_text(&path)?;
        for (i, metric) in ["host_load1", "host_load5", "host_load15"].into_iter().enumerate() {
            let load = column(&text, i).filter(|v: &f64| v.is_finite());
            out.set(metric, load.ok_or_else(|| Error::malformed(&path, "load average"))?);
        }
        let path = tree.proc("uptime");
        let uptime = column(&read_text(&path)?, 0).filter(|v: &f64| v.is_finite());
        let uptime = uptime.ok_or_else(|| Error::malformed(&path, "uptime"))?;
        let boot = match self.boot {
            Some((before, boot)) if before <= uptime => boot,
            _ => boot_time(tree)?,
        };
        self.boot = Some((uptime, boot));
        out.set("host_uptime_seconds", uptime);
        out.set("host_boot_time_seconds", boot.as_secs_f64());
        Ok(())
    }
}

fn boot_time(tree: &Tree) -> Result<Timestamp, Error> {
    let path = tree.proc("stat");
    let seconds = field(&read_text(&path)?, "btime").and_then(|s| i64::try_from(s).ok());
    seconds.map(Timestamp::from_secs).ok_or_else(|| Error::malformed(&path, "btime"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::{Fixture, Rig};

    #[test]
    fn the_boot_time_stands_until_the_uptime_goes_back() {
        let f = Fixture::healthy();
        let mut rig = Rig::new(&f, Load::default());
        let s = rig.collect();
        assert_eq!([s.value("host_load1"), s.value("host_load5"), s.value("host_load15")], [0.28, 0.42, 0.53]);
        assert_eq!((s.value("host_uptime_seconds"), s.value("host_boot_time_seconds")), (1542.04, 1_700_000_000.0));
        f.write("proc/stat", "cpu 1 2 3\nbtime 1700009999\n");
        f.write("proc/uptime", "1552.04 1.0\n");
        assert_eq!(rig.collect().value("host_boot_time_seconds"), 1_700_000_000.0);
        f.write("proc/uptime", "3.00 1.0\n");
        let s = rig.collect();
        assert_eq!((s.value("host_uptime_seconds"), s.value("host_boot_time_seconds")), (3.0, 1_700_009_999.0));
        for (file, bad) in [("loadavg", "0.1 x"), ("uptime", ""), ("uptime", "NaN 1")] {
            let f = Fixture::healthy();
            f.write(&format!("proc/{file}"), bad);
            assert_ne!(f.collect_part(Load::default()).error, "", "{file} {bad:?}");
        }
    }
}
