//! `chorus up`: a fleet in the foreground, a line per event, until a signal.

mod events;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;

use chorus_bus::{Bus, BusConfig};
use chorus_manager::ManagerConfig;
use chorus_protocol::{ModelDefinition, ModelSource, names};
use tokio::sync::mpsc;

use super::embedded::both;
use crate::app::Context;
use crate::args::UpArgs;
use crate::error::CliError;
use crate::fleet::broker::{BrokerConfig, Port};
use crate::fleet::parts::{self, EngineProgram, Need};
use crate::fleet::worker::WorkerProcessConfig;
use crate::fleet::{BrokerSource, Fleet, FleetConfig, Notice, Workers, models};
use crate::locate::{self, unless_stopped};
use crate::runfile::RunFile;
use crate::ui::{Tone, Ui};

/// The port that everybody knows.
const USUAL_PORT: u16 = 4222;
/// What a worker process logs when nothing else is configured: the events say the rest.
const WORKER_LOG: &str = "error,async_nats=off";

/// Runs the command.
pub async fn run(context: Context, args: UpArgs) -> Result<(), CliError> {
    let mut run_file = RunFile::take(&context.config.home).await?;
    let (config, definitions) = unless_stopped(&context.shutdown, prepare(&context, &args)).await?;
    let own_broker = matches!(config.broker, BrokerSource::Own(..));
    let (mut fleet, notices) = Fleet::new(config);
    let working = async {
        let config = fleet.start_broker().await?;
        let bus = Bus::connect(BusConfig { name: "chorus-up".into(), ..config.clone() }).await?;
        if own_broker {
            models::prepare_catalogue(&bus, &definitions).await?;
        }
        fleet.start_services().await?;
        run_file.announce(&config.url, config.token.clone())?;
        tokio::select! {
            failed = fleet.failed() => Err(failed),
            watched = watch::watch(context.ui, &bus) => watched,
            heard = events::tell(context.ui, &bus, args.verbose) => heard,
        }
    };
    let unless_broken = async {
        tokio::select! {
            end = working => end,
            failed = fatal(context.ui, notices) => Err(failed),
        }
    };
    let end = unless_stopped(&context.shutdown, Box::pin(unless_broken)).await;
    if matches!(end, Err(CliError::Interrupted(_))) {
        context.ui.line("stopping");
    }
    fleet.stop(&context.shutdown).await;
    drop(run_file);
    end
}

/// Tells notices until one says that the fleet cannot go on.
async fn fatal(ui: Ui, mut notices: mpsc::Receiver<Notice>) -> CliError {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::News(text) => ui.line(&text),
            Notice::Trouble(text) => ui.line(&ui.paint(Tone::Warn, &text)),
            Notice::Fatal { part, why } => return CliError::Fleet { part, why },
        }
    }
    std::future::pending().await
}

async fn prepare(context: &Context, args: &UpArgs) -> Result<(FleetConfig, Vec<ModelDefinition>), CliError> {
    let (config, environment) = (&context.config, &context.environment);
    let external = config.nats.url.clone();
    let need = Need {
        nats_server: external.is_none(),
        engine: true,
        voice: parts::needs_demo_voice(config, &args.models),
    };
    let parts = parts::provide(config, environment, context.ui, need).await?;
    let known = parts::known_models(config, environment)?;
    let definitions = parts::definitions(config, &known, &args.models, parts.voice.as_ref())?;
    let bus = locate::bus_config(config, "chorus-up", external.clone().unwrap_or_default());
    let (engine, broker) = match external {
        Some(_) => {
            let missing = || CliError::Fleet { part: "engine", why: "no engine was provided".into() };
            (parts.engine.ok_or_else(missing)?, BrokerSource::External(bus.clone()))
        }
        None => {
            let (engine, program) = both(parts.engine, parts.nats_server)?;
            (engine, BrokerSource::Own(Box::new(broker(context, program)), bus.clone()))
        }
    };
    let program = std::env::current_exe().map_err(CliError::io("cannot find chorus's own program"))?;
    let workers =
        (1..=config.fleet.workers).map(|number| worker(context, &program, &engine, &definitions, number));
    let fleet = FleetConfig {
        broker,
        manager: ManagerConfig {
            drain_timeout: config.fleet.stop_timeout,
            ..parts::manager_config(config, bus)
        },
        workers: Workers::Processes(workers.collect()),
        stop_timeout: config.fleet.stop_timeout,
    };
    Ok((fleet, definitions))
}

