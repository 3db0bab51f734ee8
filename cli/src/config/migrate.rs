//! From the configuration of the single-process service (JSON) to chorus.toml.
//!
//! Pure: text in, text out. What is known gets its new name and a line of explanation; what is not known is kept as a
//! comment, so that nothing is lost; what the old service had no word for is written out with its default, as the plan's
//! `ConfigMigrator` does. Values are checked like those of any other file, and every fault is told at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Map, Value as Json};

use super::{CliConfig, ConfigError, Fault, Value, apply, settings};

/// What old configurations call a setting, and what it is called now.
const RENAMED: [(&str, &str); 6] = [
    ("ttsModel", "modelName"),
    ("ttsCacheDir", "cacheDir"),
    ("cachePath", "cacheDir"),
    ("ttsPythonPath", "pythonPath"),
    ("fleet.workers", "workerPool.minWorkers"),
    ("maxWorkers", "workerPool.maxWorkers"),
];

/// Written out though the old configuration does not say them: what the plan's migration adds.
const ADDED: [&str; 11] = [
    "workerPool.minWorkers",
    "workerPool.maxWorkers",
    "workerPool.scaleUpThreshold",
    "workerPool.scaleDownThreshold",
    "circuitBreaker.failureThreshold",
    "circuitBreaker.timeoutMs",
    "circuitBreaker.resetTimeoutMs",
    "circuitBreaker.successThreshold",
    "circuitBreaker.slidingWindowSize",
    "features.circuitBreaker",
    "features.singleWorkerFallback",
];

/// What became of an old configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Migrated {
    /// The new file.
    pub toml: String,
    /// Old names that nothing is known about.
    pub unknown: Vec<String>,
}

/// One line of the new file.
struct Line {
    value: Json,
    was: Option<String>,
}

/// Migrates; `place` names the old file in faults and in the new file's head.
///
/// # Errors
/// Every fault: no JSON object, a value that its setting cannot take, two old names for one setting.
pub fn migrate(old: &str, place: &str) -> Result<Migrated, ConfigError> {
    let fault = |what: String| ConfigError { faults: vec![Fault { place: place.to_owned(), what }] };
    let parsed: Json = serde_json::from_str(old).map_err(|error| fault(format!("is not JSON: {error}")))?;
    let Json::Object(old) = parsed else { return Err(fault("is not a JSON object".to_owned())) };
    let mut found = Found::default();
    found.read("", &old);
    let mut config = CliConfig::defaults(PathBuf::new());
    let mut faults = Vec::new();
    let values: Vec<Value> = found.values(place, &mut faults);
    apply(&mut config, &values, &mut faults);
    config.check(&mut faults);
    if !faults.is_empty() {
        return Err(ConfigError { faults });
    }
    Ok(Migrated {
        toml: written(&found, &config, place),
        unknown: found.unknown.iter().map(|(name, _)| name.clone()).collect(),
    })
}

/// What the old configuration says.
#[derive(Default)]
struct Found {
    /// Old name, setting, value.
    known: Vec<(String, &'static str, Json)>,
    models: Map<String, Json>,
    unknown: Vec<(String, Json)>,
}

impl Found {
    fn read(&mut self, prefix: &str, table: &Map<String, Json>) {
        for (name, value) in table {
            let old = format!("{prefix}{name}");
            let key =
                RENAMED.iter().find(|(known, _)| *known == old).map_or(old.as_str(), |(_, today)| today);
            match (settings::find(key), value) {
                // The plan's migration takes an empty or absent model for the default.
                (Some(setting), Json::Null) if setting.key != "modelName" => {
                    self.unknown.push((old, Json::Null))
                }
                (Some(setting), value) => {
                    let none = matches!(value, Json::Null) || value == "" || value == "default";
                    if setting.key != "modelName" || !none {
                        self.known.push((old, setting.key, value.clone()));
                    }
                }
                (None, Json::Object(models)) if old == "models" && models.values().all(Json::is_string) => {
                    self.models.clone_from(models);
                }
                (None, Json::Object(entries)) if !entries.is_empty() => {
                    self.read(&format!("{old}."), entries)
                }
                (None, _) => self.unknown.push((old, value.clone())),
            }
        }
    }

