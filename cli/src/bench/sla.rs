//! `chorus bench sla`: the plan's service levels under Poisson arrivals, complete audio, texts of 8 to 40 characters.
//!
//! First the rate that the levels are promised at; then rising rates until one breaks them, or falling ones until one holds
//! them; then the same arrivals to one engine that speaks one text after another, which is what the fleet replaces.

use std::sync::Arc;

use chorus_client::SessionHost;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::baseline::BarePipe;
use super::load::{Load, poisson};
use super::program::{Client, in_fleet, tell};
use super::stats::rounded;
use super::texts;
use super::trial::speak_timed;
use crate::app::Context;
use crate::args::SlaArgs;
use crate::commands::embedded::Embedded;
use crate::error::CliError;

/// Texts before those that count.
const WARM_UP: u32 = 5;
/// The shortest and the longest text, in characters.
const CHARS: (u32, u32) = (8, 40);
/// The plan's levels: percentile and milliseconds.
const LEVELS: [(f64, f64); 3] = [(50.0, 150.0), (95.0, 300.0), (99.0, 500.0)];
/// What the plan wants of the whole system, requests per second.
const PLANNED_PER_S: f64 = 10.0;
/// Each further rate is so much higher, or lower.
const STEP: f64 = 1.25;
/// No more rates than these are tried.
const STEPS: usize = 16;

/// What was found.
struct Found {
    promised: Load,
    /// Every rate tried after it, and what came of it: rising while the levels hold, or falling until they do.
    tried: Vec<(f64, Load)>,
    single: Load,
}

/// Runs the command.
pub async fn run(context: Context, args: SlaArgs) -> Result<(), CliError> {
    let measuring = async |embedded: &mut Embedded| measure(&context, embedded, &args).await;
    let found = in_fleet(&context, Embedded::new(), measuring).await?;
    let figures = figures(&args, &found);
    let line = |name: &str, side: &Value| {
        format!(
            "{name}, {}/s: p50 {} ms, p95 {} ms, p99 {} ms",
            args.rate, side["p50_ms"], side["p95_ms"], side["p99_ms"]
        )
    };
    let (held, machines) = (&figures["highest_rate_per_s"], &figures["machines_for_10_per_s"]);
    let lines = [
        line("fleet", &figures),
        line("one engine alone", &figures["single"]),
        format!("levels held up to {held}/s; 10/s need {machines} such machines"),
    ];
    tell(context.ui, &figures, lines);
    Ok(())
}

async fn measure(context: &Context, embedded: &mut Embedded, args: &SlaArgs) -> Result<Found, CliError> {
    let client = Client::start(context, embedded, args.on.model.as_slice()).await?;
    let spinner = context.ui.spinner("warming up …");
    for number in 0..WARM_UP {
        speak_timed(&client.host, text(number)).await?;
    }
    let mut first = WARM_UP;
    let mut at = async |rate: f64| {
        spinner.say(&format!("{} requests at {rate:.2} a second …", args.requests));
        let load =
            poisson(rate, args.requests, args.seed, |number| fleet(client.host.clone(), first + number))
                .await;
        first += args.requests;
        load
    };
    let promised = at(args.rate).await?;
    let mut tried: Vec<(f64, Load)> = Vec::new();
    let promise_holds = holds(&promised);
    let step = if promise_holds { STEP } else { 1.0 / STEP };
    let mut rate = args.rate;
    while tried.len() < STEPS && tried.last().is_none_or(|(_, load)| holds(load) == promise_holds) {
        rate *= step;
        tried.push((rate, at(rate).await?));
    }
    let single = alone(context, embedded, args, first).await;
    drop(spinner);
    client.stop().await;
    Ok(Found { promised, tried, single: single? })
}

/// The same arrivals, to one engine that takes one text at a time.
async fn alone(context: &Context, embedded: &Embedded, args: &SlaArgs, first: u32) -> Result<Load, CliError> {
    let Some(program) = embedded.engine() else {
        return Err(CliError::Fleet { part: "engine", why: "there is none to compare with".into() });
    };
    let pipe = Arc::new(Mutex::new(BarePipe::start(context, program, args.on.model.as_slice()).await?));
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
    let tried = found.tried.iter().map(|(rate, load)| (*rate, load));
    let held =
        tried.chain([(args.rate, &found.promised)]).filter(|(_, load)| holds(load)).map(|(rate, _)| rate);
    let highest = held.max_by(f64::total_cmp);
    let mut figures = of(&found.promised);
    figures["rate_per_s"] = json!(args.rate);
    figures["requests"] = json!(args.requests);
    figures["highest_rate_per_s"] = json!(highest.map(rounded));
    figures["machines_for_10_per_s"] = json!(highest.map(|rate| (PLANNED_PER_S / rate).ceil()));
    figures["tried"] = found
        .tried
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
        let tried = vec![(2.5, load(140.0)), (3.125, load(400.0))];
        let told = figures(&args, &Found { promised: load(100.0), tried, single: load(600.0) });
        assert_eq!(told["highest_rate_per_s"].as_f64(), Some(2.5));
        assert_eq!(told["machines_for_10_per_s"].as_f64(), Some(4.0));
        assert_eq!((&told["levels_held"], &told["single"]["levels_held"]), (&json!(true), &json!(false)));
        let tried = vec![(1.6, load(180.0)), (1.28, load(149.0))];
        let told = figures(&args, &Found { promised: load(700.0), tried, single: load(600.0) });
        assert_eq!(told["highest_rate_per_s"].as_f64(), Some(1.28));
        let told = figures(&args, &Found { promised: load(700.0), tried: Vec::new(), single: load(600.0) });
        assert!(told["highest_rate_per_s"].is_null());
    }

    #[test]
    fn texts_are_of_every_length() {
        let lengths: std::collections::BTreeSet<usize> = (0..200).map(|n| text(n).len()).collect();
        assert_eq!((lengths.first(), lengths.last(), lengths.len()), (Some(&8), Some(&40), 33));
    }
}
