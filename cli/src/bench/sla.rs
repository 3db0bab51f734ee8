//! `chorus bench sla`: the plan's service levels under Poisson arrivals, complete audio, texts of 8 to 40 characters.
//!
//! First the rate that the levels are promised at; then rising rates until one breaks them; then the same arrivals to one
//! engine that speaks one text after another, which is what the fleet replaces.

use std::sync::Arc;

use chorus_client::SessionHost;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::baseline::BarePipe;
use super::load::{Load, poisson};
use super::stats::rounded;
use super::texts;
use super::trial::speak_timed;
use crate::app::Context;
use crate::args::SlaArgs;
use crate::commands::embedded::Embedded;
use crate::commands::speak;
use crate::error::CliError;
use crate::locate::unless_stopped;

/// Texts before those that count.
const WARM_UP: u32 = 5;
/// The shortest and the longest text, in characters.
const CHARS: (u32, u32) = (8, 40);
/// The plan's levels: percentile and milliseconds.
const LEVELS: [(f64, f64); 3] = [(50.0, 150.0), (95.0, 300.0), (99.0, 500.0)];
/// What the plan wants of the whole system, requests per second.
const PLANNED_PER_S: f64 = 10.0;
/// Each further rate is so much higher.
const STEP: f64 = 1.25;
/// No more rates than these are tried.
const STEPS: u32 = 16;

/// What was found.
struct Found {
    promised: Load,
    /// Every rate tried after it, and what came of it.
    rising: Vec<(f64, Load)>,
    single: Load,
}

/// Runs the command.
pub async fn run(context: Context, args: SlaArgs) -> Result<(), CliError> {
    let mut embedded = Embedded::new();
    let measuring = measure(&context, &mut embedded, &args);
    let found = unless_stopped(&context.shutdown, measuring).await;
    embedded.stop(&context).await;
    let figures = figures(&args, &found?);
    if context.ui.json() {
        context.ui.json_line(&figures);
        return Ok(());
    }
    for (name, side) in [("fleet", &figures), ("one engine alone", &figures["single"])] {
        context.ui.line(&format!(
            "{name}, {}/s: p50 {} ms, p95 {} ms, p99 {} ms",
            args.rate, side["p50_ms"], side["p95_ms"], side["p99_ms"]
        ));
    }
    let (held, machines) = (&figures["highest_rate_per_s"], &figures["machines_for_10_per_s"]);
    context.ui.line(&format!("levels held up to {held}/s; 10/s need {machines} such machines"));
    Ok(())
}

async fn measure(context: &Context, embedded: &mut Embedded, args: &SlaArgs) -> Result<Found, CliError> {
    let bus = embedded.start(context, args.model.as_slice()).await?;
    let cancel = CancellationToken::new();
    let _sessions_end_with_us = cancel.clone().drop_guard();
    let host = speak::sessions(&context.config, &bus, &cancel).await?;
    let spinner = context.ui.spinner("warming up …");
    for number in 0..WARM_UP {
        speak_timed(&host, text(number)).await?;
    }
    let mut first = WARM_UP;
    let mut at = async |rate: f64| {
        spinner.say(&format!("{} requests at {rate:.2} a second …", args.requests));
        let load =
            poisson(rate, args.requests, args.seed, |number| fleet(host.clone(), first + number)).await;
        first += args.requests;
        load
    };
    let promised = at(args.rate).await?;
    let mut rising = Vec::new();
    let mut rate = args.rate;
    while rising.len() < STEPS as usize && holds(rising.last().map_or(&promised, |(_, load)| load)) {
        rate *= STEP;
        rising.push((rate, at(rate).await?));
    }
    host.stop().await;
    let single = alone(context, embedded, args, first).await;
    drop(spinner);
    bus.close().await;
    Ok(Found { promised, rising, single: single? })
}

/// The same arrivals, to one engine that takes one text at a time.
async fn alone(context: &Context, embedded: &Embedded, args: &SlaArgs, first: u32) -> Result<Load, CliError> {
    let Some(program) = embedded.engine() else {
        return Err(CliError::Fleet { part: "engine", why: "there is none to compare with".into() });
    };
    let pipe = Arc::new(Mutex::new(BarePipe::start(context, program, args.model.as_slice()).await?));
    for number in 0..WARM_UP {
        pipe.lock().await.round_trip(text(number)).await?;
    }
    let asked = |number| {
        let (pipe, text) = (Arc::clone(&pipe), text(first + number));
        async move { pipe.lock().await.round_trip(text).await.map(drop) }
    };
    let load = poisson(args.rate, args.requests, args.seed, asked).await;
    if let Some(pipe) = Arc::into_inner(pipe) {
        pipe.into_inner().stop().await;
    }
    load
}

async fn fleet(host: SessionHost, number: u32) -> Result<(), CliError> {
    speak_timed(&host, text(number)).await.map(drop)
}

/// Every length equally often.
fn text(number: u32) -> String {
    let chars = CHARS.0 + number.wrapping_mul(7) % (CHARS.1 - CHARS.0 + 1);
    texts::of_characters(chars as usize, number)
}

fn holds(load: &Load) -> bool {
    LEVELS.iter().all(|&(percent, ms)| load.latency_ms.percentile(percent) <= ms)
}

fn figures(args: &SlaArgs, found: &Found) -> Value {
    let of = |load: &Load| {
        let [p50, p95, p99] = LEVELS.map(|(percent, _)| rounded(load.latency_ms.percentile(percent)));
        json!({"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "levels_held": holds(load)})
    };
    let held = found.rising.iter().rev().find(|(_, load)| holds(load)).map(|&(rate, _)| rate);
    let highest = held.or(holds(&found.promised).then_some(args.rate));
    let mut figures = of(&found.promised);
    figures["rate_per_s"] = json!(args.rate);
    figures["requests"] = json!(args.requests);
    figures["highest_rate_per_s"] = json!(highest.map(rounded));
    figures["machines_for_10_per_s"] = json!(highest.map(|rate| (PLANNED_PER_S / rate).ceil()));
    figures["rising"] = found
        .rising
        .iter()
        .map(|(rate, load)| {
            let mut one = of(load);
            one["rate_per_s"] = json!(rounded(*rate));
            one
        })
        .collect();
    figures["single"] = of(&found.single);
    figures
}

#[cfg(test)]
mod tests {
    use super::super::stats::Sorted;
    use super::*;

    fn load(ms: f64) -> Load {
        Load { latency_ms: Sorted::new([ms]), per_s: 1.0 }
    }

    #[test]
    fn the_highest_rate_is_the_last_that_held() {
        let args = SlaArgs { rate: 2.0, ..SlaArgs::for_tests() };
        let rising = vec![(2.5, load(140.0)), (3.125, load(400.0))];
        let found = Found { promised: load(100.0), rising, single: load(600.0) };
        let told = figures(&args, &found);
        assert_eq!(told["highest_rate_per_s"].as_f64(), Some(2.5));
        assert_eq!(told["machines_for_10_per_s"].as_f64(), Some(4.0));
        assert_eq!((&told["levels_held"], &told["single"]["levels_held"]), (&json!(true), &json!(false)));
        let found = Found { promised: load(700.0), rising: Vec::new(), single: load(600.0) };
        assert!(figures(&args, &found)["highest_rate_per_s"].is_null());
    }

    #[test]
    fn texts_are_of_every_length() {
        let lengths: std::collections::BTreeSet<usize> = (0..200).map(|n| text(n).len()).collect();
        assert_eq!((lengths.first(), lengths.last(), lengths.len()), (Some(&8), Some(&40), 33));
    }
}
