//! Telemetry: logs to stderr, and the W3C trace context that travels in every message.
//!
//! `main` calls [`init`] once with a [`TelemetryConfig`] taken from the typed configuration (this module
//! reads no environment) and holds the [`TelemetryGuard`] until the end. stdout stays free for what the user
//! asked for. [`TraceContext`] is the part of a span that crosses processes.

pub mod trace;

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use trace::TraceContext;

/// The shape of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line per event for people.
    #[default]
    Human,
    /// One JSON object per line for machines.
    Json,
}

/// When human lines are coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogColor {
    /// When stderr is a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What `main` decides about logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Directives of `tracing_subscriber::EnvFilter`, such as `info` or `warn,chorus_worker=debug`
    /// (`CHORUS_LOG`).
    pub filter: String,
    /// The shape of lines.
    pub format: LogFormat,
    /// Colour.
    pub color: LogColor,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Human, color: LogColor::Auto }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter's directives do not parse.
    #[error("the log filter {filter:?} is not valid")]
    Filter {
        /// The directives as given.
        filter: String,
        /// What is wrong with them.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is already set in this process.
    #[error("logging is already set up")]
    AlreadySet(#[from] TryInitError),
}

/// Flushes what telemetry still holds when it is dropped. Keep it until the end of `main`.
#[derive(Debug)]
#[must_use = "telemetry is flushed when this is dropped"]
pub struct TelemetryGuard(());

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        // A closed stderr leaves nobody to tell.
        let _unheard = io::stderr().flush();
    }
}

/// Sets up logging for the whole process.
pub fn init(config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(&config.filter)
        .map_err(|source| TelemetryError::Filter { filter: config.filter.clone(), source })?;
    let colored = match config.color {
        LogColor::Auto => io::stderr().is_terminal(),
        LogColor::Always => true,
        LogColor::Never => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Human => registry.with(lines.with_ansi(colored)).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_ansi(false)).try_init()?,
    }
    Ok(TelemetryGuard(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_and_a_second_set_up_is_refused() {
        let bad = TelemetryConfig { filter: "chorus=loud=er".to_owned(), ..TelemetryConfig::default() };
        let error = init(&bad).unwrap_err();
        assert!(error.to_string().contains("loud=er"), "{error}");
        let json = TelemetryConfig { format: LogFormat::Json, ..TelemetryConfig::default() };
        let _guard = init(&json).unwrap();
        assert!(matches!(init(&json), Err(TelemetryError::AlreadySet(_))));
    }
}
