//! `chorus bench null`: what the way costs when the engine costs nothing. Each reply is one second of audio, 44 KB, by the
//! durable way.
//!
//! One client, turn by turn: a round trip through the broker alone, the bare pipe, a native session, a plain request. Then
//! 64 clients at once, native and plain.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_bus::{Bus, Subscription};
use chorus_client::SessionHost;
use chorus_protocol::names;
use serde_json::{Value, json};

use super::baseline::BarePipe;
use super::load::{Load, closed};
use super::program::{Client, in_fleet, tell};
use super::stats::{Sorted, rounded};
use super::texts;
use super::trial::speak_timed;
use crate::app::Context;
use crate::args::NullArgs;
use crate::commands::embedded::Embedded;
use crate::error::CliError;

/// Turns before those that count.
const WARM_UP: u32 = 20;
/// Clients at once.
const CLIENTS: usize = 64;
/// Where the round trip through the broker alone is answered.
const ECHO: &str = "bench.echo";
/// How often that is tried before it counts, and the time between.
const ECHO_TRIES: u32 = 100;
const ECHO_AGAIN: Duration = Duration::from_millis(10);
/// What a question may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// One turn of one client, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Turn {
    core: f64,
    pipe: f64,
    native: f64,
    plain: f64,
}

struct Found {
    turns: Vec<Turn>,
    native: Load,
    plain: Load,
}

/// Runs the command.
pub async fn run(context: Context, args: NullArgs) -> Result<(), CliError> {
    let measuring = async |embedded: &mut Embedded| measure(&context, embedded, &args).await;
    let found = in_fleet(&context, Embedded::new(), measuring).await?;
    let figures = figures(&found);
    let lines = [
        format!(
            "1 client: added p50 {} ms, p99 {} ms; a round trip through the broker alone {} ms; plain requests add {} ms",
            figures["added_p50_ms"],
            figures["added_p99_ms"],
            figures["core_rtt_p50_ms"],
            figures["plain_added_p50_ms"]
        ),
        format!(
            "64 clients: {} requests/s, plain {}/s",
            figures["requests_per_s_64"], figures["plain_requests_per_s_64"]
        ),
    ];
    tell(context.ui, &figures, lines);
    Ok(())
}

async fn measure(context: &Context, embedded: &mut Embedded, args: &NullArgs) -> Result<Found, CliError> {
    let client = Client::start(context, embedded, &[]).await?;
    let program = embedded.engine().ok_or(CliError::NoFleet)?;
    let pipe = BarePipe::start(context, program, &[]).await?;
    let spinner = context.ui.spinner("one client …");
    let echo = embedded.connect("chorus-bench-echo").await?;
    let mut asked = echo.subscribe(ECHO, None).await?;
    let mut turns = Vec::new();
    let one_client = async {
        // The broker may hear the first question before it hears who answers.
        let mut tries = 0;
        while core_rtt(&client.bus).await.is_err() && tries < ECHO_TRIES {
            tries += 1;
            tokio::time::sleep(ECHO_AGAIN).await;
        }
        for number in 0..WARM_UP + args.turns {
            let turn = Turn {
                core: core_rtt(&client.bus).await?,
                pipe: pipe.round_trip(texts::short(number)).await?,
                native: native(&client.host, number).await?,
                plain: plain(&client.bus, number).await?,
            };
            if number >= WARM_UP {
                turns.push(turn);
            }
        }
        Ok(())
    };
    tokio::select! {
        done = one_client => done,
        failed = answer_echoes(&echo, &mut asked) => failed,
    }?;
    spinner.say("64 clients …");
    let native_load = closed(CLIENTS, args.requests, |number| native(&client.host, number)).await?;
    spinner.say("64 clients, plain requests …");
    let plain_load = closed(CLIENTS, args.requests / 4, |number| plain(&client.bus, number)).await?;
    drop(spinner);
    pipe.stop().await;
    echo.close().await;
    client.stop().await;
    Ok(Found { turns, native: native_load, plain: plain_load })
}

async fn native(host: &SessionHost, number: u32) -> Result<f64, CliError> {
    Ok(speak_timed(host, texts::short(number)).await?.total_ms)
}

async fn plain(bus: &Bus, number: u32) -> Result<f64, CliError> {
    let request = json!({"text": texts::short(number)}).to_string();
    let begun = Instant::now();
    let reply = bus.request_raw(names::SYNTHESIZE, request.into(), ANSWERED_WITHIN).await?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    let result: Value = serde_json::from_slice(&reply).unwrap_or_default();
    if result["success"] != json!(true) {
        return Err(CliError::Fleet { part: "manager", why: result["error"].to_string() });
    }
    Ok(took)
}

async fn core_rtt(bus: &Bus) -> Result<f64, CliError> {
    let begun = Instant::now();
    bus.request_raw(ECHO, Bytes::from_static(b"?"), ANSWERED_WITHIN).await?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// Answers until it is dropped.
async fn answer_echoes(bus: &Bus, asked: &mut Subscription) -> Result<(), CliError> {
    while let Some(question) = asked.next().await {
        if let Some(reply) = question.reply() {
            bus.respond_raw(reply, question.payload.clone()).await?;
        }
    }
    Err(CliError::NoFleet)
}

fn figures(found: &Found) -> Value {
    let of = |figure: fn(&Turn) -> f64| Sorted::new(found.turns.iter().map(figure));
    let added = of(|turn| turn.native - turn.pipe);
    let core = of(|turn| turn.core).median();
    json!({
        "added_p50_ms": rounded(added.median()),
        "added_p99_ms": rounded(added.percentile(99.0)),
        "core_rtt_p50_ms": rounded(core),
        "added_in_core_rtts": rounded(added.median() / core.max(0.001)),
        "requests_per_s_64": rounded(found.native.per_s),
        "p50_ms_64": rounded(found.native.latency_ms.median()),
        "pipe_p50_ms": rounded(of(|turn| turn.pipe).median()),
        "plain_added_p50_ms": rounded(of(|turn| turn.plain - turn.pipe).median()),
        "plain_requests_per_s_64": rounded(found.plain.per_s),
        "turns": found.turns.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_is_told_in_round_trips_too() {
        let load = Load { latency_ms: Sorted::new([20.0]), per_s: 3200.0 };
        let turns = vec![Turn { core: 0.25, pipe: 0.5, native: 1.25, plain: 2.5 }; 3];
        let told = figures(&Found { turns, native: load.clone(), plain: load });
        assert_eq!(
            (told["added_p50_ms"].as_f64(), told["added_in_core_rtts"].as_f64()),
            (Some(0.75), Some(3.0))
        );
        assert_eq!((&told["plain_added_p50_ms"], &told["requests_per_s_64"]), (&json!(2.0), &json!(3200.0)));
    }
}
