//! `chorus bench chaos`: a fleet of this very program is hurt on purpose, and every sample that its listeners hear is checked.
//!
//! Each scenario has a fleet of its own, with a broker of its own, and leaves nothing behind. The command fails when a
//! check of any scenario does not hold.

use chorus_chaos::{ChaosError, Programs, Report, Scenario, report, scenarios};

use crate::app::Context;
use crate::args::ChaosArgs;
use crate::commands::embedded::both;
use crate::error::CliError;
use crate::fleet::parts::{self, Need};
use crate::locate::unless_stopped;
use crate::ui::table;

/// Runs the command.
pub async fn run(context: Context, args: ChaosArgs) -> Result<(), CliError> {
    if args.list {
        list(&context);
        return Ok(());
    }
    let named = args.scenarios.iter().map(|name| scenarios::named(name)).collect::<Result<Vec<_>, _>>();
    let named = named.map_err(|unknown| CliError::Usage(unknown.to_string()))?;
    let chosen = if named.is_empty() { scenarios::long() } else { named };
    let programs = unless_stopped(&context.shutdown, programs(&context)).await?;
    let mut reports = Vec::new();
    for scenario in &chosen {
        reports.push(unless_stopped(&context.shutdown, measure(&context, &programs, scenario)).await?);
    }
    if context.ui.json() {
        context.ui.json_line(&report::to_json(&reports));
    }
    if reports.iter().all(Report::passed) { Ok(()) } else { Err(CliError::Reported) }
}

async fn measure(context: &Context, programs: &Programs, scenario: &Scenario) -> Result<Report, CliError> {
    let spinner = context.ui.spinner(&format!("{}: {} …", scenario.name, scenario.about));
    let report = Box::pin(chorus_chaos::run(programs, scenario)).await;
    drop(spinner);
    let report = report.map_err(|error| failed(scenario, &error))?;
    if !context.ui.json() {
        for line in report.lines() {
            context.ui.line(&line);
        }
    }
    Ok(report)
}

fn failed(scenario: &Scenario, error: &ChaosError) -> CliError {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    CliError::Fleet { part: "chaos", why: format!("{}: {error}{source}", scenario.name) }
}

fn list(context: &Context) {
    let sets = [("short", scenarios::short()), ("long", scenarios::long())];
    let rows = sets.iter().flat_map(|(set, scenarios)| {
        scenarios.iter().map(|one| vec![one.name.to_owned(), (*set).to_owned(), one.about.to_owned()])
    });
    for line in table(&rows.collect::<Vec<_>>()) {
        context.ui.line(&line);
    }
}

/// What the fleets are made of: installed where it is missing, as for any fleet of ours.
async fn programs(context: &Context) -> Result<Programs, CliError> {
    let (config, environment) = (&context.config, &context.environment);
    let need = Need { nats_server: true, engine: true, voice: false };
    let parts = parts::provide(config, environment, context.ui, need).await?;
    let (engine, nats_server) = both(parts.engine, parts.nats_server)?;
    let chorus = std::env::current_exe().map_err(CliError::io("cannot find our own program"))?;
    Ok(Programs {
        chorus,
        nats_server,
        python: engine.python,
        engine: engine.path,
        environment: environment.pairs(),
        temporary: environment.temporary(),
    })
}
