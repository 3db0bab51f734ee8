//! `chorus bench streams`: many listeners at once, each hearing a text at the pace at which it sounds.
//!
//! A listener keeps little in hand, so the fleet must deliver all the time. One that has nothing left to play before its
//! next piece is there has an *under-run*; a piece that never comes makes the request fail, and is counted. With
//! `--stalled`, others have asked before them and take nothing: that must cost the listeners nothing.

use std::time::{Duration, Instant};

use chorus_client::{SessionHost, Speaking, SpeechEvent};
use chorus_protocol::SynthesisRequest;
use futures::future::join_all;
use serde_json::{Value, json};

use super::cpu;
use super::program::{Client, in_fleet, tell};
use super::stats::{Sorted, rounded};
use super::texts;
use crate::app::Context;
use crate::args::StreamsArgs;
use crate::commands::embedded::Embedded;
use crate::commands::speak;
use crate::error::CliError;

/// Workers of the fleet.
const WORKERS: usize = 2;
/// Characters of each sentence: three seconds from a checkable engine.
const CHARS: usize = 60;
/// What a listener keeps in hand before it takes no more.
const IN_HAND: Duration = Duration::from_secs(2);
/// Sentences of a text that nobody takes.
const STALLED_SENTENCES: u32 = 20;
/// Listeners do not all begin in the same moment.
const SPREAD: Duration = Duration::from_secs(3);

/// What one listener heard.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    first_audio_ms: f64,
    audio_s: f64,
    under_runs: u32,
    /// Samples of the result that were not heard, or heard too often.
    missing: u64,
    failed: bool,
}

/// Runs the command.
pub async fn run(context: Context, args: StreamsArgs) -> Result<(), CliError> {
    let measuring = async |embedded: &mut Embedded| measure(&context, embedded, &args).await;
    let found = in_fleet(&context, Embedded::new().with_workers(WORKERS), measuring).await?;
    let (heard, took, cpu_s) = found;
    let figures = figures(&heard, args.stalled, took, cpu_s);
    let lines = [
        format!(
            "{} streams, {} s of audio in {} s: {} under-runs, {} samples missing, {} failed",
            figures["streams"],
            figures["audio_s"],
            figures["took_s"],
            figures["under_runs"],
            figures["missing_samples"],
            figures["failed"]
        ),
        format!(
            "first audio p95 {} ms; {} % of a core for each stream",
            figures["first_audio_p95_ms"], figures["cpu_percent_per_stream"]
        ),
    ];
    tell(context.ui, &figures, lines);
    Ok(())
}

async fn measure(
    context: &Context,
    embedded: &mut Embedded,
    args: &StreamsArgs,
) -> Result<(Vec<Heard>, Duration, f64), CliError> {
    let client = Client::start(context, embedded, &[]).await?;
    let _spinner = context.ui.spinner("listening …");
    let (begun, used) = (Instant::now(), cpu::used_s());
    let stalled: Vec<Speaking> = (0..args.stalled).map(|number| stall(&client.host, number)).collect();
    let listeners = (0..args.streams).map(|number| {
        let (host, delay) = (client.host.clone(), SPREAD * number / args.streams.max(1));
        let text =
            (0..args.sentences).map(|place| texts::of_characters(CHARS, number * args.sentences + place));
        let text = text.collect::<Vec<_>>().join(" ");
        async move {
            tokio::time::sleep(delay).await;
            listen(&host, text).await
        }
    });
    let heard = join_all(listeners).await;
    let (took, cpu_s) = (begun.elapsed(), cpu::used_s() - used);
    drop(stalled);
    client.stop().await;
    Ok((heard, took, cpu_s))
}

/// Asks for a text of a minute and does not listen.
fn stall(host: &SessionHost, number: u32) -> Speaking {
    let text = (0..STALLED_SENTENCES).map(|place| texts::of_characters(CHARS, number + place));
    let text = text.collect::<Vec<_>>().join(" ");
    speak::ask(host, SynthesisRequest { text, ..SynthesisRequest::default() })
}

/// Hears a text as a player would.
async fn listen(host: &SessionHost, text: String) -> Heard {
    let begun = Instant::now();
    let mut speaking = speak::ask(host, SynthesisRequest { text, ..SynthesisRequest::default() });
    let mut heard = Heard::default();
    let mut plays_until: Option<Instant> = None;
    let (mut samples, mut rate) = (0, 0);
    loop {
        if let Some(until) = plays_until {
            tokio::time::sleep_until((until - IN_HAND.min(until.saturating_duration_since(begun))).into())
                .await;
        }
        match speaking.next().await {
            Some(SpeechEvent::Accepted { .. }) => {}
            Some(SpeechEvent::Audio(piece)) => {
                let now = Instant::now();
                match plays_until {
                    None => heard.first_audio_ms = (now - begun).as_secs_f64() * 1000.0,
                    Some(until) if now > until => heard.under_runs += 1,
                    Some(_) => {}
                }
                let count = piece.pcm.len() as u64 / 2;
                (samples, rate) = (samples + count, piece.sample_rate);
                let sounds = Duration::from_secs_f64(count as f64 / f64::from(piece.sample_rate.max(1)));
                plays_until = Some(plays_until.map_or(now, |until| until.max(now)) + sounds);
            }
            Some(SpeechEvent::Ended(result)) => {
                heard.failed = !result.success;
                heard.audio_s = result.duration.unwrap_or_default();
                heard.missing = ((heard.audio_s * f64::from(rate)).round() as u64).abs_diff(samples);
                return heard;
            }
            None => return Heard { failed: true, ..heard },
        }
    }
}

fn figures(heard: &[Heard], stalled: u32, took: Duration, cpu_s: f64) -> Value {
    let sum = |figure: fn(&Heard) -> f64| heard.iter().map(figure).sum::<f64>();
    let streams = heard.len().max(1) as f64;
    let first = Sorted::new(heard.iter().map(|one| one.first_audio_ms));
    json!({
        "streams": heard.len(),
        "stalled": stalled,
        "under_runs": heard.iter().map(|one| one.under_runs).sum::<u32>(),
        "missing_samples": heard.iter().map(|one| one.missing).sum::<u64>(),
        "failed": heard.iter().filter(|one| one.failed).count(),
        "first_audio_p50_ms": rounded(first.median()),
        "first_audio_p95_ms": rounded(first.percentile(95.0)),
        "audio_s": rounded(sum(|one| one.audio_s)),
        "took_s": rounded(took.as_secs_f64()),
        "cpu_percent_per_stream": rounded(cpu_s / took.as_secs_f64().max(1e-9) / streams * 100.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_went_wrong_is_added_up() {
        let fine = Heard { first_audio_ms: 10.0, audio_s: 20.0, ..Heard::default() };
        let bad = Heard { under_runs: 2, missing: 5, failed: true, ..fine };
        let told = figures(&[fine, bad], 0, Duration::from_secs(20), 4.0);
        assert_eq!(
            (&told["under_runs"], &told["missing_samples"], &told["failed"]),
            (&json!(2), &json!(5), &json!(1))
        );
        assert_eq!(
            (told["audio_s"].as_f64(), told["cpu_percent_per_stream"].as_f64()),
            (Some(40.0), Some(10.0))
        );
    }
}
