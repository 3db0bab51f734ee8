//! Every setting: its name, its variable, what its text may be, what it is for, and the field that it fills.
//!
//! This table is the one truth about settings: the file, the environment, the flags, `chorus config show` and the JSON
//! Schema are all read from it, so none of them can know a setting that the others do not.

mod own;
mod plan;
mod shape;
mod slot;

use serde_json::{Value as Json, json};

use super::{CliConfig, Value};
pub use shape::Shape;
use slot::Slot;

/// One setting.
pub struct Setting {
    /// Its name in the file, such as `nats.url`.
    pub key: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// What it may be.
    pub shape: Shape,
    /// What it is for, in one sentence.
    pub about: &'static str,
    slot: fn(&CliConfig) -> &dyn Slot,
    slot_mut: fn(&mut CliConfig) -> &mut dyn Slot,
}

/// A setting that fills the field named last.
macro_rules! setting {
    ($key:literal, $variable:literal, $shape:expr, $about:literal, $($field:ident).+) => {
        Setting {
            key: $key,
            variable: $variable,
            shape: $shape,
            about: $about,
            slot: |config| &config.$($field).+,
            slot_mut: |config| &mut config.$($field).+,
        }
    };
}
use setting;

/// Names of an earlier day that still mean the same: the name, its variable, the setting of today.
pub(super) const FORMER: [(&str, &str, &str); 2] = [
    ("fleet.workers", "CHORUS_FLEET_WORKERS", "workerPool.minWorkers"),
    ("cachePath", "CHORUS_CACHE_PATH", "cacheDir"),
];

/// Settings that must not be shown.
const SECRETS: [&str; 2] = ["nats.token", "nats.password"];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    plan::SETTINGS.iter().chain(own::SETTINGS)
}

/// The one of this name, or of this name of an earlier day.
pub fn find(key: &str) -> Option<&'static Setting> {
    let today = FORMER.iter().find(|(former, ..)| *former == key).map_or(key, |(.., today)| today);
    all().find(|setting| setting.key == today)
}

impl Setting {
    /// What is set, as it may be shown to anybody; `None` when nothing is.
    pub fn shown(&self, config: &CliConfig) -> Option<Json> {
        let text = (self.slot)(config).show()?;
        if SECRETS.contains(&self.key) {
            return Some("***".into());
        }
        Some(self.shape.value(&if self.shape == Shape::Url { without_secrets(&text) } else { text }))
    }

    /// Its JSON Schema, with the default where there is one.
    pub fn schema(&self, defaults: &CliConfig) -> Json {
        let mut schema = self.shape.schema();
        schema["description"] = format!("{} (environment: {})", self.about, self.variable).into();
        if let Some(default) = self.shown(defaults) {
            schema["default"] = default;
        }
        schema
    }
}

/// Puts one value into the configuration.
pub(super) fn apply(config: &mut CliConfig, value: &Value) -> Result<&'static Setting, String> {
    let setting = find(&value.key).ok_or("there is no such setting")?;
    let text = value.text.trim();
    setting.shape.check(text)?;
    (setting.slot_mut)(config).put(text)?;
    Ok(setting)
}

/// Addresses without `user:password@`.
fn without_secrets(urls: &str) -> String {
    let hidden = urls.split(',').map(|url| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        (_, None) => url.to_owned(),
    });
    hidden.collect::<Vec<_>>().join(",")
}

/// The JSON Schema of the file.
pub fn schema(defaults: &CliConfig) -> Json {
    let mut root = table();
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "chorus configuration".into();
    for setting in all() {
        put(&mut root, setting.key, setting.schema(defaults));
    }
    root["properties"]["models"] = json!({
        "type": "object",
        "description": "Models by name: a file, a folder, or a name on Coqui's hub",
        "additionalProperties": {"type": "string", "minLength": 1},
    });
    for (former, variable, today) in FORMER {
        let about = format!("The same as {today}, by an earlier name (environment: {variable})");
        if let Some(setting) = find(today) {
            let mut schema = setting.shape.schema();
            schema["description"] = about.into();
            schema["deprecated"] = true.into();
            put(&mut root, former, schema);
        }
    }
    root
}

fn table() -> Json {
    json!({"type": "object", "additionalProperties": false, "properties": {}})
}

/// Puts a schema where its dotted name says, making tables on the way.
fn put(root: &mut Json, key: &str, schema: Json) {
    let mut at = root;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        let place = &mut at["properties"][part];
        if parts.peek().is_none() {
            *place = schema;
            return;
        }
        if place.is_null() {
            *place = table();
        }
        at = place;
    }
}
