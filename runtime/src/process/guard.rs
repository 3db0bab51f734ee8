//! The guard: a tiny program between us and each child, so that no child outlives us, even after SIGKILL.
//!
//! `chorus guard --grace-ms N [LIMITS] -- CMD ARGS…` runs as leader of a process group of its own. Its fd 3 is the
//! read end of the *lifeline*, a pipe whose only write end its parent holds. It limits itself as told (see
//! [`ProgramLimits`]) and starts CMD in the same group, with fds 0, 1, 2, 4 and 5 passed on untouched, and waits:
//! - CMD ends: kill what is left of the group, exit with CMD's code, or 128 + signal.
//! - the lifeline ends (the parent is gone): SIGTERM to the group, the grace, SIGKILL to the group.
//! - the byte [`KILL_NOW`] comes: SIGKILL to all but itself, reap CMD, exit.
//!
//! Killed stragglers, and CMD when the guard itself is SIGKILLed, are left to init to be reaped; in a
//! container pid 1 should therefore be an init (`docker run --init`), not us. SIGTERM, SIGINT and SIGHUP to the group reach CMD; the
//! guard hears and ignores them. A binary that serves as a guard calls [`run_if_guard`] first thing in
//! `main`, before it starts a runtime or threads.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use super::limits::ProgramLimits;

/// The first argument that makes a binary a guard.
pub const GUARD_ARGUMENT: &str = "guard";
/// The lifeline's descriptor in the guard.
pub const LIFELINE_FD: i32 = 3;
/// On the lifeline: end the group at once.
pub const KILL_NOW: u8 = b'k';

/// Exit code when CMD could not be started because it does not exist, as of a shell.
const NOT_FOUND: u8 = 127;
/// Exit code when the guard itself could not work or CMD could not be started for another reason.
const CANNOT_RUN: u8 = 126;
/// Passes over the group when killing what is left; a group that forks faster is ended by the parent's
/// SIGKILL.
const SWEEPS: usize = 8;

/// Runs as the guard when `args` (the program's own, its name first) say so; `None` when they do not.
///
/// `guard` without `--grace-ms` is left to the caller's own command line, to be refused there.
pub fn run_if_guard(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    if args.next()? != GUARD_ARGUMENT || args.next()? != "--grace-ms" {
        return None;
    }
    let code = match parse(args) {
        Some((grace, limits, command)) => run(grace, limits, &command).unwrap_or_else(|error| {
            complain(&format!("cannot work: {error}"));
            CANNOT_RUN
        }),
        None => {
            complain(
                "usage: guard --grace-ms N [--limited [--max-memory-bytes N] [--max-cpus N]] -- CMD ARGS…",
            );
            CANNOT_RUN
        }
    };
    Some(ExitCode::from(code))
}

type Told = (Duration, Option<ProgramLimits>, Vec<OsString>);

fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Told> {
    let grace_ms = args.next()?.to_str()?.parse().ok()?;
    let limits = ProgramLimits::parse(&mut args)?;
    let command: Vec<_> = args.collect();
    (!command.is_empty()).then_some((Duration::from_millis(grace_ms), limits, command))
}

/// Tells of a failure on stderr, which is the child's log. Nothing can be done when that is closed too.
fn complain(message: &str) {
    let _unheard = writeln!(io::stderr(), "guard: {message}");
}

fn run(grace: Duration, limits: Option<ProgramLimits>, command: &[OsString]) -> io::Result<u8> {
    // Nothing may run between fork and exec without unsafe code, so the guard bears them itself and CMD inherits them.
    for complaint in limits.map(ProgramLimits::apply).unwrap_or_default() {
        complain(&complaint);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // A handler, unlike an ignored signal, is reset to the default in CMD.
        let _ignored = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ];
        let lifeline = open_lifeline()?;
        match start(command) {
            Ok(child) => watch(child, lifeline, grace).await,
            Err(error) => {
                complain(&format!("cannot start {}: {error}", command[0].display()));
                Ok(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN })
            }
        }
    })
}

