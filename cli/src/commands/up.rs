//! `chorus up`: a fleet in the foreground, a line per event, until a signal.

mod events;
mod pool;
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
use crate::ui::Ui;
use pool::Pool;

/// The port that everybody knows.
const USUAL_PORT: u16 = 4222;
/// What a worker process logs when nothing else is configured: the events say the rest.
const WORKER_LOG: &str = "error,async_nats=off";

/// Runs the command.
pub async fn run(context: Context, args: UpArgs) -> Result<(), CliError> {
    let mut run_file = RunFile::take(&context.config.home).await?;
    let (config, definitions) = unless_stopped(&context.shutdown, prepare(&context, &args)).await?;
    let own_broker = matches!(config.broker, BrokerSource::Own(..));
    let (mut fleet, mut notices) = Fleet::new(config);
    let working = async {
        let starting = async {
            let config = fleet.start_broker().await?;
            let bus = Bus::connect(BusConfig { name: "chorus-up".into(), ..config.clone() }).await?;
            if own_broker {
                models::prepare_catalogue(&bus, &definitions).await?;
            }
            fleet.start_services().await?;
            run_file.announce(&config.url, config.token.clone())?;
            Ok(bus)
        };
        let bus = tokio::select! {
            started = starting => started,
            failed = fatal(context.ui, &mut notices) => Err(failed),
        }?;
        let pool = Pool::new(
            context.config.tts.worker_pool.min_workers,
            context.config.tts.features.single_worker_fallback,
        );
        tokio::select! {
            failed = fleet.failed() => Err(failed),
            failed = pool::keep(context.ui, &fleet, pool, &mut notices) => Err(failed),
            watched = watch::watch(context.ui, &bus) => watched,
            heard = events::tell(context.ui, &bus, args.verbose) => heard,
        }
    };
    let end = unless_stopped(&context.shutdown, Box::pin(working)).await;
    if matches!(end, Err(CliError::Interrupted(_))) {
        context.ui.line("stopping");
    }
    fleet.stop(&context.shutdown).await;
    drop(run_file);
    end
}

/// Tells notices until one says that the fleet cannot even start.
async fn fatal(ui: Ui, notices: &mut mpsc::Receiver<Notice>) -> CliError {
    while let Some(notice) = notices.recv().await {
        if let Some((part, why)) = pool::tell(ui, notice) {
            return CliError::Fleet { part, why };
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
    let pool = &config.tts.worker_pool;
    let workers = (1..=pool.min_workers).map(|number| {
        let share = if pool.model_specialization {
            share(&definitions, number, pool.min_workers)
        } else {
            definitions.clone()
        };
        worker(context, &program, &engine, &share, number)
    });
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
    let folder = context.config.tts.cache_dir.as_ref().unwrap_or(&context.config.home).join("nats");
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

/// The models of the worker of this number, of so many: each model is on one worker at least, each worker has one at least.
fn share(definitions: &[ModelDefinition], number: u32, workers: u32) -> Vec<ModelDefinition> {
    let (worker, workers) = (number as usize - 1, workers as usize);
    let all = definitions.len();
    let its = |model: usize| if all > workers { model % workers == worker } else { model == worker % all };
    definitions.iter().enumerate().filter(|(model, _)| its(*model)).map(|(_, model)| model.clone()).collect()
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
    fn specialized_workers_have_all_models_between_them() {
        let known = KnownModels::default();
        for models in 1..6 {
            let names = (0..models).map(|n| format!("m{n}"));
            let all: Vec<_> = names.map(|name| known.resolve(&name, EngineKind::Null).unwrap()).collect();
            for workers in 1..6 {
                let shares: Vec<_> = (1..=workers).map(|number| share(&all, number, workers)).collect();
                assert!(shares.iter().all(|share| !share.is_empty()), "{models} on {workers}");
                assert!(all.iter().all(|model| shares.iter().flatten().any(|other| other == model)));
                let most = shares.iter().map(Vec::len).max().unwrap();
                assert!(most <= (models as usize).div_ceil(workers as usize));
            }
        }
    }

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
