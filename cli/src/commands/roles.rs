//! `chorus manager` and `chorus worker`: one role in the foreground, until a signal.

use chorus_manager::{Manager, ManagerConfig};
use chorus_protocol::{Incarnation, ManagerId, WorkerId, names};
use chorus_worker::WorkerService;
use tokio_util::sync::CancellationToken;

use crate::app::Context;
use crate::args::{ManagerArgs, WorkerArgs};
use crate::config::CliConfig;
use crate::error::CliError;
use crate::fleet::parts::{self, Need};
use crate::locate::{self, unless_stopped};
use crate::switches;

/// Where a role looks for its broker when nobody says otherwise: it may well be started before it.
const DEFAULT_BROKER: &str = "nats://127.0.0.1:4222";

fn broker(config: &CliConfig, name: &str) -> chorus_bus::BusConfig {
    let url = config.nats.url.clone().unwrap_or_else(|| DEFAULT_BROKER.to_owned());
    locate::bus_config(config, name, url)
}

/// Runs a manager.
pub async fn manager(context: Context, args: ManagerArgs) -> Result<(), CliError> {
    let id = args.id.map(ManagerId::new).transpose().map_err(|error| CliError::Usage(error.to_string()))?;
    let bus = broker(&context.config, "chorus-manager");
    let switches = switches::told(&context)?;
    let mut config = ManagerConfig { id, ..parts::manager_config(&context.config, bus) };
    switches::in_manager(&switches, &mut config);
    let limit = config.drain_timeout * 2;
    // Nothing but `stop` ends it in order; the token is for a start that waits for its broker.
    let root = CancellationToken::new();
    let manager = Manager::new(config, switches::clock(&switches));
    let starting = async { Ok(manager.start(&root).await?) };
    let handle = unless_stopped(&context.shutdown, starting).await?;
    let working = async {
        handle.ended().await;
        Err(CliError::Fleet { part: "manager", why: "a part of it has failed; its log says which".into() })
    };
    let end = unless_stopped(&context.shutdown, working).await;
    let _in_time = context.shutdown.drain("manager", limit, handle.stop()).await;
    end
}

/// Runs a worker.
pub async fn worker(context: Context, args: WorkerArgs) -> Result<(), CliError> {
    let config = &context.config;
    let id = args.id.unwrap_or_else(|| names::default_worker_id(&parts::host(), Incarnation::new()));
    let id = WorkerId::new(id).map_err(|error| CliError::Usage(error.to_string()))?;
    let need = Need { nats_server: false, engine: true, voice: false };
    let providing = parts::provide(config, &context.environment, context.ui, need);
    let engine = unless_stopped(&context.shutdown, providing).await?.engine;
    let engine = engine.ok_or(CliError::Fleet { part: "engine", why: "no engine was provided".into() })?;
    let known = parts::known_models(config, &context.environment)?;
    // Without a model it serves what the catalogue has for its engine.
    let definitions = args.models.iter().map(|spec| known.resolve(spec, config.engine.kind));
    let definitions = definitions.collect::<Result<Vec<_>, _>>()?;
    let mut settings = parts::worker_config(config, &context.environment, &engine, id, definitions);
    settings.bus = broker(config, "chorus-worker");
    let switches = switches::told(&context)?;
    switches::in_worker(&switches, &mut settings);
    let (service, _handle) = WorkerService::new(settings, switches::clock(&switches))?;
    let worked = tokio::select! {
        worked = service.run(context.shutdown.token()) => worked,
        () = context.shutdown.hard_token().cancelled_owned() => Ok(()),
    };
    worked?;
    unless_stopped(&context.shutdown, async { Ok(()) }).await
}
