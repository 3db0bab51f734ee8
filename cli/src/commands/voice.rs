//! `chorus voice`: voices in CHORUS_HOME.

use std::path::Path;

use serde_json::json;

use crate::app::Context;
use crate::args::VoiceCommand;
use crate::error::CliError;
use crate::fleet::parts;
use crate::locate::unless_stopped;
use crate::ui::table;

/// Runs the command.
pub async fn run(context: Context, command: VoiceCommand) -> Result<(), CliError> {
    match command {
        VoiceCommand::Import { file, name, .. } => import(&context, &file, name).await,
        VoiceCommand::List { .. } => list(&context),
    }
}

async fn import(context: &Context, file: &Path, name: Option<String>) -> Result<(), CliError> {
    if !file.is_file() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(CliError::Input { place: file.display().to_string(), source });
    }
    let stem = || file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.unwrap_or_else(stem);
    let provisioner = parts::provisioner(&context.config, &context.environment, context.ui)?;
    let importing = async { Ok(provisioner.import_voice(file, &name).await?) };
    let voice = unless_stopped(&context.shutdown, importing).await?;
    if context.ui.json() {
        context.ui.json_line(&json!({"name": voice.name, "path": voice.path}));
    } else {
        context.ui.line(&format!("{}  {}", voice.name, voice.path.display()));
        context.ui.note(&format!("speak with it: chorus say --model {} \"hello\"", voice.name));
    }
    Ok(())
}

fn list(context: &Context) -> Result<(), CliError> {
    let voices = parts::known_models(&context.config, &context.environment)?.installed;
    if context.ui.json() {
        let listed: Vec<_> =
            voices.iter().map(|voice| json!({"name": voice.name, "path": voice.path})).collect();
        context.ui.json_line(&json!({"voices": listed}));
        return Ok(());
    }
    let rows: Vec<_> =
        voices.iter().map(|voice| vec![voice.name.clone(), voice.path.display().to_string()]).collect();
    for line in table(&rows) {
        context.ui.line(&line);
    }
    if rows.is_empty() {
        context.ui.note("no voice is installed; `chorus setup` installs the demo voice");
    }
    Ok(())
}
