//! What to run: program, arguments, a scrubbed environment, streams, limits of patience.
//!
//! A spec is plain data. It starts with an empty environment; [`ProcessSpec::allow_env`] copies named
//! variables from a source the caller injects (usually `std::env::vars_os()`), so nothing leaks into a child
//! by accident.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::limits::ProgramLimits;
use super::logs::LogPolicy;

/// Variables that most programs need to find their files and speak the user's language. Names that end in `*`
/// are prefixes.
pub const USUAL_ENV: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_*", "XDG_*", "SSL_CERT_*"];

/// What a standard stream of the child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPolicy {
    /// `/dev/null`.
    Null,
    /// Ours. A child that reads our terminal competes with us for it.
    Inherit,
    /// Output only: drained from birth into a bounded ring. For stdin it means `Null`.
    Logged,
}

/// Which pipe for data the child has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipes {
    /// None.
    None,
    /// Frames on descriptors of their own: the child reads fd 4 and writes fd 5.
    Fds,
    /// Legacy engines: the child reads stdin and writes stdout; `stdin` and `stdout` of the spec do not
    /// count.
    Stdio,
}

/// Who watches over the child when we die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardBinary {
    /// This program, which calls [`run_if_guard`](super::guard::run_if_guard).
    OwnProgram,
    /// Another program that does.
    Program(PathBuf),
    /// Nobody: the child's group is killed when its [`Child`](super::Child) is dropped, but outlives a
    /// SIGKILL of ours.
    Unguarded,
}

/// A process to be started.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// A short name for logs, such as `engine` or `nats-server`.
    pub name: String,
    /// The program: a path, or a name looked up in the PATH of `env`.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Its working directory; ours when `None`.
    pub cwd: Option<PathBuf>,
    /// Its fd 0.
    pub stdin: StreamPolicy,
    /// Its fd 1.
    pub stdout: StreamPolicy,
    /// Its fd 2.
    pub stderr: StreamPolicy,
    /// Its pipe for data.
    pub pipes: Pipes,
    /// Time between SIGTERM and SIGKILL when the child is dropped with us, or stopped without a grace of its
    /// own.
    pub grace: Duration,
    /// Who watches over it.
    pub guard: GuardBinary,
    /// What its guard takes away from it; nothing when `None`.
    pub limits: Option<ProgramLimits>,
    /// How its output is kept and passed on.
    pub logs: LogPolicy,
}

impl ProcessSpec {
    /// A guarded process with an empty environment, nothing on stdin, logged output, no pipe and 2 s of
    /// grace.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            stdin: StreamPolicy::Null,
            stdout: StreamPolicy::Logged,
            stderr: StreamPolicy::Logged,
            pipes: Pipes::None,
            grace: Duration::from_secs(2),
            guard: GuardBinary::OwnProgram,
            limits: None,
            logs: LogPolicy::default(),
        }
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets one variable.
    pub fn set_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Copies the variables of `source` whose names are among `allowed` (a final `*` makes a prefix), such as
    /// [`USUAL_ENV`]. Variables already set stay.
    pub fn allow_env(
        mut self,
        source: impl IntoIterator<Item = (OsString, OsString)>,
        allowed: &[&str],
    ) -> Self {
        for (name, value) in source {
            if allowed.iter().any(|pattern| matches_name(pattern, &name)) {
                self.env.entry(name).or_insert(value);
            }
        }
        self
    }

    /// The program's file, looked up as `execvp` would with the child's own PATH and working directory.
    pub(super) fn resolve_program(&self) -> Option<PathBuf> {
        let in_folder = |folder: &Path| folder.join(&self.program);
        let base = self.cwd.as_deref().unwrap_or(Path::new(""));
        if self.program.components().count() > 1 || self.program.is_absolute() {
            let file = in_folder(base);
            return is_program(&file).then_some(file);
        }
        let path = self.env.get(OsStr::new("PATH"))?;
        std::env::split_paths(path).map(|folder| in_folder(&base.join(folder))).find(|file| is_program(file))
    }
}

fn matches_name(pattern: &str, name: &OsStr) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.as_encoded_bytes().starts_with(prefix.as_bytes()),
        None => name == pattern,
    }
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_variables_pass() {
        let source = [("PATH", "/bin"), ("LC_ALL", "C"), ("SECRET", "x"), ("PATHS", "y"), ("HOME", "/root")]
            .map(|(name, value)| (name.into(), value.into()));
        let spec = ProcessSpec::new("test", "sh").set_env("HOME", "/tmp").allow_env(source, USUAL_ENV);
        let names: Vec<_> = spec.env.keys().filter_map(|name| name.to_str()).collect();
        assert_eq!(names, ["HOME", "LC_ALL", "PATH"]);
        assert_eq!(spec.env[OsStr::new("HOME")], "/tmp");
    }

    #[test]
    fn programs_are_found_as_exec_would() {
        assert!(ProcessSpec::new("test", "/bin/sh").resolve_program().is_some());
        assert!(ProcessSpec::new("test", "sh").resolve_program().is_none(), "no PATH, no program");
        let with_path = ProcessSpec::new("test", "sh").set_env("PATH", "/nowhere:/bin");
        assert_eq!(with_path.resolve_program().unwrap(), Path::new("/bin/sh"));
        let in_cwd = ProcessSpec { cwd: Some("/".into()), ..ProcessSpec::new("test", "bin/sh") };
        assert!(in_cwd.resolve_program().is_some());
        assert!(ProcessSpec::new("test", "/etc/passwd").resolve_program().is_none());
    }
}
