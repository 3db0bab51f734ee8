//! `chorus bench first-audio`: when the first sound of a sentence of 60 characters is there, against the engine's own time
//! for the sentence. A model that does not stream speaks the whole sentence before its first sound, so 1 is the best there is.

use serde_json::{Value, json};

use super::program::{Client, in_fleet, tell};
use super::stats::{Sorted, rounded};
use super::texts;
use super::trial::{Trial, speak_timed};
use crate::app::Context;
use crate::args::FirstAudioArgs;
use crate::commands::embedded::Embedded;
use crate::config::EngineKind;
use crate::error::CliError;

/// Sentences before those that count.
const WARM_UP: u32 = 2;

/// Runs the command.
pub async fn run(context: Context, args: FirstAudioArgs) -> Result<(), CliError> {
    let measuring = async |embedded: &mut Embedded| measure(&context, embedded, &args).await;
    let trials = in_fleet(&context, Embedded::new(), measuring).await?;
    let figures = figures(context.config.engine.kind, &trials);
    let (first, engine, ratio) =
        (&figures["first_audio_p50_ms"], &figures["engine_p50_ms"], &figures["ratio_p50"]);
    let lines = [
        format!("{} sentences of 60 characters", figures["runs"]),
        format!("first audio {first} ms, engine {engine} ms, ratio {ratio} (medians)"),
    ];
    tell(context.ui, &figures, lines);
    Ok(())
}

async fn measure(
    context: &Context,
    embedded: &mut Embedded,
    args: &FirstAudioArgs,
) -> Result<Vec<Trial>, CliError> {
    let runs = args.runs;
    let client = Client::start(context, embedded, args.on.model.as_slice()).await?;
    let spinner = context.ui.spinner("warming up …");
    let mut trials = Vec::new();
    for number in 0..WARM_UP + runs {
        let trial = speak_timed(&client.host, texts::of_characters(60, number)).await?;
        if number >= WARM_UP {
            trials.push(trial);
            spinner.say(&format!("{} of {runs} …", trials.len()));
        }
    }
    drop(spinner);
    client.stop().await;
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
        let trial = |first_audio_ms, engine_ms| Trial {
            total_ms: first_audio_ms,
            first_audio_ms,
            engine_ms,
            cache_hit: false,
        };
        let figures =
            figures(EngineKind::Coqui, &[trial(110.0, 100.0), trial(300.0, 100.0), trial(105.0, 100.0)]);
        assert_eq!(figures["ratio_p50"].as_f64(), Some(1.1));
    }
}
