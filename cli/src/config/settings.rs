//! Every setting: its name, its variable, and how its text is understood.

use std::path::PathBuf;
use std::time::Duration;

use chorus_runtime::telemetry::LogFormat;

use super::{CliConfig, EngineKind, Value};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name in the file, such as `nats.url`.
    pub key: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    set: fn(&mut CliConfig, &str) -> Result<(), String>,
}

/// An engine with less cannot even start.
const LEAST_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// All of them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "nats.url",
        variable: "CHORUS_NATS_URL",
        set: |c, t| url(t).map(|v| c.nats.url = Some(v)),
    },
    Setting {
        key: "nats.token",
        variable: "CHORUS_NATS_TOKEN",
        set: |c, t| text(t).map(|v| c.nats.token = Some(v)),
    },
    Setting {
        key: "nats.user",
        variable: "CHORUS_NATS_USER",
        set: |c, t| text(t).map(|v| c.nats.user = Some(v)),
    },
    Setting {
        key: "nats.password",
        variable: "CHORUS_NATS_PASSWORD",
        set: |c, t| text(t).map(|v| c.nats.password = Some(v)),
    },
    Setting {
        key: "nats.creds_file",
        variable: "CHORUS_NATS_CREDS_FILE",
        set: |c, t| path(t).map(|v| c.nats.creds_file = Some(v)),
    },
    Setting {
        key: "nats.server",
        variable: "CHORUS_NATS_SERVER",
        set: |c, t| path(t).map(|v| c.nats.server = Some(v)),
    },
    Setting {
        key: "nats.port",
        variable: "CHORUS_NATS_PORT",
        set: |c, t| number(t, 0, 65_535).map(|v| c.nats.port = Some(v as u16)),
    },
    Setting {
        key: "nats.replicas",
        variable: "CHORUS_NATS_REPLICAS",
        set: |c, t| number(t, 1, 5).map(|v| c.nats.replicas = Some(v as u32)),
    },
    Setting {
        key: "engine.kind",
        variable: "CHORUS_ENGINE_KIND",
        set: |c, t| kind(t).map(|v| c.engine.kind = v),
    },
    Setting {
        key: "engine.python",
        variable: "CHORUS_ENGINE_PYTHON",
        set: |c, t| path(t).map(|v| c.engine.python = Some(v)),
    },
    Setting {
        key: "engine.path",
        variable: "CHORUS_ENGINE_PATH",
        set: |c, t| path(t).map(|v| c.engine.path = Some(v)),
    },
    Setting {
        key: "engine.threads",
        variable: "CHORUS_ENGINE_THREADS",
        set: |c, t| number(t, 1, 1024).map(|v| c.engine.threads = Some(v as u32)),
    },
    Setting {
        key: "engine.lanes",
        variable: "CHORUS_ENGINE_LANES",
        set: |c, t| number(t, 1, 256).map(|v| c.engine.lanes = Some(v as u32)),
    },
    Setting {
        key: "engine.max_memory_bytes",
        variable: "CHORUS_ENGINE_MAX_MEMORY_BYTES",
        set: |c, t| number(t, LEAST_MEMORY_BYTES, u64::MAX).map(|v| c.engine.max_memory_bytes = Some(v)),
    },
    Setting {
        key: "engine.canary",
        variable: "CHORUS_ENGINE_CANARY",
        set: |c, t| truth(t).map(|v| c.engine.canary = v),
    },
    Setting {
        key: "engine.recycle_requests",
        variable: "CHORUS_ENGINE_RECYCLE_REQUESTS",
        set: |c, t| number(t, 0, u64::MAX).map(|v| c.engine.recycle_requests = v),
    },
    Setting {
        key: "engine.recycle_age_ms",
        variable: "CHORUS_ENGINE_RECYCLE_AGE_MS",
        set: |c, t| number(t, 0, u64::MAX).map(|v| c.engine.recycle_age = Duration::from_millis(v)),
    },
    Setting {
        key: "engine.recycle_rss_bytes",
        variable: "CHORUS_ENGINE_RECYCLE_RSS_BYTES",
        set: |c, t| number(t, 0, u64::MAX).map(|v| c.engine.recycle_rss_bytes = v),
    },
    Setting {
        key: "fleet.workers",
        variable: "CHORUS_FLEET_WORKERS",
        set: |c, t| number(t, 1, 64).map(|v| c.fleet.workers = v as u32),
    },
    Setting {
        key: "fleet.ready_timeout_ms",
        variable: "CHORUS_FLEET_READY_TIMEOUT_MS",
        set: |c, t| number(t, 100, 3_600_000).map(|v| c.fleet.ready_timeout = Duration::from_millis(v)),
    },
    Setting {
        key: "fleet.stop_timeout_ms",
        variable: "CHORUS_FLEET_STOP_TIMEOUT_MS",
        set: |c, t| number(t, 100, 600_000).map(|v| c.fleet.stop_timeout = Duration::from_millis(v)),
    },
    Setting {
        key: "log.filter",
        variable: "CHORUS_LOG",
        set: |c, t| text(t).map(|v| c.log_filter = Some(v)),
    },
    Setting {
        key: "log.format",
        variable: "CHORUS_LOG_FORMAT",
        set: |c, t| log_format(t).map(|v| c.log_format = v),
    },
];

/// Puts one value into the configuration.
pub(super) fn apply(config: &mut CliConfig, value: &Value) -> Result<(), String> {
    match SETTINGS.iter().find(|setting| setting.key == value.key) {
        Some(setting) => (setting.set)(config, value.text.trim()),
        None => Err("there is no such setting".to_owned()),
    }
}

fn text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Absolute, as seen from the working directory: children may have another.
fn path(given: &str) -> Result<PathBuf, String> {
    std::path::absolute(text(given)?).map_err(|error| format!("{given:?} cannot be made absolute: {error}"))
}

fn url(given: &str) -> Result<String, String> {
    let known = |url: &str| {
        let rest = ["nats://", "tls://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        rest.is_some_and(|rest| !rest.is_empty()) || (!url.is_empty() && !url.contains("://"))
    };
    if given.split(',').all(|url| known(url.trim())) {
        return Ok(given.to_owned());
    }
    Err("is not a broker's address; one looks like nats://127.0.0.1:4222".to_owned())
}

fn number(given: &str, least: u64, most: u64) -> Result<u64, String> {
    let parsed = given.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
    parsed.ok_or_else(|| format!("{given:?} is not a whole number from {least} to {most}"))
}

fn truth(given: &str) -> Result<bool, String> {
    given.parse().map_err(|_error| format!("{given:?} is neither true nor false"))
}

fn kind(given: &str) -> Result<EngineKind, String> {
    let all = [EngineKind::Coqui, EngineKind::Null, EngineKind::Checkable];
    let found = all.into_iter().find(|kind| kind.as_str() == given);
    found.ok_or_else(|| format!("{given:?} is no engine; there are coqui, null and checkable"))
}

fn log_format(given: &str) -> Result<LogFormat, String> {
    match given {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("{other:?} is no log format; there are human and json")),
    }
}
