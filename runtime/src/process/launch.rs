//! From a [`ProcessSpec`] to a running process and our ends of its pipes.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::Pid;
use tokio::net::unix::pipe;

use super::child::FramePipe;
use super::guard::{GUARD_ARGUMENT, LIFELINE_FD};
use super::limits::ProgramLimits;
use super::spec::{GuardBinary, Pipes, ProcessSpec, StreamPolicy};

/// The child reads frames here.
const FRAMES_IN_FD: i32 = 4;
/// The child writes frames here.
const FRAMES_OUT_FD: i32 = 5;

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no such program, or it is not executable.
    #[error("{name}: no program {program}", program = program.display())]
    NotFound {
        /// The name in the spec.
        name: String,
        /// The program in the spec.
        program: PathBuf,
    },
    /// The operating system refused: too many processes, no memory, no guard binary.
    #[error("{name}: cannot start {program}", program = program.display())]
    Refused {
        /// The name in the spec.
        name: String,
        /// The file that was to be run: the guard's, when there is one.
        program: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A pipe could not be made.
    #[error("{name}: cannot make a pipe")]
    Pipe {
        /// The name in the spec.
        name: String,
        /// What went wrong.
        source: io::Error,
    },
}

/// A process that has just been started.
pub(super) struct Launched {
    pub(super) process: tokio::process::Child,
    pub(super) pid: Pid,
    pub(super) lifeline: Option<io::PipeWriter>,
    pub(super) ends: Ends,
}

/// Our ends of the child's pipes.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) frames: Option<FramePipe>,
    pub(super) stdout: Option<pipe::Receiver>,
    pub(super) stderr: Option<pipe::Receiver>,
}

pub(super) fn launch(spec: &ProcessSpec) -> Result<Launched, SpawnError> {
    let name = || spec.name.clone();
    let found = spec.resolve_program().and_then(|file| std::path::absolute(file).ok());
    let program =
        found.ok_or_else(|| SpawnError::NotFound { name: name(), program: spec.program.clone() })?;
    let (mut command, lifeline, ends) =
        prepare(spec, program.clone()).map_err(|source| SpawnError::Pipe { name: name(), source })?;
    let started = command.spawn().and_then(|process| {
        let raw = process.id().and_then(|id| i32::try_from(id).ok());
        let pid = raw.and_then(Pid::from_raw).ok_or_else(|| io::Error::other("it ended before it began"))?;
        Ok((process, pid))
    });
    let (process, pid) = started.map_err(|source| SpawnError::Refused {
        name: name(),
        program: command_program(&command),
        source,
    })?;
    // The command holds the child's ends of the pipes: they close here, so that we see their end.
    drop(command);
    Ok(Launched { process, pid, lifeline, ends })
}

type Prepared = (tokio::process::Command, Option<io::PipeWriter>, Ends);

fn prepare(spec: &ProcessSpec, program: PathBuf) -> io::Result<Prepared> {
    let mut command = command_line(spec, program)?;
    command.env_clear().envs(&spec.env).process_group(0);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    let mut mappings = Vec::new();
    let mut ends = Ends::default();
    connect_streams(spec, &mut command, &mut ends)?;
    connect_data(spec.pipes, &mut command, &mut mappings, &mut ends)?;
    let lifeline = match spec.guard {
        GuardBinary::Unguarded => None,
        GuardBinary::OwnProgram | GuardBinary::Program(_) => {
            let (theirs, ours) = io::pipe()?;
            mappings.push(FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: LIFELINE_FD });
            Some(ours)
        }
    };
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    Ok((tokio::process::Command::from(command), lifeline, ends))
}

#[allow(clippy::disallowed_methods, reason = "this is where processes are started")]
fn command_line(spec: &ProcessSpec, program: PathBuf) -> io::Result<std::process::Command> {
    let guard = match &spec.guard {
        GuardBinary::OwnProgram => own_program()?,
        GuardBinary::Program(path) => path.clone(),
        GuardBinary::Unguarded => {
            let mut command = std::process::Command::new(program);
            command.args(&spec.args);
            return Ok(command);
        }
    };
    let mut command = std::process::Command::new(guard);
    let grace_ms = OsString::from(spec.grace.as_millis().to_string());
    command.args([GUARD_ARGUMENT.into(), "--grace-ms".into(), grace_ms]);
    command.args(spec.limits.map(ProgramLimits::arguments).unwrap_or_default());
    command.args(["--".into(), program.into_os_string()]).args(&spec.args);
    Ok(command)
}

/// Our own file; where it was replaced while we run (an upgrade), the running image itself, as Linux offers
/// it.
fn own_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let running_image = PathBuf::from("/proc/self/exe");
    Ok(if !path.exists() && running_image.exists() { running_image } else { path })
}

fn command_program(command: &tokio::process::Command) -> PathBuf {
    command.as_std().get_program().into()
}

fn connect_streams(
    spec: &ProcessSpec,
    command: &mut std::process::Command,
    ends: &mut Ends,
) -> io::Result<()> {
    command.stdin(match spec.stdin {
        StreamPolicy::Inherit => Stdio::inherit(),
        StreamPolicy::Null | StreamPolicy::Logged => Stdio::null(),
    });
    let (stdout, ours) = output(spec.stdout)?;
    command.stdout(stdout);
    ends.stdout = ours.filter(|_| spec.pipes != Pipes::Stdio);
    let (stderr, ours) = output(spec.stderr)?;
    command.stderr(stderr);
    ends.stderr = ours;
    Ok(())
}

/// What the pipe from the child may hold, in bytes; Linux' own bound for ordinary users.
#[cfg(target_os = "linux")]
const PIPE_BYTES: usize = 1 << 20;

/// A burst of frames (a spoken sentence is some 100 KiB) shall fit whole: in Linux' usual 64 KiB the child's write waits
/// for our read, which cost a millisecond at the end of every sentence. Where it is refused, the pipe works as it is.
#[cfg(target_os = "linux")]
fn widen(pipe: &io::PipeReader) {
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES) {
        tracing::debug!(%error, "the pipe from the child keeps its usual size");
    }
}

#[cfg(not(target_os = "linux"))]
fn widen(_pipe: &io::PipeReader) {}

fn output(policy: StreamPolicy) -> io::Result<(Stdio, Option<pipe::Receiver>)> {
    Ok(match policy {
        StreamPolicy::Null => (Stdio::null(), None),
        StreamPolicy::Inherit => (Stdio::inherit(), None),
        StreamPolicy::Logged => {
            let (ours, theirs) = io::pipe()?;
            (Stdio::from(theirs), Some(pipe::Receiver::from_owned_fd(OwnedFd::from(ours))?))
        }
    })
}

fn connect_data(
    pipes: Pipes,
    command: &mut std::process::Command,
    mappings: &mut Vec<FdMapping>,
    ends: &mut Ends,
) -> io::Result<()> {
    if pipes == Pipes::None {
        return Ok(());
    }
    let (their_input, our_output) = io::pipe()?;
    let (our_input, their_output) = io::pipe()?;
    widen(&our_input);
    ends.frames = Some(FramePipe {
        reader: pipe::Receiver::from_owned_fd(OwnedFd::from(our_input))?,
        writer: pipe::Sender::from_owned_fd(OwnedFd::from(our_output))?,
    });
    if pipes == Pipes::Stdio {
        command.stdin(their_input).stdout(their_output);
    } else {
        mappings.push(FdMapping { parent_fd: their_input.into(), child_fd: FRAMES_IN_FD });
        mappings.push(FdMapping { parent_fd: their_output.into(), child_fd: FRAMES_OUT_FD });
    }
    Ok(())
}
