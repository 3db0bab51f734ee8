//! Processes as the kernel tells of them in `/proc`, and signals to them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::ChaosError;

/// The children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let told = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    told.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// All below a process: children of its threads too, and theirs.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for thread in threads {
        let told = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in told.split_whitespace().filter_map(|child| child.parse().ok()) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

/// Resident memory in bytes and open files; nothing once the process is gone.
pub(crate) fn usage(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some((kilobytes * 1024, files as u64))
}

/// Sends a signal. One that is gone already has had its end.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<(), ChaosError> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let target = target.ok_or_else(|| ChaosError::Step(format!("{pid} is no process id")))?;
    match kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(ChaosError::Step(format!("no signal reaches process {pid}: {error}"))),
    }
}
