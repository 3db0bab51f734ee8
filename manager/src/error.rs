//! Why a manager did not start.

use chorus_bus::BusError;
use chorus_protocol::ServiceError;

use crate::config::ConfigError;

/// A manager that did not start.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The configuration cannot be honoured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The name cannot be one.
    #[error("the manager's name cannot be used")]
    Name(#[from] chorus_protocol::ids::IdError),
    /// The broker cannot serve, or the start was cancelled.
    #[error("the manager cannot use the broker")]
    Bus(#[from] BusError),
    /// The start came to an end before its time.
    #[error("the manager did not start: {0}")]
    Start(&'static str),
    /// The part that speaks plain requests did not start.
    #[error("the manager's sessions did not start: {0}")]
    Sessions(ServiceError),
}