fn broker(context: &Context, program: PathBuf) -> BrokerConfig {
    let folder = context.config.home.join("nats");
    BrokerConfig {
        program,
        store: folder.join("store"),
        work: folder.join("work"),
        port: match context.config.nats.port {
            None => Port::Preferred(USUAL_PORT),
            Some(0) => Port::Any,
            Some(port) => Port::Fixed(port),
        },
        token: context.config.nats.token.clone(),
        environment: context.environment.pairs(),
    }
}

fn worker(
    context: &Context,
    program: &std::path::Path,
    engine: &EngineProgram,
    definitions: &[ModelDefinition],
    number: u32,
) -> WorkerProcessConfig {
    let config = &context.config;
    let mut args: Vec<OsString> = vec!["--engine".into(), config.engine.kind.as_str().into()];
    if let Some(threads) = config.engine.threads {
        args.extend(["--engine-threads".into(), OsString::from(threads.to_string())]);
    }
    if let Some(file) = &context.config_file {
        args.extend(["--config".into(), file.clone().into_os_string()]);
    }
    for model in definitions {
        args.extend(["--model".into(), OsString::from(spec(model))]);
    }
    let mut environment = context.environment.pairs();
    let set = |environment: &mut Vec<(OsString, OsString)>, name: &str, value: OsString| {
        environment.retain(|(known, _)| known != name);
        environment.push((name.into(), value));
    };
    set(&mut environment, "CHORUS_ENGINE_PYTHON", engine.python.clone().into_os_string());
    set(&mut environment, "CHORUS_ENGINE_PATH", engine.path.clone().into_os_string());
    if config.log_filter.is_none() {
        set(&mut environment, "CHORUS_LOG", WORKER_LOG.into());
    }
    WorkerProcessConfig {
        id: worker_id(&parts::host(), number),
        program: program.to_path_buf(),
        args,
        environment,
        grace: config.fleet.stop_timeout,
    }
}

/// Stable over restarts, so that figures and breakers stay with it.
fn worker_id(host: &str, number: u32) -> String {
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
    format!("{host}-{number}")
}

/// How a worker's command line names a model.
fn spec(model: &ModelDefinition) -> String {
    match &model.source {
        ModelSource::Path { path, .. } => format!("{}={path}", model.name),
        ModelSource::Hub { hub } => format!("{}={hub}", model.name),
        ModelSource::Builtin { .. } => model.name.to_string(),
    }
}

/// The subject of outcomes, told apart from other events by it.
fn outcome_subject() -> String {
    names::event_subject("outcome")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineKind;
    use crate::fleet::models::KnownModels;

    #[test]
    fn a_workers_command_line_means_the_same_model() {
        let known = KnownModels::default();
        for spec_given in ["bob=/", "bob=tts_models/en/ljspeech/vits", "tts_models/en/ljspeech/vits"] {
            let model = known.resolve(spec_given, EngineKind::Coqui).unwrap();
            assert_eq!(known.resolve(&spec(&model), EngineKind::Coqui).unwrap(), model, "{spec_given}");
        }
        let model = known.resolve("null", EngineKind::Null).unwrap();
        assert_eq!(known.resolve(&spec(&model), EngineKind::Null).unwrap(), model);
        assert_eq!(worker_id("my.host", 2), "myhost-2");
    }
}
