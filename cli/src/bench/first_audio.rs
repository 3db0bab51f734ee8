//! `chorus bench first-audio`: when the first sound of a sentence of 60 characters is there, against the engine's own time
//! for the sentence. A model that does not stream speaks the whole sentence before its first sound, so 1 is the best there is.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::stats::{Sorted, rounded};
use super::texts;
use super::trial::{Trial, speak_timed};
use crate::app::Context;
use crate::args::FirstAudioArgs;
use crate::commands::embedded::Embedded;
use crate::commands::speak;
use crate::config::EngineKind;
use crate::error::CliError;
use crate::locate::unless_stopped;

/// Sentences before those that count.
const WARM_UP: u32 = 2;

/// Runs the command.
pub async fn run(context: Context, args: FirstAudioArgs) -> Result<(), CliError> {
    let mut embedded = Embedded::new();
    let measuring = measure(&context, &mut embedded, &args);
    let trials = unless_stopped(&context.shutdown, measuring).await;
    embedded.stop(&context).await;
    let figures = figures(context.config.engine.kind, &trials?);
    if context.ui.json() {
        context.ui.json_line(&figures);
        return Ok(());
    }
    let (first, engine, ratio) =
        (&figures["first_audio_p50_ms"], &figures["engine_p50_ms"], &figures["ratio_p50"]);
    context.ui.line(&format!("{} sentences of 60 characters", figures["runs"]));
    context.ui.line(&format!("first audio {first} ms, engine {engine} ms, ratio {ratio} (medians)"));
    Ok(())
}

async fn measure(
    context: &Context,
    embedded: &mut Embedded,
    args: &FirstAudioArgs,
) -> Result<Vec<Trial>, CliError> {
    let runs = args.runs;
    let bus = embedded.start(context, args.model.as_slice()).await?;
    let cancel = CancellationToken::new();
    let _sessions_end_with_us = cancel.clone().drop_guard();
    let host = speak::sessions(&context.config, &bus, &cancel).await?;
    let spinner = context.ui.spinner("warming up …");
    let mut trials = Vec::new();
    for number in 0..WARM_UP + runs {
        let trial = speak_timed(&host, texts::of_characters(60, number)).await?;
        if number >= WARM_UP {
            trials.push(trial);
            spinner.say(&format!("{} of {runs} …", trials.len()));
        }
    }
    drop(spinner);
    host.stop().await;
    bus.close().await;
    Ok(trials)
}

fn figures(engine: EngineKind, trials: &[Trial]) -> Value {
    let median = |figure: fn(&Trial) -> f64| rounded(Sorted::new(trials.iter().map(figure)).median());
    // A test engine may report no time at all.
    let ratio = |trial: &Trial| trial.first_audio_ms / trial.engine_ms.max(0.001);
    json!({
        "ratio_p50": median(ratio),
        "first_audio_p50_ms": median(|trial| trial.first_audio_ms),
        "engine_p50_ms": median(|trial| trial.engine_ms),
        "runs": trials.len(),
        "engine": engine.as_str(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_ratios() {
        let trial = |first_audio_ms, engine_ms| Trial { total_ms: first_audio_ms, first_audio_ms, engine_ms };
        let figures =
            figures(EngineKind::Coqui, &[trial(110.0, 100.0), trial(300.0, 100.0), trial(105.0, 100.0)]);
        assert_eq!(figures["ratio_p50"].as_f64(), Some(1.1));
    }
}
