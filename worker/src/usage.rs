//! What worker and engine use of the machine: memory and processor time, as the system counts them.
//!
//! Read from `/proc`, which only Linux has; elsewhere the figures are zero. Graphics memory is not among them: the
//! engine tells it with each load, for the driver does so per process only through tools of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use chorus_runtime::process::descendants;

use crate::config::Speaks;

/// Ticks per second of the times in `/proc/<pid>/stat`. USER_HZ is 100 in the kernel's interface on all platforms that
/// Rust's standard library knows (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// The processes of an engine. One that speaks frames tells its own id. A command line may be a wrapper around the
/// program that takes the memory, so all below it count too; memory that they share counts more than once.
pub(crate) fn of_engine(pid: u32, speaks: Speaks) -> Vec<u32> {
    let below = if speaks == Speaks::Lines { descendants(pid) } else { Vec::new() };
    std::iter::once(pid).chain(below).collect()
}

/// What some processes use together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// Resident memory, in bytes.
    pub(crate) rss_bytes: u64,
    /// Processor time since the reading before, in percent of one core.
    pub(crate) cpu_percent: f64,
}

/// Reads the usage again and again.
#[derive(Debug)]
pub(crate) struct UsageMeter {
    last: Option<(Instant, f64)>,
}

impl UsageMeter {
    pub(crate) fn new() -> Self {
        Self { last: None }
    }

    /// The usage of `pids` now. A process that is gone, or came anew, counts from zero.
    pub(crate) fn read(&mut self, pids: impl IntoIterator<Item = u32>, now: Instant) -> Usage {
        let (mut rss_bytes, mut seconds) = (0, 0.0);
        for pid in pids {
            let folder = Path::new("/proc").join(pid.to_string());
            let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            rss_bytes += resident_bytes(&read("status")).unwrap_or(0);
            seconds += processor_seconds(&read("stat")).unwrap_or(0.0);
        }
        let cpu_percent = self.last.map_or(0.0, |(at, before)| percent(seconds - before, now - at));
        self.last = Some((now, seconds));
        Usage { rss_bytes, cpu_percent }
    }
}

fn percent(seconds: f64, within: Duration) -> f64 {
    if within.is_zero() { 0.0 } else { (seconds.max(0.0) / within.as_secs_f64()) * 100.0 }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// User and system time. The process's name stands in brackets and may hold anything, brackets and spaces too.
fn processor_seconds(stat: &str) -> Option<f64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t  1024 kB\n"), Some(1024 * 1024));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(processor_seconds(stat), Some(2.0));
        assert_eq!(processor_seconds(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_memory_and_a_gone_one_none() {
        let (mut meter, start) = (UsageMeter::new(), Instant::now());
        let first = meter.read([std::process::id()], start);
        assert!(first.rss_bytes > 100_000 && first.cpu_percent == 0.0);
        let gone = meter.read([u32::MAX], start + Duration::from_secs(1));
        assert_eq!(gone, Usage::default());
    }
}
