//! The configuration file: TOML tables whose keys are the settings' names.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use toml::{Table, Value as Toml};

use super::settings::SETTINGS;
use super::{Fault, Value};

/// Reads the file; a missing one is empty unless it was asked for.
pub(super) fn read(
    path: &Path,
    required: bool,
    models: &mut BTreeMap<String, String>,
    faults: &mut Vec<Fault>,
) -> Vec<Value> {
    let place = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !required => return Vec::new(),
        Err(error) => {
            faults.push(Fault { place, what: format!("cannot be read: {error}") });
            return Vec::new();
        }
    };
    match text.parse::<Table>() {
        Ok(table) => flatten(&place, table, models, faults),
        Err(error) => {
            faults.push(Fault { place, what: error.to_string().trim_end().to_owned() });
            Vec::new()
        }
    }
}

fn flatten(
    place: &str,
    table: Table,
    models: &mut BTreeMap<String, String>,
    faults: &mut Vec<Fault>,
) -> Vec<Value> {
    let mut values = Vec::new();
    for (section, content) in table {
        let fault = |key: &str, what: &str| Fault { place: format!("{place}: {key}"), what: what.to_owned() };
        let Toml::Table(entries) = content else {
            faults.push(fault(&section, "is not a table; settings stand in tables such as [nats]"));
            continue;
        };
        for (name, value) in entries {
            let key = format!("{section}.{name}");
            if section == "models" {
                match value {
                    Toml::String(path) => drop(models.insert(name, path)),
                    _ => faults.push(fault(&key, "must be a path or a name on Coqui's hub, as a string")),
                }
                continue;
            }
            if SETTINGS.iter().all(|setting| setting.key != key) {
                faults.push(fault(&key, "there is no such setting"));
                continue;
            }
            match scalar(value) {
                Some(text) => values.push(Value { place: format!("{place}: {key}"), key, text }),
                None => faults.push(fault(&key, "must be a string, a number or a boolean")),
            }
        }
    }
    values
}

fn scalar(value: Toml) -> Option<String> {
    match value {
        Toml::String(text) => Some(text),
        Toml::Integer(number) => Some(number.to_string()),
        Toml::Float(number) => Some(number.to_string()),
        Toml::Boolean(truth) => Some(truth.to_string()),
        Toml::Datetime(_) | Toml::Array(_) | Toml::Table(_) => None,
    }
}
