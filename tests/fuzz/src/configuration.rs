//! The ways in of settings: today's file, and the old service's configuration.

use chorus_cli::config::{CliConfig, migrate, of_text, settings};
use serde_json::Value;

/// Settings that are not shown as they are, for what they hold may be secret.
const HIDDEN: &str = "nats.";

/// A file. What is good means the same when it is written in full and read again; what is not has at least one fault.
pub(crate) fn config(bytes: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
    match of_text(text, "config.toml") {
        Ok(config) => {
            let written = written(&config);
            let again = of_text(&written, "again").unwrap_or_else(|error| panic!("{error}\n{written}"));
            assert_eq!(shown(&again), shown(&config), "{written}");
            assert_eq!(again.models, config.models);
            1
        }
        Err(error) => {
            assert!(error.faults.iter().all(|fault| !fault.what.is_empty()), "{error}");
            assert!(!error.faults.is_empty());
            0
        }
    }
}

/// An old configuration. What can be migrated is a file that is good.
pub(crate) fn migrated(bytes: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
    match migrate::migrate(text, "old.json") {
        Ok(migrated) => {
            let new = of_text(&migrated.toml, "new");
            new.unwrap_or_else(|error| panic!("{error}\n{}", migrated.toml));
            1
        }
        Err(error) => {
            assert!(!error.faults.is_empty());
            0
        }
    }
}

/// All that may be told of a configuration.
fn shown(config: &CliConfig) -> Vec<(&'static str, Value)> {
    let told = settings::all().filter(|setting| !setting.key.starts_with(HIDDEN));
    told.filter_map(|setting| Some((setting.key, setting.shown(config)?))).collect()
}

/// The same as a file.
fn written(config: &CliConfig) -> String {
    let literal =
        |value: &Value| toml::Value::try_from(value).expect("a scalar of JSON is one of TOML").to_string();
    let settings = shown(config).into_iter().map(|(key, value)| format!("{key} = {}\n", literal(&value)));
    let models = config.models.iter().map(|(name, path)| {
        let [name, path] = [name, path].map(|text| literal(&Value::from(text.as_str())));
        format!("models.{name} = {path}\n")
    });
    settings.chain(models).collect()
}
