//! `chorus bench chaos`: a fleet of this very program is hurt on purpose, and every sample that its listeners hear is checked.
//!
//! Each scenario has a fleet of its own, with a broker of its own, and leaves nothing behind. The command fails when a
//! check of any scenario does not hold.

use chorus_chaos::switches::Mechanism;
use chorus_chaos::{ChaosError, Programs, Report, Scenario, report, scenarios};

use serde_json::json;

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
    if args.switches {
        return switches(&context).await;
    }
    let chosen = match (args.scenarios.as_slice(), args.without) {
        ([], None) => scenarios::long(),
        ([], Some(mechanism)) => vec![without(mechanism)?],
        (names, off) => {
            let chosen: Result<Vec<_>, _> = names.iter().map(|name| named(name)).collect();
            let mut chosen = chosen?;
            chosen.iter_mut().for_each(|scenario| scenario.fleet.off = off);
            chosen
        }
    };
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

fn named(name: &str) -> Result<Scenario, CliError> {
    scenarios::named(name).map_err(|unknown| CliError::Usage(unknown.to_string()))
}

/// The scenario that must fail without it, without it.
fn without(mechanism: Mechanism) -> Result<Scenario, CliError> {
    let mut scenario = named(mechanism.scenario())?;
    scenario.fleet.off = Some(mechanism);
    Ok(scenario)
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

/// How often a scenario is run that passes without a mechanism: who is hit by what is chance.
const TRIES: u32 = 5;

/// Switches mechanisms off, one at a time: each must make its scenario fail.
async fn switches(context: &Context) -> Result<(), CliError> {
    let programs = unless_stopped(&context.shutdown, programs(context)).await?;
    let mut rows =
        vec![["without", "scenario", "as it must be", "what went wrong"].map(str::to_owned).to_vec()];
    let mut found = Vec::new();
    for mechanism in Mechanism::ALL {
        let scenario = without(mechanism)?;
        let spinner = context.ui.spinner(&format!("{} without {} …", scenario.name, mechanism.name()));
        let (mut faults, mut tries) = (Vec::new(), 0);
        while faults.is_empty() && tries < TRIES {
            let run = chorus_chaos::run(&programs, &scenario);
            let report = unless_stopped(&context.shutdown, async { Ok(Box::pin(run).await) }).await?;
            // A fleet that cannot even be brought to the end of the scenario has failed it too.
            faults = report.map_or_else(|error| vec![error.to_string()], |report| report.faults);
            tries += 1;
        }
        drop(spinner);
        let red = match (faults.is_empty(), tries) {
            (true, _) => format!("NO: it passed {tries} times"),
            (false, 1) => "yes: it failed".to_owned(),
            (false, _) => format!("yes: it failed at try {tries}"),
        };
        rows.push(vec![mechanism.name().into(), scenario.name.into(), red, faults.join("; ")]);
        found.push(json!({
            "off": mechanism.name(),
            "scenario": scenario.name,
            "failed": !faults.is_empty(),
            "tries": tries,
            "faults": faults,
        }));
    }
    let all = found.iter().all(|one| one["failed"] == true);
    if context.ui.json() {
        context.ui.json_line(&json!({"passed": all, "switches": found}));
    } else {
        for line in table(&rows) {
            context.ui.line(&line);
        }
    }
    if all { Ok(()) } else { Err(CliError::Reported) }
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
