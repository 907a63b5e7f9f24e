//! Pressure stall information: the share of time in which work waited for CPU, memory or disks.
//!
//! Source: Linux `Documentation/accounting/psi.rst`.

use super::collector::Part;
use super::error::Error;
use super::series::Out;
use super::tree::{Tree, read_text};

/// Names of the metrics of one resource: `some` then `full`, each the ratio and the counter.
type Names = [[&'static str; 2]; 2];

const RESOURCES: [(&str, Names); 3] = [
    (
        "cpu",
        [
            ["host_pressure_cpu_some_avg10_ratio", "host_pressure_cpu_some_seconds_total"],
            ["host_pressure_cpu_full_avg10_ratio", "host_pressure_cpu_full_seconds_total"],
        ],
    ),
    (
        "memory",
        [
            ["host_pressure_memory_some_avg10_ratio", "host_pressure_memory_some_seconds_total"],
            ["host_pressure_memory_full_avg10_ratio", "host_pressure_memory_full_seconds_total"],
        ],
    ),
    (
        "io",
        [
            ["host_pressure_io_some_avg10_ratio", "host_pressure_io_some_seconds_total"],
            ["host_pressure_io_full_avg10_ratio", "host_pressure_io_full_seconds_total"],
        ],
    ),
];

const MISSING: &str = "pressure of CPU, memory and disks (PSI) is not available";

#[derive(Debug)]
pub(super) struct Pressure;

/// One line: the share of the last ten seconds, and all time stalled in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stall {
    pub(super) avg10_ratio: f64,
    pub(super) total_seconds: f64,
}

impl Part for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn collect(&mut self, tree: &Tree, out: &mut Out<'_>) -> Result<(), Error> {
        for (resource, names) in &RESOURCES {
            let path = tree.proc(&format!("pressure/{resource}"));
            let text = match read_text(&path) {
                Ok(text) => text,
                Err(e) if e.is_gone() || e.is_unsupported() => {
                    out.notice(MISSING, "boot a kernel of 4.20 or later with psi=1");
                    return Ok(());
                }
                Err(e) => return Err(e),
            };
            // `full` of cpu is missing before 5.13.
            stall(&text, "some").ok_or_else(|| Error::malformed(&path, "line of pressure"))?;
            for (line, [ratio, total]) in ["some", "full"].into_iter().zip(names) {
                if let Some(stall) = stall(&text, line) {
                    out.set(ratio, stall.avg10_ratio);
                    out.set(total, stall.total_seconds);
                }
            }
        }
        out.mended(MISSING);
        Ok(())
    }
}

/// Reads `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, where averages are percent and the total microseconds.
pub(super) fn stall(text: &str, line: &str) -> Option<Stall> {
    let words = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '))?;
    let value = |name: &str| {
        let word = words.split_ascii_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='))?;
        word.parse::<f64>().ok().filter(|v| v.is_finite())
    };
    Some(Stall { avg10_ratio: value("avg10")? / 100.0, total_seconds: value("total")? / 1e6 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn reads_both_lines() {
        let s = Fixture::healthy().collect_part(Pressure);
        assert_eq!(s.value("host_pressure_memory_some_avg10_ratio"), 0.125);
        assert_eq!(s.value("host_pressure_memory_full_seconds_total"), 2.5);
        assert_eq!(s.get("host_pressure_cpu_full_avg10_ratio"), None);
    }

    #[test]
    fn a_kernel_without_it_costs_one_notice() {
        let f = Fixture::healthy();
        f.remove("proc/pressure");
        let s = f.collect_part(Pressure);
        assert_eq!((s.len(), s.error.as_str()), (0, ""));
        f.collect_part(Pressure);
        assert_eq!(f.board.notices().len(), 1);
    }

    #[test]
    fn malformed_lines_are_errors() {
        for bad in ["", "some", "some avg10=x total=1\n", "some avg10=1.00\n", "some avg10=inf total=1\n"] {
            let f = Fixture::healthy();
            f.write("proc/pressure/io", bad);
            assert_ne!(f.collect_part(Pressure).error, "", "{bad:?}");
        }
    }
}
