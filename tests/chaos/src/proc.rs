//! What the kernel tells of processes in `/proc`, what can be written into their pipes, and signals to them.

use std::fs;
use std::io::{ErrorKind, Write};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::ChaosError;

/// Resident memory in bytes and open files; nothing once the process is gone.
pub(crate) fn usage(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some((kilobytes * 1024, files as u64))
}

/// Writes these bytes into every pipe that a process writes to, apart from its standard streams.
pub(crate) fn write_into_pipes(pid: u32, bytes: &[u8]) -> Result<(), ChaosError> {
    let folder = format!("/proc/{pid}/fd");
    let mut written = 0;
    for entry in fs::read_dir(&folder).map_err(ChaosError::io(&folder))?.flatten() {
        let fd: u32 = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        let is_pipe = fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"));
        let flags = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
        // Octal; the last digit of a file that is only written to is 1.
        if fd > 2 && is_pipe && flags.is_some_and(|flags| flags.ends_with('1')) {
            let file = fs::OpenOptions::new().write(true).open(entry.path());
            let mut file = file.map_err(ChaosError::io(entry.path()))?;
            match file.write_all(bytes) {
                // A second descriptor of the pipe that was spoiled before: its reader has had enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe && written > 0 => {}
                done => done.map_err(ChaosError::io(entry.path()))?,
            }
            written += 1;
        }
    }
    if written > 0 { Ok(()) } else { Err(ChaosError::Step(format!("process {pid} writes to no pipe"))) }
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
