//! `chorus bench latency`: what the fleet adds to the engine's own time, request by request.
//!
//! With a real engine, added = the client's time less the engine time reported for that request. A test engine takes next
//! to no time, so there the bare pipe to a second engine is measured in the same run, turn by turn, and added = the
//! client's time less the pipe's of the same turn.

use serde_json::{Value, json};

use super::baseline::BarePipe;
use super::program::{Client, in_fleet, tell};
use super::stats::{Sorted, rounded};
use super::texts;
use super::trial::speak_timed;
use crate::app::Context;
use crate::args::LatencyArgs;
use crate::commands::embedded::Embedded;
use crate::config::EngineKind;
use crate::error::CliError;

/// Requests before those that count.
const WARM_UP: u32 = 5;

/// One turn, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Turn {
    client_ms: f64,
    /// The engine's own time, or the bare pipe's.
    base_ms: f64,
}

/// Runs the command.
pub async fn run(context: Context, args: LatencyArgs) -> Result<(), CliError> {
    let measuring = async |embedded: &mut Embedded| measure(&context, embedded, &args).await;
    let turns = in_fleet(&context, Embedded::new(), measuring).await?;
    let engine = context.config.engine.kind;
    let figures = figures(engine, &turns);
    let base = &figures["baseline"];
    let name = if engine == EngineKind::Coqui { "engine" } else { "bare pipe" };
    let lines = [
        format!("engine {}, {} requests, one at a time", engine.as_str(), turns.len()),
        format!("client    p50 {} ms, p99 {} ms", figures["client_p50_ms"], figures["client_p99_ms"]),
        format!("{name:<9} p50 {} ms, p99 {} ms", base["p50_ms"], base["p99_ms"]),
        format!("added     p50 {} ms, p99 {} ms", figures["added_p50_ms"], figures["added_p99_ms"]),
    ];
    tell(context.ui, &figures, lines);
    Ok(())
}

async fn measure(
    context: &Context,
    embedded: &mut Embedded,
    args: &LatencyArgs,
) -> Result<Vec<Turn>, CliError> {
    let requests = args.requests;
    let client = Client::start(context, embedded, args.on.model.as_slice()).await?;
    let pipe = match (context.config.engine.kind, embedded.engine()) {
        (EngineKind::Coqui, _) | (_, None) => None,
        (_, Some(program)) => Some(BarePipe::start(context, program, args.on.model.as_slice()).await?),
    };
    let spinner = context.ui.spinner("warming up …");
    let mut turns = Vec::new();
    for number in 0..WARM_UP + requests {
        let text = texts::short(number);
        // Whoever goes first finds the machine in another state: they take turns at it.
        let before = piped(pipe.as_ref().filter(|_| number % 2 == 0), &text).await?;
        let trial = speak_timed(&client.host, text.clone()).await?;
        let after = piped(pipe.as_ref().filter(|_| number % 2 == 1), &text).await?;
        let base_ms = before.or(after).unwrap_or(trial.engine_ms);
        if number >= WARM_UP {
            turns.push(Turn { client_ms: trial.total_ms, base_ms });
            spinner.say(&format!("{} of {requests} …", number + 1 - WARM_UP));
        }
    }
    drop(spinner);
    if let Some(pipe) = pipe {
        pipe.stop().await;
    }
    client.stop().await;
    Ok(turns)
}

async fn piped(pipe: Option<&BarePipe>, text: &str) -> Result<Option<f64>, CliError> {
    match pipe {
        Some(pipe) => pipe.round_trip(text.to_owned()).await.map(Some),
        None => Ok(None),
    }
}

fn figures(engine: EngineKind, turns: &[Turn]) -> Value {
    let of = |figure: fn(&Turn) -> f64| Sorted::new(turns.iter().map(figure));
    let (added, client, base) = (of(|t| t.client_ms - t.base_ms), of(|t| t.client_ms), of(|t| t.base_ms));
    let kind = if engine == EngineKind::Coqui { "engineMs" } else { "pipe" };
    json!({
        "added_p50_ms": rounded(added.median()),
        "added_p99_ms": rounded(added.percentile(99.0)),
        "requests": turns.len(),
        "engine": engine.as_str(),
        "client_p50_ms": rounded(client.median()),
        "client_p99_ms": rounded(client.percentile(99.0)),
        "baseline": {
            "kind": kind,
            "p50_ms": rounded(base.median()),
            "p99_ms": rounded(base.percentile(99.0)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_is_taken_turn_by_turn() {
        let turns: Vec<Turn> =
            (0..100).map(|n| Turn { client_ms: f64::from(n) + 1.5, base_ms: f64::from(n) }).collect();
        let figures = figures(EngineKind::Null, &turns);
        assert_eq!(
            (figures["added_p50_ms"].as_f64(), figures["added_p99_ms"].as_f64()),
            (Some(1.5), Some(1.5))
        );
        assert_eq!((figures["requests"].as_u64(), &figures["baseline"]["kind"]), (Some(100), &json!("pipe")));
    }
}