fn open_lifeline() -> io::Result<pipe::Receiver> {
    let file = OpenOptions::new().read(true).open(format!("/dev/fd/{LIFELINE_FD}"))?;
    pipe::Receiver::from_file(file)
}

#[allow(clippy::disallowed_methods, reason = "the guard is part of runtime/process")]
fn start(command: &[OsString]) -> io::Result<tokio::process::Child> {
    let mut starting = std::process::Command::new(&command[0]);
    starting.args(&command[1..]).stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    // CMD must not hold the lifeline: it gets /dev/null in its place.
    let nothing = OwnedFd::from(File::open("/dev/null")?);
    starting
        .fd_mappings(vec![FdMapping { parent_fd: nothing, child_fd: LIFELINE_FD }])
        .map_err(io::Error::other)?;
    tokio::process::Command::from(starting).spawn()
}

async fn watch(
    mut child: tokio::process::Child,
    mut lifeline: pipe::Receiver,
    grace: Duration,
) -> io::Result<u8> {
    tokio::select! {
        status = child.wait() => {
            kill_others();
            Ok(exit_code(status?))
        }
        ordered = read_lifeline(&mut lifeline) => {
            if !ordered {
                // Nobody is left to see how this ends: be thorough. Errors mean that the group is gone.
                let _gone = kill_process_group(getpgrp(), Signal::TERM);
                let _in_time = tokio::time::timeout(grace, child.wait()).await;
            }
            kill_others();
            let status = child.wait().await?;
            if !ordered {
                let _gone = kill_process_group(getpgrp(), Signal::KILL);
            }
            Ok(exit_code(status))
        }
    }
}

/// True when told to kill now, false when the parent is gone.
async fn read_lifeline(lifeline: &mut pipe::Receiver) -> bool {
    loop {
        match lifeline.read_u8().await {
            Ok(KILL_NOW) => return true,
            Ok(_unknown) => {}
            Err(_ended) => return false,
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(number)) => 128u8.saturating_add(number as u8),
        (None, None) => CANNOT_RUN,
    }
}

/// Kills every process of our group but ourselves. Without a /proc this does nothing: the parent kills the
/// group after our exit anyhow.
fn kill_others() {
    let (group, own) = (getpgrp(), getpid());
    for _ in 0..SWEEPS {
        let others = living_members(group, own);
        if others.is_empty() {
            return;
        }
        for pid in others {
            // An error means that it ended meanwhile.
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

fn living_members(group: Pid, own: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|&pid| pid != own && is_living_member(pid, group)).collect()
}

fn is_living_member(pid: Pid, group: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .ok()
        .and_then(|stat| living_group(&stat))
        .is_some_and(|of| of == group.as_raw_nonzero().get())
}

/// The process group in a line of `/proc/PID/stat` (proc(5): pid (comm) state ppid pgrp …), unless it is a
/// zombie.
fn living_group(stat: &str) -> Option<i32> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> impl Iterator<Item = OsString> {
        text.split_whitespace().map(OsString::from).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn other_command_lines_are_not_ours() {
        assert!(run_if_guard(words("chorus")).is_none());
        assert!(run_if_guard(words("chorus say guard")).is_none());
        assert!(run_if_guard(words("chorus guard --help")).is_none());
    }

    #[test]
    fn a_malformed_guard_command_is_refused() {
        let no_limit = "x guard --grace-ms 1 --limited --max-cpus -- true";
        for text in
            ["x guard --grace-ms", "x guard --grace-ms many -- true", "x guard --grace-ms 1 --", no_limit]
        {
            assert!(run_if_guard(words(text)).is_some(), "{text}");
        }
        let (grace, limits, command) = parse(words("250 -- sh -c --")).unwrap();
        assert_eq!((grace.as_millis(), limits, command.len()), (250, None, 3));
    }

    #[test]
    fn stat_lines_with_odd_names_are_read() {
        assert_eq!(living_group("12 (a) b) S 1 77 77 0 -1"), Some(77));
        assert_eq!(living_group("12 (sh) Z 1 77 77 0 -1"), None);
        assert_eq!(living_group("nonsense"), None);
    }

    #[test]
    fn codes_follow_the_shell() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
