//! Why a scenario could not be run to its end. What went wrong *in* it is the report's.

use std::path::PathBuf;

use chorus_bus::BusError;
use chorus_protocol::ServiceError;
use chorus_runtime::process::SpawnError;

/// The scenario could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// There is no scenario of this name.
    #[error("there is no scenario {name:?}; there are {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// A file or folder that the fleet needs.
    #[error("cannot use {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A process was not started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A part of the fleet did not come up in time, with its last words.
    #[error("{part} was not ready in time: {tail}")]
    NotReady {
        /// Which.
        part: String,
        /// The last lines of its log.
        tail: String,
    },
    /// A scenario that takes a network link down cannot do so here.
    #[error(
        "no network namespace with a link of its own can be made here ({why}); this scenario needs root, `ip` \
         (Debian: apt-get install iproute2) and the right to make namespaces, and has NOT been run"
    )]
    NoNamespace {
        /// What failed.
        why: String,
    },
    /// A step could not be taken.
    #[error("a step could not be taken: {0}")]
    Step(String),
    /// The broker.
    #[error("the broker failed")]
    Bus(#[from] BusError),
    /// The sessions of the load.
    #[error("sessions could not be started: {}", .0.message)]
    Sessions(ServiceError),
}

impl ChaosError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
