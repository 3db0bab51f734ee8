//! `chorus cache`: what is kept of what was spoken, asked and forgotten through a manager.

use std::time::Duration;

use chorus_bus::Bus;
use chorus_protocol::service::{Ask, CacheCleared, CacheStatus};
use chorus_protocol::{Envelope, names};
use chorus_runtime::clock::{Clock as _, SystemClock};
use serde_json::json;

use crate::app::Context;
use crate::args::CacheCommand;
use crate::error::CliError;
use crate::locate::{self, unless_stopped};
use crate::ui::{Ui, table};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Runs the command.
pub async fn run(context: Context, command: CacheCommand) -> Result<(), CliError> {
    let ui = context.ui;
    let asking = async {
        let bus = locate::connect(&context).await?;
        let answered = match command {
            CacheCommand::Status { .. } => status(&bus, ui).await,
            CacheCommand::Clear { .. } => clear(&bus, ui).await,
        };
        bus.close().await;
        answered
    };
    unless_stopped(&context.shutdown, asking).await
}

fn question() -> Envelope<Ask> {
    Envelope::request(Ask::default(), SystemClock.unix_ms())
}

async fn status(bus: &Bus, ui: Ui) -> Result<(), CliError> {
    let status: CacheStatus = bus.request(names::CACHE_STATUS, &question(), ANSWER_WITHIN).await?;
    if ui.json() {
        ui.json_line(&json!(status));
        return Ok(());
    }
    let limit = match status.max_bytes {
        0 => "no limit".to_owned(),
        bytes => format!("of {}", mebibytes(bytes)),
    };
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("enabled", status.enabled.to_string()),
        row("takes", status.takes.to_string()),
        row("size", format!("{} {limit}", mebibytes(status.bytes))),
        row("hits", status.hits.to_string()),
        row("joins", status.joins.to_string()),
        row("misses", status.misses.to_string()),
        row("failures", status.failures.to_string()),
    ];
    for line in table(&rows) {
        ui.line(&line);
    }
    Ok(())
}

async fn clear(bus: &Bus, ui: Ui) -> Result<(), CliError> {
    let cleared: CacheCleared = bus.request(names::CACHE_CLEAR, &question(), ANSWER_WITHIN).await?;
    if ui.json() {
        ui.json_line(&json!(cleared));
    } else {
        ui.line(&format!("{} takes forgotten, {}", cleared.takes, mebibytes(cleared.bytes)));
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}
