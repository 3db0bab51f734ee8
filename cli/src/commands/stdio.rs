//! `chorus stdio`: a parent process on stdin and stdout, a fleet of its own or a remote one behind it.
//!
//! The gateway answers from the first moment; the fleet is started, or connected to, beside it.

use std::sync::Arc;
use std::time::Duration;

use chorus_bus::{Bus, BusConfig};
use chorus_gateway::stdio::{self, End};
use chorus_gateway::{Access, Fleet, FleetState, Root};
use chorus_protocol::version::{self, SUPPORTED};
use chorus_protocol::{ErrorCode, ModelDefinition, Reason, ServiceError};
use chorus_runtime::clock::SystemClock;
use chorus_runtime::shutdown::Cause;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::embedded::Embedded;
use super::speak;
use crate::app::Context;
use crate::args::StdioArgs;
use crate::error::CliError;
use crate::fleet::models::KnownModels;
use crate::fleet::parts;
use crate::locate;

/// How long what is under way may go on after the parent asked for the end.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// Runs the command.
pub async fn run(context: Context, args: StdioArgs) -> Result<(), CliError> {
    let config = config(&context, &args)?;
    let input = chorus_runtime::stdio::stdin().map_err(CliError::io("cannot read stdin"))?;
    let (output, written) = chorus_runtime::stdio::stdout().map_err(CliError::io("cannot write stdout"))?;
    let (publish, state) = watch::channel(FleetState::Starting);
    let access = Access::new(state, SystemClock::shared(), resolver(&context)?);
    let stop = context.shutdown.token();
    let serving = stdio::serve(config, access, (input, output), stop);
    let mut embedded = Embedded::new().with_workers(args.workers as usize);
    let sessions_end = CancellationToken::new();
    let _sessions_end_with_us = sessions_end.clone().drop_guard();
    let behind = Behind { context: &context, publish, sessions_end };
    let fleet = async {
        let error = match remote(&context) {
            Some(bus) => behind.remote(bus).await,
            None => behind.embedded(&mut embedded, &args.models).await,
        };
        behind.publish.send_replace(FleetState::Failed(error));
        std::future::pending::<()>().await
    };
    let end = tokio::select! {
        end = Box::pin(serving) => end,
        () = Box::pin(fleet) => End::Stopped,
    };
    tracing::info!(?end, "the conversation is over");
    let state = behind.publish.borrow().clone();
    if let FleetState::Ready(fleet) = state {
        fleet.sessions.stop().await;
        fleet.bus.close().await;
    }
    embedded.stop(&context).await;
    if !matches!(end, End::ParentGone) {
        // What cannot be written now never will be.
        let _in_time = tokio::time::timeout(Duration::from_secs(1), written.finished()).await;
    }
    outcome(&context, end)
}

fn config(context: &Context, args: &StdioArgs) -> Result<stdio::Config, CliError> {
    let configured = context.config.tts.features.protocol.as_ref();
    let range = args.protocol.as_ref().or(configured).map_or("*", String::as_str);
    let offered =
        SUPPORTED.into_iter().filter(|one| version::negotiate(range, std::slice::from_ref(one)).is_ok());
    let supported: Vec<_> = offered.collect();
    if supported.is_empty() {
        let error = version::negotiate(range, &SUPPORTED).err();
        let why = error.map_or_else(String::new, |error| error.to_string());
        return Err(CliError::Usage(format!("--protocol {range:?} offers no version: {why}")));
    }
    let root = Root::new(&args.output_root);
    let root = root.map_err(|source| CliError::Output { path: args.output_root.clone(), source })?;
    Ok(stdio::Config {
        supported,
        root,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        finish_within: FINISH_WITHIN,
    })
}

fn remote(context: &Context) -> Option<BusConfig> {
    let url = context.config.nats.url.clone()?;
    Some(locate::bus_config(&context.config, "chorus-stdio", url))
}

/// What a name means on this machine.
fn resolver(context: &Context) -> Result<chorus_gateway::fleet::Resolver, CliError> {
    let known: KnownModels = parts::known_models(&context.config, &context.environment)?;
    let kind = context.config.engine.kind;
    Ok(Arc::new(move |name: &str| -> Result<ModelDefinition, ServiceError> {
        known.resolve(name, kind).map_err(|error| service_error(&error))
    }))
}

/// A failure of ours as the parent sees it.
fn service_error(error: &CliError) -> ServiceError {
    match error {
        CliError::Service(error) => error.clone(),
        CliError::Usage(message) => ServiceError::new(Reason::Malformed, message.clone()),
        other => {
            let told = ServiceError::new(Reason::EngineStart, other.to_string());
            debug_assert_eq!(told.code, ErrorCode::InitializationFailed);
            told
        }
    }
}

/// The fleet behind the gateway.
struct Behind<'a> {
    context: &'a Context,
    publish: watch::Sender<FleetState>,
    sessions_end: CancellationToken,
}

impl Behind<'_> {
    /// Connects to a fleet that is there; why there is none. A connection that is lost comes back by itself.
    async fn remote(&self, bus: BusConfig) -> ServiceError {
        let connecting = async {
            let bus = Bus::connect(bus).await?;
            self.ready(bus).await
        };
        match connecting.await {
            Ok(()) => std::future::pending().await,
            Err(error) => service_error(&error),
        }
    }

    /// Starts a fleet and waits for its end; why.
    async fn embedded(&self, embedded: &mut Embedded, models: &[String]) -> ServiceError {
        let starting = async {
            let bus = embedded.start(self.context, models).await?;
            self.ready(bus).await
        };
        match starting.await {
            Ok(()) => service_error(&embedded.failed().await),
            Err(error) => service_error(&error),
        }
    }

    async fn ready(&self, bus: Bus) -> Result<(), CliError> {
        let sessions = speak::sessions(&self.context.config, &bus, &self.sessions_end).await?;
        self.publish.send_replace(FleetState::Ready(Fleet { bus, sessions }));
        Ok(())
    }
}

fn outcome(context: &Context, end: End) -> Result<(), CliError> {
    match end {
        End::Shutdown | End::EndOfInput | End::ParentGone => Ok(()),
        End::Broken(why) => Err(CliError::Fleet { part: "parent", why }),
        End::NoFleet(error) => Err(error.into()),
        End::Stopped => match context.shutdown.cause() {
            Some(Cause::Signal(signal)) => Err(CliError::Interrupted(signal)),
            _ => Err(CliError::Fleet { part: "gateway", why: "it was stopped".into() }),
        },
    }
}
