//! Where the fleet is: named by `--nats` (or the configuration), else the one that the run file tells of, else nowhere.

use std::time::Duration;

use chorus_bus::{Bus, BusConfig};
use chorus_runtime::shutdown::{Cause, Shutdown};

use crate::app::Context;
use crate::config::CliConfig;
use crate::error::CliError;
use crate::runfile;

/// How long a fleet that another command is just starting is waited for.
const STARTING_PATIENCE: Duration = Duration::from_secs(60);

/// How the broker at `url` is reached, under this name.
pub fn bus_config(config: &CliConfig, name: &str, url: impl Into<String>) -> BusConfig {
    let nats = &config.nats;
    BusConfig {
        url: url.into(),
        name: name.to_owned(),
        token: nats.token.clone(),
        user: nats.user.clone(),
        password: nats.password.clone(),
        creds_file: nats.creds_file.clone(),
        ..BusConfig::default()
    }
}

/// The fleet that there is, if any.
pub async fn locate(config: &CliConfig, name: &str) -> Result<Option<BusConfig>, CliError> {
    if let Some(url) = &config.nats.url {
        return Ok(Some(bus_config(config, name, url)));
    }
    let Some(running) = runfile::wait(&config.home, STARTING_PATIENCE).await? else { return Ok(None) };
    let Some(url) = running.url else { return Ok(None) };
    let found = bus_config(config, name, url);
    Ok(Some(BusConfig { token: running.token.or(found.token.clone()), ..found }))
}

/// A connection to the fleet that there is.
///
/// # Errors
/// [`CliError::NoFleet`] when there is none.
pub async fn connect(context: &Context) -> Result<Bus, CliError> {
    let found = locate(&context.config, "chorus").await?;
    Ok(Bus::connect(found.ok_or(CliError::NoFleet)?).await?)
}

/// `work`, unless a signal comes first.
pub async fn unless_stopped<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        biased;
        () = shutdown.requested() => Err(stopped(shutdown)),
        result = work => result,
    }
}

fn stopped(shutdown: &Shutdown) -> CliError {
    match shutdown.cause() {
        Some(Cause::Signal(signal)) => CliError::Interrupted(signal),
        Some(Cause::Requested(reason)) => CliError::Fleet { part: "fleet", why: reason.to_owned() },
        None => CliError::Fleet { part: "fleet", why: "it was stopped".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Sources, load};

    #[tokio::test]
    async fn a_named_broker_comes_first_then_the_run_file() {
        let home = tempfile::tempdir().unwrap();
        let pairs = [("CHORUS_HOME", home.path().to_str().unwrap()), ("CHORUS_NATS_TOKEN", "mine")];
        let environment = Environment::new(pairs.map(|(name, value)| (name.into(), value.into())));
        let mut config = load(&Sources { environment, ..Sources::default() }).unwrap();
        assert!(locate(&config, "x").await.unwrap().is_none());
        let mut held = runfile::RunFile::take(home.path()).await.unwrap();
        held.announce("nats://127.0.0.1:9", Some("theirs".into())).unwrap();
        let found = locate(&config, "x").await.unwrap().unwrap();
        assert_eq!((found.url.as_str(), found.token.as_deref()), ("nats://127.0.0.1:9", Some("theirs")));
        config.nats.url = Some("nats://other:1".into());
        let found = locate(&config, "x").await.unwrap().unwrap();
        assert_eq!((found.url.as_str(), found.token.as_deref()), ("nats://other:1", Some("mine")));
    }
}
