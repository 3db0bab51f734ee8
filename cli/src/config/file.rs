//! The configuration file: TOML tables whose keys are the settings' names.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use toml::{Table, Value as Toml};

use super::{Fault, Value, settings};

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
    parse(&text, &place, models, faults)
}

/// Reads what stands in a file.
pub(super) fn parse(
    text: &str,
    place: &str,
    models: &mut BTreeMap<String, String>,
    faults: &mut Vec<Fault>,
) -> Vec<Value> {
    match text.parse::<Table>() {
        Ok(table) => {
            let mut reading = Reading { place, values: Vec::new(), models, faults };
            reading.table("", table);
            reading.values
        }
        Err(error) => {
            let what = error.to_string().trim_end().to_owned();
            faults.push(Fault { place: place.to_owned(), what });
            Vec::new()
        }
    }
}

struct Reading<'a> {
    place: &'a str,
    values: Vec<Value>,
    models: &'a mut BTreeMap<String, String>,
    faults: &'a mut Vec<Fault>,
}

impl Reading<'_> {
    fn fault(&mut self, key: &str, what: &str) {
        self.faults.push(Fault { place: format!("{}: {key}", self.place), what: what.to_owned() });
    }

    /// Reads a table whose own name, with a dot behind it, is `prefix`.
    fn table(&mut self, prefix: &str, table: Table) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match (value, settings::find(&key)) {
                (Toml::Table(models), None) if key == "models" => self.models(models),
                (Toml::Table(entries), None) if is_table(&key) => self.table(&format!("{key}."), entries),
                (_, None) => self.fault(&key, "there is no such setting"),
                (value, Some(_)) => match scalar(value) {
                    Some(text) => {
                        let place = format!("{}: {key}", self.place);
                        self.values.push(Value { place, key, text });
                    }
                    None => self.fault(&key, "must be a string, a number or a boolean"),
                },
            }
        }
    }

    fn models(&mut self, models: Table) {
        for (name, value) in models {
            match value {
                Toml::String(path) => drop(self.models.insert(name, path)),
                _ => self
                    .fault(&format!("models.{name}"), "must be a path or a name on Coqui's hub, as a string"),
            }
        }
    }
}

/// Whether settings stand in a table of this name.
fn is_table(name: &str) -> bool {
    let inside = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    settings::all().any(|setting| inside(setting.key)) || settings::FORMER.iter().any(|(key, ..)| inside(key))
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
