//! Runs an installer: with a scrubbed environment, a limit in time, its lines passed on, and its failure understood.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chorus_runtime::process::{LogPolicy, ProcessSpec, RunError, RunLimits, Stream, run_to_end};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;
use crate::fault;
use crate::progress::{Downloads, Progress, Step};

/// Lines kept of what a tool said, for the error report.
const KEPT_LINES: usize = 200;
/// Lines passed on per second: more than any installer prints, and far from a flood.
const LINES_PER_SECOND: u32 = 5_000;

/// Variables that a tool needs to run at all, and those by which a user says where packages come from.
const PASSED_ON: [&str; 9] =
    ["PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "NETRC", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
/// The same, by how their names begin.
const PASSED_ON_BEGINNINGS: [&str; 5] = ["LC_", "XDG_", "PIP_", "UV_", "SSL_CERT_"];
/// Settings for a user's own projects, which would lead an installer elsewhere than we tell it.
const HELD_BACK: [&str; 15] = [
    "PIP_CONSTRAINT",
    "PIP_PREFIX",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "UV_CONSTRAINT",
    "UV_OVERRIDE",
    "UV_PROJECT",
    "UV_PROJECT_ENVIRONMENT",
    "UV_PYTHON",
    "UV_SYSTEM_PYTHON",
    "UV_TORCH_BACKEND",
    "UV_WORKING_DIR",
    "UV_WORKING_DIRECTORY",
];

/// What every step works with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) progress: Arc<dyn Progress>,
}

/// One run of a tool.
pub(crate) struct Tool {
    /// What it is run for, as errors name it.
    pub(crate) what: &'static str,
    /// The step that hears its lines.
    pub(crate) step: Step,
    /// The program, an absolute path.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Variables beside, or instead of, the caller's.
    pub(crate) variables: Vec<(&'static str, OsString)>,
    /// How long it may take.
    pub(crate) limit: Duration,
}

/// How a tool ended, and its last lines.
pub(crate) struct Ended {
    /// In words, when it was not good.
    failed: Option<String>,
    /// Its exit code, when it had one other than 0.
    pub(crate) code: Option<i32>,
    /// The last lines of its stdout.
    pub(crate) stdout: Vec<String>,
    /// The last lines of both streams, as they came.
    tail: String,
}

impl Tool {
    /// Runs it and returns its last lines on stdout.
    ///
    /// # Errors
    /// What its last words mean, when it fails.
    pub(crate) async fn run(&self, context: &Context) -> Result<Vec<String>, Error> {
        let ended = self.end(context).await;
        self.succeeded(context, ended)
    }

    /// Runs it to its end, good or bad.
    pub(crate) async fn end(&self, context: &Context) -> Ended {
        let listener = Arc::new(Listener::new(self.step, Arc::clone(&context.progress)));
        let mut spec = ProcessSpec::new(self.name(), &self.program).args(self.arguments.clone());
        spec.env = scrubbed(&context.config.environment).collect();
        spec.env.extend(self.variables.iter().map(|(name, value)| (name.into(), value.clone())));
        spec.guard = context.config.guard.clone();
        spec.logs = LogPolicy { forward_per_second: LINES_PER_SECOND, ..LogPolicy::default() };
        let limits = RunLimits { timeout: self.limit, token: CancellationToken::new() };
        let hear = Arc::clone(&listener);
        let run = run_to_end(spec, limits, Arc::new(move |stream, line| hear.line(stream, line))).await;

        let mut ended = listener.heard();
        match run {
            Ok(_) => {}
            Err(RunError::Failed { exit, .. }) => {
                ended.code = exit.code;
                ended.failed = Some(exit.to_string());
            }
            Err(RunError::TimedOut { timeout, .. }) => {
                ended.failed = Some(format!("it took longer than {} s and was ended", timeout.as_secs()));
            }
            Err(other) => ended.failed = Some(chain(&other)),
        }
        ended
    }

    /// The last lines on stdout, or what the failure means.
    pub(crate) fn succeeded(&self, context: &Context, ended: Ended) -> Result<Vec<String>, Error> {
        match ended.failed {
            None => Ok(ended.stdout),
            Some(status) => {
                Err(fault::error(self.what, &context.config.home, &self.program, status, &ended.tail))
            }
        }
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Hears a tool's lines: keeps the last, passes them on without credentials, adds up downloads.
struct Listener {
    step: Step,
    progress: Arc<dyn Progress>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    lines: VecDeque<(Stream, String)>,
    downloads: Downloads,
}

impl Listener {
    fn new(step: Step, progress: Arc<dyn Progress>) -> Self {
        Self { step, progress, heard: Mutex::new(Heard::default()) }
    }

    fn line(&self, stream: Stream, line: &str) {
        let line = fault::without_credentials(line);
        self.progress.line(self.step, &for_people(&line));
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((done_bytes, known_bytes)) = heard.downloads.line(&line) {
            self.progress.amount(self.step, done_bytes, known_bytes);
        }
        if heard.lines.len() == KEPT_LINES {
            heard.lines.pop_front();
        }
        heard.lines.push_back((stream, line));
    }

    fn heard(&self) -> Ended {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let stdout = heard.lines.iter().filter(|(stream, _)| *stream == Stream::Stdout);
        let all: Vec<&str> = heard.lines.iter().map(|(_, line)| line.as_str()).collect();
        Ended {
            failed: None,
            code: None,
            stdout: stdout.map(|(_, line)| line.clone()).collect(),
            tail: all.join("\n"),
        }
    }
}

/// What a JSON line is about, any other line as it is.
fn for_people(line: &str) -> String {
    let parsed = serde_json::from_str::<Value>(line).ok();
    let field = |name| parsed.as_ref().and_then(|value| value[name].as_str());
    field("message").or(field("stage")).or(field("event")).unwrap_or(line).to_owned()
}

/// The part of an environment that installers are given.
fn scrubbed(environment: &[(OsString, OsString)]) -> impl Iterator<Item = (OsString, OsString)> {
    environment.iter().filter(|(name, _)| is_passed_on(name)).cloned()
}

fn is_passed_on(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let proxy = name.to_lowercase().ends_with("_proxy");
    let begins = PASSED_ON_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    !HELD_BACK.contains(&name) && (proxy || begins || PASSED_ON.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installers_get_the_users_index_settings_and_no_secrets() {
        let passed = [
            "PATH",
            "UV_DEFAULT_INDEX",
            "PIP_INDEX_URL",
            "https_proxy",
            "NO_PROXY",
            "SSL_CERT_FILE",
            "LC_ALL",
        ];
        let held =
            ["AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "VIRTUAL_ENV", "PIP_TARGET", "UV_PROJECT_ENVIRONMENT"];
        assert!(passed.iter().all(|name| is_passed_on(OsStr::new(name))));
        assert!(held.iter().all(|name| !is_passed_on(OsStr::new(name))));
    }

    #[test]
    fn json_lines_are_shown_by_what_they_are_about() {
        assert_eq!(for_people(r#"{"event":"error","message":"no such voice"}"#), "no such voice");
        assert_eq!(for_people(r#"{"event":"progress","stage":"convert"}"#), "convert");
        assert_eq!(for_people("Resolved 3 packages"), "Resolved 3 packages");
    }
}