    fn values(&self, place: &str, faults: &mut Vec<Fault>) -> Vec<Value> {
        let mut values = Vec::new();
        for (old, key, value) in &self.known {
            let place = format!("{place}: {old}");
            match scalar(value) {
                Some(text) => values.push(Value { key: (*key).to_owned(), place, text }),
                None => {
                    faults.push(Fault { place, what: "must be a string, a number or a boolean".to_owned() })
                }
            }
        }
        values
    }
}

fn scalar(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.trim().to_owned()),
        Json::Number(_) | Json::Bool(_) => Some(value.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn written(found: &Found, config: &CliConfig, place: &str) -> String {
    let mut lines: BTreeMap<&str, Line> = BTreeMap::new();
    for key in ADDED {
        let default = match key {
            "workerPool.maxWorkers" => Some(config.tts.worker_pool.most_workers().into()),
            key => settings::find(key).and_then(|setting| setting.shown(config)),
        };
        if let Some(value) = default {
            lines.insert(key, Line { value, was: None });
        }
    }
    for (old, key, value) in &found.known {
        lines.insert(key, Line { value: typed(key, value), was: Some(old.clone()) });
    }
    let mut toml = format!("# Made by `chorus config migrate` from {}.\n", one_line(place));
    toml.push_str("# Check it with `chorus config check --config FILE`; put it into CHORUS_HOME as config.toml to use it always.\n");
    if !found.known.iter().any(|(_, key, _)| *key == "modelName") {
        toml.push_str(
            "\n# modelName: the old configuration named none, or the default; the demo voice is used.\n",
        );
    }
    tables(&mut toml, &lines);
    if !found.models.is_empty() {
        toml.push_str("\n[models]\n");
        for (name, path) in &found.models {
            let _infallible = writeln!(toml, "{} = {}", literal(&Json::from(name.as_str())), literal(path));
        }
    }
    if !found.unknown.is_empty() {
        toml.push_str("\n# Nothing is known about these; they are kept so that nothing is lost:\n");
        for (name, value) in &found.unknown {
            let _infallible = writeln!(toml, "# {} = {}", one_line(name), literal(value));
        }
    }
    toml
}

/// As its setting is written: a number that was a text is a number, a relative path stays one.
fn typed(key: &str, value: &Json) -> Json {
    let text = scalar(value).unwrap_or_default();
    settings::find(key).map_or(Json::Null, |setting| setting.shape.value(&text))
}

/// A JSON value as TOML has it, in a comment too. Its strings are TOML's, but for one character that TOML wants escaped.
fn literal(value: &Json) -> String {
    value.to_string().replace('\u{7f}', "\\u007f")
}

/// Top-level settings first, then a table each.
fn tables(toml: &mut String, lines: &BTreeMap<&str, Line>) {
    let mut of_table: BTreeMap<&str, Vec<(&str, &str, &Line)>> = BTreeMap::new();
    for (key, line) in lines {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        of_table.entry(table).or_default().push((name, key, line));
    }
    for (table, entries) in of_table {
        toml.push('\n');
        if !table.is_empty() {
            let _infallible = writeln!(toml, "[{table}]");
        }
        for (name, key, line) in entries {
            let about = settings::find(key).map_or("", |setting| setting.about);
            let from = match &line.was {
                Some(old) if old == key => String::new(),
                Some(old) => format!(" (was: {})", one_line(old)),
                None => " (new; this is the default)".to_owned(),
            };
            let _infallible = writeln!(toml, "# {about}.{from}\n{name} = {}", literal(&line.value));
        }
    }
}

/// A name of somebody else's inside a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
