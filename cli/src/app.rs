//! From a command line to an exit code: parse, configure, set up logs, run the command, report.

use std::ffi::OsString;
use std::process::ExitCode;

use chorus_runtime::shutdown::Shutdown;
use chorus_runtime::telemetry::{self, TelemetryConfig};
use clap::Parser;

use crate::args::{Cli, Command};
use crate::commands;
use crate::config::{self, CliConfig, Environment, Sources};
use crate::error::{CliError, ExitStatus};
use crate::ui::Ui;

/// What every command is given.
#[derive(Clone)]
pub struct Context {
    /// The configuration, all layers put together.
    pub config: CliConfig,
    /// The environment as it was at the start.
    pub environment: Environment,
    /// The configuration file that was named, for children.
    pub config_file: Option<std::path::PathBuf>,
    /// The streams.
    pub ui: Ui,
    /// The end of the process.
    pub shutdown: Shutdown,
}

/// Runs the program.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let environment = Environment::new(environment);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(refused) => return refuse(&refused),
    };
    let ui = Ui::new(&environment, cli.command.json());
    match execute(cli, environment, ui) {
        Ok(()) => ExitStatus::Done.into(),
        Err(error) => {
            ui.failure(&error);
            error.status().into()
        }
    }
}

/// The command line of a shim, as if it were a command of `chorus`.
pub fn as_command(command: &str, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_else(|| "chorus".into());
    [program, command.into()].into_iter().chain(args).collect()
}

/// What clap has to say: help and version are answers, the rest are failures with a hint.
fn refuse(refused: &clap::Error) -> ExitCode {
    // A closed stream means that nobody reads.
    let _unread = refused.print();
    if !refused.use_stderr() {
        return ExitStatus::Done.into();
    }
    let hint = "hint: `chorus help` lists the commands, `chorus COMMAND --help` their options";
    crate::ui::write_line(&mut std::io::stderr().lock(), hint);
    ExitStatus::Usage.into()
}

fn execute(cli: Cli, environment: Environment, ui: Ui) -> Result<(), CliError> {
    if let Command::Config(command) = &cli.command
        && commands::config::before_loading(ui, command)?
    {
        return Ok(());
    }
    let sources =
        Sources { environment: environment.clone(), file: cli.config.clone(), flags: cli.command.values() };
    let config = config::load(&sources)?;
    let filter = config.log_filter.clone().unwrap_or_else(|| cli.command.default_log_filter().to_owned());
    let _telemetry = telemetry::init(&TelemetryConfig {
        filter,
        format: config.log_format,
        ..TelemetryConfig::default()
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::io("cannot start the runtime"))?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let _signals = shutdown.listen().map_err(CliError::io("cannot listen for signals"))?;
        let context = Context { config, environment, config_file: cli.config, ui, shutdown };
        Box::pin(commands::run(context, cli.command)).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_a_command_with_the_same_arguments() {
        let args = as_command("worker", ["/bin/chorus-worker".into(), "--id".into(), "a".into()]);
        assert_eq!(args, ["/bin/chorus-worker", "worker", "--id", "a"]);
    }
}
