//! `chorus config`: check, show, schema, migrate.
//!
//! `schema` and `migrate` work whatever state the present configuration is in, so they are run before it is read
//! ([`before_loading`]); for `check` and `show` it was read, and found good, when they begin.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::app::Context;
use crate::args::ConfigCommand;
use crate::config::{CliConfig, migrate, settings};
use crate::error::CliError;
use crate::ui::{Ui, table};

/// Runs what needs no configuration; says whether that was all.
pub fn before_loading(ui: Ui, command: &ConfigCommand) -> Result<bool, CliError> {
    match command {
        ConfigCommand::Check { .. } | ConfigCommand::Show { .. } => return Ok(false),
        ConfigCommand::Schema => {
            let schema = settings::schema(&CliConfig::defaults("CHORUS_HOME".into()));
            ui.line(&format!("{schema:#}"));
        }
        ConfigCommand::Migrate { old, output } => migrate(ui, old, output.as_deref())?,
    }
    Ok(true)
}

/// Runs what is about the configuration that was read.
pub fn run(context: &Context, command: &ConfigCommand) {
    match command {
        ConfigCommand::Show { .. } => show(context.ui, &context.config),
        ConfigCommand::Check { .. } => check(context),
        ConfigCommand::Schema | ConfigCommand::Migrate { .. } => {}
    }
}

fn check(context: &Context) {
    let (ui, config) = (context.ui, &context.config);
    let unknown = context.environment.unknown();
    if ui.json() {
        let file = config.file.exists().then(|| config.file.display().to_string());
        ui.json_line(
            &json!({"success": true, "file": file, "set": config.origins, "unknownVariables": unknown}),
        );
        return;
    }
    for variable in &unknown {
        ui.warning(&format!("{variable} is no setting; `chorus config show` lists them all"));
    }
    let file = config.file.display();
    let read = if config.file.exists() { format!("{file}") } else { format!("no file at {file}") };
    ui.line(&format!("good: {} settings are given, the rest are defaults ({read})", config.origins.len()));
}

fn show(ui: Ui, config: &CliConfig) {
    if ui.json() {
        return ui.json_line(&shown_as_json(config));
    }
    for line in table(&rows(config)) {
        ui.line(&line);
    }
}

fn rows(config: &CliConfig) -> Vec<Vec<String>> {
    let head = ["SETTING", "VALUE", "FROM"].map(str::to_owned).to_vec();
    let settings = settings::all().map(|setting| {
        let value = setting.shown(config).map_or_else(|| "-".to_owned(), |value| value.to_string());
        vec![setting.key.to_owned(), value, origin(config, setting.key)]
    });
    let models = config.models.iter().map(|(name, path)| {
        vec![
            format!("models.{name}"),
            Value::from(path.as_str()).to_string(),
            config.file.display().to_string(),
        ]
    });
    [head].into_iter().chain(settings).chain(models).collect()
}

fn origin(config: &CliConfig, key: &str) -> String {
    config.origins.get(key).cloned().unwrap_or_else(|| "default".to_owned())
}

fn shown_as_json(config: &CliConfig) -> Value {
    let settings = settings::all().map(|setting| {
        let about = json!({
            "value": setting.shown(config), "from": origin(config, setting.key),
            "variable": setting.variable, "about": setting.about,
        });
        (setting.key.to_owned(), about)
    });
    let settings: Map<String, Value> = settings.collect();
    json!({"home": config.home, "file": config.file, "settings": settings, "models": config.models})
}

fn migrate(ui: Ui, old: &Path, output: Option<&Path>) -> Result<(), CliError> {
    let place = old.display().to_string();
    let text =
        std::fs::read_to_string(old).map_err(|source| CliError::Input { place: place.clone(), source })?;
    let migrated = migrate::migrate(&text, &place)?;
    match output {
        None => ui.line(migrated.toml.trim_end()),
        Some(path) => {
            // One that is there may be somebody's work.
            let mut options = std::fs::OpenOptions::new();
            let written = options.write(true).create_new(true).open(path);
            written
                .and_then(|mut file| file.write_all(migrated.toml.as_bytes()))
                .map_err(|source| CliError::Output { path: path.to_owned(), source })?;
            ui.line(&format!(
                "{}: check it with `chorus config check --config {}`",
                path.display(),
                path.display()
            ));
        }
    }
    if !migrated.unknown.is_empty() {
        ui.warning(&format!(
            "kept as comments, for nothing is known about them: {}",
            migrated.unknown.join(", ")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Sources, load};

    fn loaded(pairs: &[(&str, &str)]) -> CliConfig {
        let all = [("CHORUS_HOME", "/nowhere")].into_iter().chain(pairs.iter().copied());
        let environment = Environment::new(all.map(|(name, value)| (name.into(), value.into())));
        load(&Sources { environment, ..Sources::default() }).unwrap()
    }

    #[test]
    fn every_setting_is_shown_with_its_origin_and_no_secret() {
        let config = loaded(&[
            ("CHORUS_NATS_TOKEN", "hush"),
            ("CHORUS_NATS_URL", "nats://me:hush@broker:4222,tls://other"),
            ("CHORUS_WORKER_POOL_MIN_WORKERS", "2"),
        ]);
        let text = table(&rows(&config)).join("\n");
        assert!(!text.contains("hush"), "{text}");
        assert!(text.contains("nats://***@broker:4222,tls://other"), "{text}");
        let json = shown_as_json(&config);
        assert_eq!(json["settings"]["workerPool.minWorkers"]["value"], 2);
        assert_eq!(json["settings"]["workerPool.minWorkers"]["from"], "CHORUS_WORKER_POOL_MIN_WORKERS");
        assert_eq!(json["settings"]["circuitBreaker.failureThreshold"]["from"], "default");
        assert_eq!(json["settings"].as_object().unwrap().len(), settings::all().count());
    }

    #[test]
    fn the_schema_describes_every_setting_with_its_default_and_range() {
        let schema = settings::schema(&loaded(&[]));
        for setting in settings::all() {
            let at = setting.key.split('.').fold(&schema, |at, part| &at["properties"][part]);
            assert!(at["description"].is_string(), "{}", setting.key);
        }
        let threshold = &schema["properties"]["circuitBreaker"]["properties"]["failureThreshold"];
        assert_eq!((&threshold["default"], &threshold["maximum"]), (&json!(0.5), &json!(1.0)));
        assert_eq!(schema["properties"]["circuitBreaker"]["additionalProperties"], false);
    }
}
