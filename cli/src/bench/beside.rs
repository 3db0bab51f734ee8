//! `chorus bench beside`: greetings beside a book. One worker of one thread reads a long text as fast as it can, to a
//! listener who takes everything at once; now and then somebody else asks for a short sentence.
//!
//! What such a greeting may wait for is the sentence that the engine is in, at most, and then for its own. Both are taken
//! from the same run: the time that the engine itself needs for the longest of the book's sentences heard so far, and for
//! each greeting.

use std::time::Duration;

use chorus_client::{SessionHost, Speaking, SpeechEvent};
use chorus_protocol::SynthesisRequest;
use serde_json::{Value, json};

use super::baseline::BarePipe;
use super::program::{Client, in_fleet, tell};
use super::stats::{Sorted, rounded};
use super::texts;
use super::trial::{Trial, speak_timed};
use crate::app::Context;
use crate::args::BesideArgs;
use crate::commands::embedded::Embedded;
use crate::commands::speak;
use crate::error::CliError;

/// Characters of the book's sentences and of the greetings.
const SENTENCE: usize = 73;
const GREETING: usize = 12;
/// Sentences of each kind that the engine speaks alone, to know what they take.
const ALONE: u32 = 12;
/// From one greeting's end to the next: never in step with the book.
const BETWEEN: Duration = Duration::from_millis(137);

struct Found {
    sentences_ms: Sorted,
    alone_ms: Sorted,
    greetings: Vec<Trial>,
    /// Sentences of the book that were heard meanwhile.
    heard: u32,
}

/// Runs the command.
pub async fn run(context: Context, args: BesideArgs) -> Result<(), CliError> {
    let measuring = async |embedded: &mut Embedded| measure(&context, embedded, &args).await;
    let found = in_fleet(&context, Embedded::new(), measuring).await?;
    let figures = figures(&found, &args);
    let lines = [format!(
        "a greeting's first audio: p50 {} ms, p95 {} ms beside a book of {} sentences; a sentence and a greeting take {} ms: ratio {}",
        figures["first_audio_p50_ms"],
        figures["first_audio_p95_ms"],
        args.sentences,
        figures["allowed_ms"],
        figures["beside_ratio"]
    )];
    tell(context.ui, &figures, lines);
    Ok(())
}

async fn measure(context: &Context, embedded: &mut Embedded, args: &BesideArgs) -> Result<Found, CliError> {
    let client = Client::start(context, embedded, args.model.as_slice()).await?;
    let program = embedded.engine().ok_or(CliError::NoFleet)?;
    let alone = BarePipe::start(context, program, args.model.as_slice()).await?;
    let spinner = context.ui.spinner("the engine alone …");
    // The first text pays for what every process does once.
    alone.round_trip(texts::of_characters(SENTENCE, ALONE)).await?;
    let (mut sentences, mut short) = (Vec::new(), Vec::new());
    for number in 0..ALONE {
        sentences.push(alone.round_trip(texts::of_characters(SENTENCE, number)).await?);
        short.push(alone.round_trip(texts::of_characters(GREETING, number)).await?);
    }
    alone.stop().await;
    spinner.say("greetings beside a book …");
    let mut heard = 0;
    let greetings = tokio::select! {
        ended = read(&client.host, args.sentences, &mut heard) => return Err(ended),
        greetings = greet(&client.host, args.greetings) => greetings?,
    };
    drop(spinner);
    client.stop().await;
    Ok(Found { sentences_ms: Sorted::new(sentences), alone_ms: Sorted::new(short), greetings, heard })
}

/// Has the book read, and says why it ended: it should be longer than all greetings.
async fn read(host: &SessionHost, sentences: u32, heard: &mut u32) -> CliError {
    let book = SynthesisRequest { text: String::new(), ..SynthesisRequest::default() };
    let (speaking, input) = speak::ask_coming(host, book);
    let write = async {
        for number in 0..sentences {
            if !input.push(texts::of_characters(SENTENCE, 1_000 + number) + " ").await {
                return;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        ended = listen(speaking, heard) => ended,
        () = write => CliError::Fleet { part: "session", why: "the book ended early".into() },
    }
}

async fn listen(mut speaking: Speaking, heard: &mut u32) -> CliError {
    loop {
        match speaking.next().await {
            Some(SpeechEvent::Accepted { .. }) => {}
            Some(SpeechEvent::Audio(_)) => *heard += 1,
            Some(SpeechEvent::Ended(result)) => {
                let early = CliError::Fleet { part: "session", why: "the book ended early".into() };
                return result.error.map_or(early, CliError::from);
            }
            None => return CliError::Fleet { part: "session", why: "it ended without a result".into() },
        }
    }
}

async fn greet(host: &SessionHost, greetings: u32) -> Result<Vec<Trial>, CliError> {
    let mut trials = Vec::new();
    for number in 0..greetings {
        tokio::time::sleep(BETWEEN).await;
        trials.push(speak_timed(host, texts::of_characters(GREETING, 10_000 + number)).await?);
    }
    Ok(trials)
}

fn figures(found: &Found, args: &BesideArgs) -> Value {
    let first = Sorted::new(found.greetings.iter().map(|trial| trial.first_audio_ms));
    let allowed_ms = found.sentences_ms.percentile(95.0) + found.alone_ms.percentile(95.0);
    let p95_ms = first.percentile(95.0);
    json!({
        "beside_ratio": rounded(p95_ms / allowed_ms.max(1e-9)),
        "first_audio_p50_ms": rounded(first.median()),
        "first_audio_p95_ms": rounded(p95_ms),
        "allowed_ms": rounded(allowed_ms),
        "sentence_p95_ms": rounded(found.sentences_ms.percentile(95.0)),
        "greeting_alone_p95_ms": rounded(found.alone_ms.percentile(95.0)),
        "greetings": found.greetings.len(),
        "book_sentences": args.sentences,
        "book_sentences_heard": found.heard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_and_a_greeting_are_allowed() {
        let trial = Trial { total_ms: 130.0, first_audio_ms: 120.0, engine_ms: 30.0, cache_hit: false };
        let found = Found {
            sentences_ms: Sorted::new([100.0]),
            alone_ms: Sorted::new([20.0]),
            greetings: vec![trial; 3],
            heard: 7,
        };
        let args = BesideArgs { sentences: 2_000, greetings: 3, model: None, json: true };
        let told = figures(&found, &args);
        assert_eq!((told["beside_ratio"].as_f64(), told["allowed_ms"].as_f64()), (Some(1.0), Some(120.0)));
    }
}
