//! From a configuration to a connection that is good for the job: reachable, let in, new enough, with JetStream.
//!
//! A failure that time may heal (nothing listens yet, a cluster still elects its leader) is tried again; one that it
//! cannot heal (credentials, version, JetStream off) is told at once, with what to do about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{ConnectErrorKind, ConnectOptions};
use serde::de::IgnoredAny;
use tokio_util::sync::CancellationToken;

use crate::api::ApiError;
use crate::bus::{Bus, Inner};
use crate::config::BusConfig;
use crate::error::{BusError, BusErrorKind};
use crate::link::Link;

/// The oldest server that has what we use: message TTL and priority groups came with it.
const OLDEST_SERVER: (u64, u64) = (2, 11);
/// A half-open connection is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Messages that wait for the reader of one subscription; further ones are lost, and that is logged.
const SUBSCRIPTION_CAPACITY: usize = 65_536;
/// No longer than this between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

impl Bus {
    /// Connects, and checks that the server is new enough and has JetStream.
    ///
    /// # Errors
    /// `Unreachable` after the configured time; `Config`, `Unauthorized`, `OldServer` and `NoJetStream` at once.
    pub async fn connect(config: BusConfig) -> Result<Bus, BusError> {
        let give_up = Instant::now() + config.connect_timeout;
        let mut attempt = 0;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let error = match Box::pin(connect_once(&config, left)).await {
                Ok(bus) => return Ok(bus),
                Err(error) => error,
            };
            attempt += 1;
            let delay = backoff(attempt);
            if is_permanent(error.kind) || Instant::now() + delay >= give_up {
                return Err(error);
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Connects, however long the server takes to come up: for services, which may be started in any order.
    ///
    /// # Errors
    /// `Cancelled`, or one of the failures that waiting cannot heal, at once.
    pub async fn connect_when_up(config: BusConfig, cancel: &CancellationToken) -> Result<Bus, BusError> {
        let cancelled =
            || BusError::new(BusErrorKind::Cancelled, "gave up connecting to the broker: shutting down");
        let mut told = String::new();
        loop {
            let connecting = Box::pin(Bus::connect(config.clone()));
            let error = match cancel.run_until_cancelled(connecting).await {
                None => return Err(cancelled()),
                Some(Ok(bus)) => return Ok(bus),
                Some(Err(error)) if is_permanent(error.kind) => return Err(error),
                Some(Err(error)) => error.to_string(),
            };
            if error != told {
                tracing::warn!(%error, "waiting for the broker");
                told = error;
            }
            if cancel.run_until_cancelled(tokio::time::sleep(MAX_BACKOFF)).await.is_none() {
                return Err(cancelled());
            }
        }
    }
}

/// Nothing before the first attempt, 20 ms before the second, doubling.
fn backoff(attempts: usize) -> Duration {
    match u32::try_from(attempts).unwrap_or(u32::MAX) {
        0 | 1 => Duration::from_millis(20),
        more => {
            Duration::from_millis(20).saturating_mul(2u32.saturating_pow(more.min(16) - 1)).min(MAX_BACKOFF)
        }
    }
}

fn is_permanent(kind: BusErrorKind) -> bool {
    use BusErrorKind::{Config, NoJetStream, OldServer, Unauthorized};
    matches!(kind, Config | Unauthorized | OldServer | NoJetStream)
}

async fn connect_once(config: &BusConfig, limit: Duration) -> Result<Bus, BusError> {
    let shown_url = config.shown_url();
    let link = Arc::new(Link::new());
    let options = options(config, &link).await?;
    let urls = parse_urls(config)?;
    let client = match tokio::time::timeout(limit, options.connect(urls)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(explain(&error, &shown_url)),
        Err(_) => return Err(unreachable(&shown_url, "timed out")),
    };
    check_version(&client.server_info().version, &shown_url)?;
    let inner = Inner::new(client, shown_url, config, link);
    check_jetstream(&inner).await?;
    Ok(Bus { inner })
}

fn parse_urls(config: &BusConfig) -> Result<Vec<async_nats::ServerAddr>, BusError> {
    let parse = |url: &str| {
        url.parse().map_err(|error: std::io::Error| {
            let message = format!("the broker URL {} cannot be read", config.shown_url());
            BusError::caused(BusErrorKind::Config, message, error)
        })
    };
    config.url.split(',').map(|url| parse(url.trim())).collect()
}

async fn options(config: &BusConfig, link: &Arc<Link>) -> Result<ConnectOptions, BusError> {
    let link = link.clone();
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .connection_timeout(config.connect_timeout)
        .request_timeout(Some(config.request_timeout))
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| if attempts <= 1 { Duration::ZERO } else { backoff(attempts) })
        .event_callback(move |event| {
            link.handle(event);
            std::future::ready(())
        });
    if let Some(token) = &config.token {
        options = options.token(token.clone());
    }
    match (&config.user, &config.password) {
        (Some(user), Some(password)) => options = options.user_and_password(user.clone(), password.clone()),
        (None, None) => {}
        _ => return Err(BusError::new(BusErrorKind::Config, "the broker's user and password go together")),
    }
    if let Some(file) = &config.creds_file {
        options = options.credentials_file(file).await.map_err(|error| {
            let message = format!("the broker's credentials file {} cannot be used", file.display());
            BusError::caused(BusErrorKind::Config, message, error)
        })?;
    }
    Ok(options)
}

fn unreachable(url: &str, why: &str) -> BusError {
    BusError::new(
        BusErrorKind::Unreachable,
        format!("no NATS server answers at {url} ({why}): is it running, and is the URL right?"),
    )
}

fn explain(error: &async_nats::ConnectError, url: &str) -> BusError {
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => BusError::new(
            BusErrorKind::Unauthorized,
            format!(
                "the NATS server at {url} refuses our credentials: check token, user and password, or credentials file"
            ),
        ),
        ConnectErrorKind::ServerParse => {
            BusError::new(BusErrorKind::Config, format!("the broker URL {url} cannot be used: {error}"))
        }
        _ => unreachable(url, &error.to_string()),
    }
}

