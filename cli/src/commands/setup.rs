//! `chorus setup`: installs into CHORUS_HOME, with progress, and says where things are.

use chorus_provision::{Profile, Want};

use crate::app::Context;
use crate::args::{ProfileArg, SetupArgs};
use crate::error::CliError;
use crate::fleet::parts;
use crate::locate::unless_stopped;
use crate::ui::table;

/// Runs the command.
pub async fn run(context: Context, args: SetupArgs) -> Result<(), CliError> {
    let profile = match args.profile {
        ProfileArg::Light => Profile::Light,
        ProfileArg::Check => Profile::Check,
        ProfileArg::Coqui => Profile::Coqui,
        ProfileArg::Test => Profile::Test,
    };
    let provisioner = parts::provisioner(&context.config, &context.environment, context.ui)?;
    let providing = async { Ok(provisioner.provide(Want::of_profile(profile)).await?) };
    let provided = unless_stopped(&context.shutdown, providing).await?;
    let paths = provided.to_json();
    if context.ui.json() {
        context.ui.json_line(&paths);
        return Ok(());
    }
    let there = paths.as_object().into_iter().flatten().filter_map(|(name, value)| {
        let shown = value.as_str().or_else(|| value["path"].as_str())?;
        Some(vec![name.clone(), shown.to_owned()])
    });
    for line in table(&there.collect::<Vec<_>>()) {
        context.ui.line(&line);
    }
    Ok(())
}
