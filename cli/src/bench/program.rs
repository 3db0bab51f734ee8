//! What the programs have in common: a fleet that ends whatever comes of the measurement, the client in it, and how figures
//! are told.

use chorus_bus::Bus;
use chorus_client::SessionHost;
use futures::future::LocalBoxFuture;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::app::Context;
use crate::commands::embedded::Embedded;
use crate::commands::speak;
use crate::error::CliError;
use crate::locate::unless_stopped;
use crate::ui::Ui;

/// Measures in a fleet, and ends it.
///
/// # Errors
/// Those of the measurement, and the signal that came before its end.
pub fn in_fleet<'a, T: 'a>(
    context: &'a Context,
    mut embedded: Embedded,
    measure: impl AsyncFnOnce(&mut Embedded) -> Result<T, CliError> + 'a,
) -> LocalBoxFuture<'a, Result<T, CliError>> {
    Box::pin(async move {
        let found = unless_stopped(&context.shutdown, measure(&mut embedded)).await;
        embedded.stop(context).await;
        found
    })
}

/// Tells figures: as one object, or in lines for people.
pub fn tell(ui: Ui, figures: &Value, lines: impl IntoIterator<Item = String>) {
    if ui.json() {
        return ui.json_line(figures);
    }
    for line in lines {
        ui.line(&line);
    }
}

/// A client of the fleet: its connection, and its sessions.
pub struct Client {
    /// The connection.
    pub bus: Bus,
    /// The sessions.
    pub host: SessionHost,
    /// Ends the sessions when the client is dropped half-way.
    end: DropGuard,
}

impl Client {
    /// Starts the fleet, and a client of it.
    ///
    /// # Errors
    /// When the fleet cannot speak, or takes no client.
    pub async fn start(
        context: &Context,
        embedded: &mut Embedded,
        models: &[String],
    ) -> Result<Self, CliError> {
        let bus = embedded.start(context, models).await?;
        Self::of(context, bus).await
    }

    /// A client on a connection.
    ///
    /// # Errors
    /// When the broker takes no subscription.
    pub async fn of(context: &Context, bus: Bus) -> Result<Self, CliError> {
        let end = CancellationToken::new().drop_guard();
        let host = speak::sessions(&context.config, &bus, end.token()).await?;
        Ok(Self { bus, host, end })
    }

    /// Ends it.
    pub async fn stop(self) {
        self.host.stop().await;
        self.bus.close().await;
        drop(self.end);
    }
}