/// Servers before 2.11 lack what the queue is built on.
fn check_version(version: &str, url: &str) -> Result<(), BusError> {
    let mut parts = version.trim_start_matches('v').split(['.', '-']).map(str::parse::<u64>);
    let new_enough = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST_SERVER,
        _ => false,
    };
    let (major, minor) = OLDEST_SERVER;
    if new_enough {
        return Ok(());
    }
    Err(BusError::new(
        BusErrorKind::OldServer,
        format!(
            "the NATS server at {url} is version {version:?}; chorus needs {major}.{minor} or newer: upgrade nats-server"
        ),
    ))
}

/// Asks rather than trusts the server's greeting, which knows nothing of accounts and domains.
async fn check_jetstream(inner: &Inner) -> Result<(), BusError> {
    let url = &inner.shown_url;
    let why = match inner.api_bare::<IgnoredAny>("INFO").await {
        Ok(_) => return Ok(()),
        Err(ApiError::NoResponders) if inner.client.server_info().jetstream => {
            let message = format!("JetStream of the NATS server at {url} is not up yet");
            return Err(BusError::new(BusErrorKind::Timeout, message));
        }
        Err(ApiError::NoResponders) => "JetStream is off".to_owned(),
        Err(ApiError::Fault(fault)) if fault.is_no_jetstream() => fault.description,
        Err(error) => return Err(error.into_bus(&format!("JetStream of the NATS server at {url}"))),
    };
    Err(BusError::new(
        BusErrorKind::NoJetStream,
        format!(
            "the NATS server at {url} runs without JetStream ({why}): start it with --jetstream, or put a `jetstream` block into its configuration"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for good in ["2.11.0", "2.15.1", "v2.12.3", "2.11.0-RC.1", "3.0.0"] {
            assert!(check_version(good, "nats://x").is_ok(), "{good}");
        }
        for bad in ["2.9.10", "2.10.29", "1.99.0", "", "new"] {
            let error = check_version(bad, "nats://x").unwrap_err();
            assert_eq!(error.kind, BusErrorKind::OldServer, "{bad}");
            assert!(error.to_string().contains("2.11"), "{error}");
        }
    }

    #[test]
    fn backoff_grows_to_its_cap() {
        assert_eq!(backoff(1), Duration::from_millis(20));
        assert_eq!(backoff(2), Duration::from_millis(40));
        assert_eq!(backoff(usize::MAX), MAX_BACKOFF);
    }

    #[tokio::test]
    async fn a_config_that_cannot_work_is_refused_without_trying() {
        for config in [
            BusConfig::new("nats://no such host:x"),
            BusConfig { user: Some("me".into()), ..BusConfig::default() },
            BusConfig { creds_file: Some("/nowhere/at/all.creds".into()), ..BusConfig::default() },
        ] {
            assert_eq!(Bus::connect(config).await.err().unwrap().kind, BusErrorKind::Config);
        }
    }
}
