//! `chorus bench long-text`: one text on two workers of one thread each, against one engine of one thread that speaks the
//! same sentences one after another.
//!
//! Pairs, one of each in turns: when the first sound is there against what the engine alone needs for the first sentence,
//! and when the last is there against what it needs for all of them.

use serde_json::{Value, json};

use super::baseline::BarePipe;
use super::program::{Client, in_fleet, tell};
use super::stats::{Sorted, rounded};
use super::texts;
use super::trial::speak_timed;
use crate::app::Context;
use crate::args::LongTextArgs;
use crate::commands::embedded::Embedded;
use crate::error::CliError;

/// Workers of the fleet.
const WORKERS: usize = 2;
/// Sentences of a text, and the characters of each: 2,000 with the spaces between them.
const SENTENCES: u32 = 27;
const CHARS: usize = 73;
/// Sentences to each side before those that count.
const WARM_UP: u32 = 4;

/// One pair, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Pair {
    alone_first: f64,
    alone_total: f64,
    fleet_first: f64,
    fleet_total: f64,
}

/// Runs the command.
pub async fn run(context: Context, args: LongTextArgs) -> Result<(), CliError> {
    let measuring = async |embedded: &mut Embedded| measure(&context, embedded, &args).await;
    let pairs = in_fleet(&context, Embedded::new().with_workers(WORKERS), measuring).await?;
    let figures = figures(&pairs);
    let lines = [("first_audio", "first audio"), ("total", "the whole")].map(|(name, what)| {
        let of = |suffix: &str| &figures[format!("{name}_{suffix}")];
        let (fleet, alone, ratio) = (of("ms"), of("alone_ms"), of("ratio"));
        format!("{what}: {fleet} ms on {WORKERS} workers, {alone} ms on an engine alone, ratio {ratio}")
    });
    tell(context.ui, &figures, lines);
    Ok(())
}

async fn measure(
    context: &Context,
    embedded: &mut Embedded,
    args: &LongTextArgs,
) -> Result<Vec<Pair>, CliError> {
    let client = Client::start(context, embedded, args.model.as_slice()).await?;
    let program = embedded.engine().ok_or(CliError::NoFleet)?;
    let alone = BarePipe::start(context, program, args.model.as_slice()).await?;
    let spinner = context.ui.spinner("warming up …");
    for number in 0..WARM_UP {
        alone.round_trip(texts::of_characters(CHARS, number)).await?;
        speak_timed(&client.host, text(number)).await?;
    }
    let mut pairs = Vec::new();
    for run in 0..args.runs {
        spinner.say(&format!("pair {} of {} …", run + 1, args.runs));
        let mut took = Vec::new();
        for sentence in sentences(WARM_UP + run) {
            took.push(alone.round_trip(sentence).await?);
        }
        let trial = speak_timed(&client.host, text(WARM_UP + run)).await?;
        pairs.push(Pair {
            alone_first: took.first().copied().unwrap_or_default(),
            alone_total: took.iter().sum(),
            fleet_first: trial.first_audio_ms,
            fleet_total: trial.total_ms,
        });
    }
    drop(spinner);
    alone.stop().await;
    client.stop().await;
    Ok(pairs)
}

fn sentences(run: u32) -> impl Iterator<Item = String> {
    (0..SENTENCES).map(move |place| texts::of_characters(CHARS, run * SENTENCES + place))
}

fn text(run: u32) -> String {
    sentences(run).collect::<Vec<_>>().join(" ")
}

fn figures(pairs: &[Pair]) -> Value {
    let median = |figure: fn(&Pair) -> f64| rounded(Sorted::new(pairs.iter().map(figure)).median());
    json!({
        "first_audio_ratio": median(|pair| pair.fleet_first / pair.alone_first),
        "total_ratio": median(|pair| pair.fleet_total / pair.alone_total),
        "first_audio_ms": median(|pair| pair.fleet_first),
        "first_audio_alone_ms": median(|pair| pair.alone_first),
        "total_ms": median(|pair| pair.fleet_total),
        "total_alone_ms": median(|pair| pair.alone_total),
        "segments": SENTENCES,
        "characters": text(0).len(),
        "workers": WORKERS,
        "runs": pairs.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let pair = |alone_total, fleet_total| Pair {
            alone_first: 100.0,
            alone_total,
            fleet_first: 110.0,
            fleet_total,
        };
        let told = figures(&[pair(1000.0, 500.0), pair(4000.0, 2400.0), pair(1000.0, 550.0)]);
        assert_eq!(
            (told["total_ratio"].as_f64(), told["first_audio_ratio"].as_f64()),
            (Some(0.55), Some(1.1))
        );
        assert!(text(3).len() >= 1990, "{} characters", text(3).len());
    }
}
