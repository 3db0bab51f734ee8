//! The environment, read once in `main` and handed down; tests make their own.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::{Fault, Value, settings};

/// What other parts of chorus read under the same prefix, and what is not a setting.
const OTHERS: [&str; 3] = ["CHORUS_HOME", "CHORUS_BIN", chorus_chaos::switches::VARIABLE];

/// Names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    pairs: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Takes the variables as they are now.
    pub fn new(pairs: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { pairs: pairs.into_iter().collect() }
    }

    /// A variable's value; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let found = self.pairs.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// All of it, for children and for provisioning.
    pub fn pairs(&self) -> Vec<(OsString, OsString)> {
        self.pairs.clone()
    }

    /// The place for temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.get("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
    }

    /// The first executable file of this name on `PATH`.
    pub fn on_path(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let folders = std::env::split_paths(self.get("PATH")?);
        let executable = |file: &PathBuf| {
            file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        };
        folders.map(|folder| folder.join(name)).find(executable)
    }

    /// Variables that look like settings but are none: most likely misspelt.
    pub fn unknown(&self) -> Vec<String> {
        let names = self.pairs.iter().filter_map(|(name, _)| name.to_str());
        let ours = names.filter(|name| name.starts_with("CHORUS_") && !OTHERS.contains(name));
        ours.filter(|name| variables().all(|(_, variable)| variable != *name)).map(str::to_owned).collect()
    }
}

/// Settings' names and their variables, those of an earlier day too.
fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
    let former = settings::FORMER.iter().map(|(key, variable, _)| (*key, *variable));
    settings::all().map(|setting| (setting.key, setting.variable)).chain(former)
}

/// What the environment says about settings.
pub(super) fn values(environment: &Environment, faults: &mut Vec<Fault>) -> Vec<Value> {
    let mut values = Vec::new();
    for (key, variable) in variables() {
        let Some(value) = environment.get(variable) else { continue };
        match value.to_str() {
            Some(text) => {
                values.push(Value { key: key.to_owned(), place: variable.to_owned(), text: text.to_owned() });
            }
            None => {
                faults.push(Fault { place: variable.to_owned(), what: "is not valid UTF-8".to_owned() });
            }
        }
    }
    values
}
