//! Why a command failed, and what its user can do next.
//!
//! Every failure ends here. It is shown as two lines on stderr, `error: …` and `hint: …`, and becomes one of the exit codes
//! that [`ExitStatus`] documents. With `--json` the same goes to stdout as one object, so that a program needs no parser
//! for prose.

mod hint;

use std::path::PathBuf;
use std::process::ExitCode;

use chorus_bus::{BusError, BusErrorKind, RequestError, RequestErrorKind};
use chorus_manager::ManagerError;
use chorus_protocol::{ErrorCode, Reason, ServiceError, SynthesisResult};
use chorus_runtime::fs::LockError;
use chorus_runtime::process::SpawnError;
use chorus_runtime::shutdown::StopSignal;
use chorus_runtime::telemetry::TelemetryError;
use chorus_worker::WorkerError;
use serde_json::{Value, json};

use crate::config::ConfigError;
use hint::{bus_hint, service_hint};

/// What a shell sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0: done.
    Done,
    /// 1: tried, and failed.
    Failed,
    /// 2: the command line, the configuration or the text cannot be used.
    Usage,
    /// 130 or 143: a signal ended it.
    Interrupted(StopSignal),
}

impl ExitStatus {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Interrupted(signal) => signal.exit_code(),
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// A command that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Something on the command line.
    #[error("{0}")]
    Usage(String),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log filter.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The text is not UTF-8.
    #[error("{place} is not valid UTF-8: the byte at offset {offset} cannot be read")]
    NotUtf8 {
        /// Where the text came from.
        place: String,
        /// The first byte that is wrong, from 0.
        offset: usize,
    },
    /// The text could not be read at all.
    #[error("{place} cannot be read: {source}")]
    Input {
        /// Where the text should have come from.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// The audio could not be written.
    #[error("{} cannot be written: {source}", path.display())]
    Output {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Provisioning failed; its text says what to do.
    #[error(transparent)]
    Provision(#[from] chorus_provision::Error),
    /// The broker.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// An answer of the fleet, or the refusal of one.
    #[error("{0}")]
    Service(#[from] ServiceError),
    /// A program could not be started.
    #[error("{}", with_source(.0))]
    Spawn(#[from] SpawnError),
    /// There is no fleet to speak to.
    #[error("no fleet is running here")]
    NoFleet,
    /// There is nothing to speak with.
    #[error("no voice is installed, and no model was named")]
    NoVoice,
    /// A request that was refused or failed, with all that is known of it.
    #[error("{error}")]
    Request {
        /// Why.
        error: ServiceError,
        /// The request's result.
        result: Box<SynthesisResult>,
    },
    /// There is one already.
    #[error("a fleet is already running in this CHORUS_HOME: {holder}")]
    FleetRunning {
        /// What its run file says, but for secrets.
        holder: String,
    },
    /// A part of our own fleet did not come up or went down.
    #[error("{part}: {why}")]
    Fleet {
        /// Which part.
        part: &'static str,
        /// What happened.
        why: String,
    },
    /// The port that was asked for is not to be had.
    #[error("port {port} cannot be used for nats-server: {source}")]
    Port {
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// A manager did not start.
    #[error("{}", with_source(.0))]
    Manager(#[from] ManagerError),
    /// A worker did not start.
    #[error("{}", with_source(.0))]
    Worker(#[from] WorkerError),
    /// A worker was configured wrongly.
    #[error(transparent)]
    WorkerConfig(#[from] chorus_worker::ConfigError),
    /// Something of the operating system.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A signal came first.
    #[error("interrupted")]
    Interrupted(StopSignal),
    /// The command has reported; only the exit code is left to say.
    #[error("not ready")]
    Reported,
}

fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

impl CliError {
    /// For what the operating system refused.
    pub fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// The exit code's meaning.
    pub fn status(&self) -> ExitStatus {
        match self {
            Self::Usage(_) | Self::Config(_) | Self::Telemetry(_) | Self::NotUtf8 { .. } => ExitStatus::Usage,
            Self::Interrupted(signal) => ExitStatus::Interrupted(*signal),
            Self::Service(error) | Self::Request { error, .. } if error.code == ErrorCode::InvalidRequest => {
                ExitStatus::Usage
            }
            _ => ExitStatus::Failed,
        }
    }

    /// What the user can do next, in one line.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Usage(_) => "`chorus help` lists the commands, `chorus COMMAND --help` their options",
            Self::Config(_) => "correct these settings and run the same command again",
            Self::Telemetry(_) => "a filter looks like `info` or `warn,chorus_worker=debug` (CHORUS_LOG)",
            Self::NotUtf8 { .. } => "convert the text first, for example with `iconv -f latin1 -t utf-8`",
            Self::Input { .. } => "name an existing text file with --file, or pipe the text in and give `-`",
            Self::Output { .. } => "name another file with -o, in a folder that exists and can be written",
            Self::Provision(_) => "`chorus doctor` shows what this machine has and what it lacks",
            Self::Bus(error) => bus_hint(error.kind),
            Self::Service(error) | Self::Request { error, .. } => return Some(service_hint(error)),
            Self::Spawn(_) => "`chorus setup` installs what is missing; `chorus doctor` shows what there is",
            Self::NoVoice => "name one with --model, or run `chorus setup` for the demo voice",
            Self::NoFleet => "start one with `chorus up`, or name a broker with --nats",
            Self::FleetRunning { .. } => {
                "use it as it is, stop it first, or set CHORUS_HOME to another folder"
            }
            Self::Port { .. } => "name another with --port, or none: then a free one is taken",
            Self::Manager(ManagerError::Bus(error)) | Self::Worker(WorkerError::Bus(error)) => {
                bus_hint(error.kind)
            }
            Self::Fleet { .. } | Self::Manager(_) | Self::Worker(_) | Self::WorkerConfig(_) => {
                "`chorus doctor` checks the machine; CHORUS_LOG=debug shows every step"
            }
            Self::Io { .. } => {
                "check the folder and its permissions; `chorus doctor` looks at the usual ones"
            }
            Self::Interrupted(_) | Self::Reported => return None,
        };
        Some(hint.to_owned())
    }

    /// For programs: the failed request's result, or `{success: false, error: {code?, message, hint?, retryable, details?}}`.
    pub fn to_json(&self) -> Value {
        let mut value = match self {
            Self::Request { result, .. } => json!(result),
            Self::Service(error) => json!({"success": false, "error": error}),
            Self::Bus(error) if is_away(error.kind) => {
                let error = ServiceError::new(Reason::NoBroker, error.to_string());
                json!({"success": false, "error": error})
            }
            Self::Config(error) => json!({"success": false, "error": {
                "message": error.to_string(), "retryable": false, "faults": error.faults,
            }}),
            other => {
                json!({"success": false, "error": {"message": other.to_string(), "retryable": false}})
            }
        };
        if let (Some(error), Some(hint)) = (value["error"].as_object_mut(), self.hint()) {
            error.insert("hint".to_owned(), hint.into());
        }
        value
    }
}

/// Whether trying again later may find the broker.
fn is_away(kind: BusErrorKind) -> bool {
    matches!(kind, BusErrorKind::Unreachable | BusErrorKind::Disconnected | BusErrorKind::Timeout)
}

impl From<RequestError> for CliError {
    /// Nobody listening means that there is a broker but no manager.
    fn from(error: RequestError) -> Self {
        match error.kind {
            RequestErrorKind::NoResponders => {
                Self::Service(ServiceError::new(Reason::NoManager, "no manager answers on this broker"))
            }
            _ => Self::Service(error.into_service_error()),
        }
    }
}

impl From<LockError> for CliError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { holder, .. } => Self::FleetRunning { holder: crate::runfile::shown(&holder) },
            LockError::Io { path, source } => {
                Self::Io { action: format!("cannot lock {}", path.display()), source }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_to_do_and_how_to_exit() {
        let unknown = ServiceError::new(Reason::UnknownModel, "no model x").with("known", vec!["joe", "ann"]);
        let error = CliError::from(unknown);
        assert_eq!(error.hint().unwrap(), "there are: joe, ann");
        assert_eq!(error.status().code(), 1);
        assert_eq!(error.to_json()["error"]["code"], "MODEL_NOT_FOUND");
        let large = CliError::from(ServiceError::new(Reason::TooLarge, "too large"));
        assert_eq!(large.status(), ExitStatus::Usage);
        assert_eq!(CliError::NotUtf8 { place: "stdin".into(), offset: 3 }.status().code(), 2);
        assert_eq!(CliError::Interrupted(StopSignal::Interrupt).status().code(), 130);
        assert_eq!(CliError::Interrupted(StopSignal::Terminate).status().code(), 143);
        assert_eq!(CliError::NoFleet.to_json()["success"], false);
        for reason in Reason::ALL {
            assert!(CliError::from(ServiceError::new(*reason, "x")).hint().is_some(), "{reason:?}");
        }
    }
}
