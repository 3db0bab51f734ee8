//! `chorus bench batch`: one engine alone, asked for one text at a time and for several at once. What it makes of several
//! (lanes, batches) is its own choice, found when it loads the model; the heartbeats of a worker tell it.

use serde_json::{Value, json};

use super::baseline::BarePipe;
use super::load::{Load, closed};
use super::program::tell;
use super::stats::rounded;
use super::texts;
use crate::app::Context;
use crate::args::BatchArgs;
use crate::commands::embedded::both;
use crate::error::CliError;
use crate::fleet::parts::{self, Need};
use crate::locate::unless_stopped;

/// Texts at once.
const AT_ONCE: [usize; 5] = [1, 2, 4, 8, 16];
/// Texts before those that count.
const WARM_UP: u32 = 5;
/// Characters of each text.
const CHARS: usize = 64;

/// Runs the command.
pub async fn run(context: Context, args: BatchArgs) -> Result<(), CliError> {
    let loads = unless_stopped(&context.shutdown, measure(&context, &args)).await?;
    let figures = figures(&loads);
    let lines = figures["at_once"].as_array().into_iter().flatten().map(|one| {
        let (texts, per_s, ratio, p50) = (&one["texts"], &one["per_s"], &one["ratio"], &one["p50_ms"]);
        format!("{texts} at once: {per_s}/s, {ratio} x one at a time, p50 {p50} ms")
    });
    tell(context.ui, &figures, lines);
    Ok(())
}

async fn measure(context: &Context, args: &BatchArgs) -> Result<Vec<(usize, Load)>, CliError> {
    let (config, environment) = (&context.config, &context.environment);
    let need = Need {
        nats_server: true,
        engine: true,
        voice: parts::needs_demo_voice(config, args.on.model.as_slice()),
    };
    let parts = parts::provide(config, environment, context.ui, need).await?;
    let (engine, _server) = both(parts.engine, parts.nats_server)?;
    let spinner = context.ui.spinner("loading …");
    let pipe = BarePipe::start(context, &engine, args.on.model.as_slice()).await?;
    let mut first = 0;
    let mut loads = Vec::new();
    for clients in [&[1][..], &AT_ONCE].concat() {
        // The first is the warm-up.
        let texts = if first == 0 { WARM_UP } else { args.texts };
        spinner.say(&format!("{clients} at once …"));
        let load =
            closed(clients, texts, |number| pipe.round_trip(texts::of_characters(CHARS, first + number)));
        let load = load.await?;
        if first > 0 {
            loads.push((clients, load));
        }
        first += texts;
    }
    drop(spinner);
    pipe.stop().await;
    Ok(loads)
}

fn figures(loads: &[(usize, Load)]) -> Value {
    let alone = loads.first().map_or(1.0, |(_, load)| load.per_s);
    let at_once: Vec<Value> = loads
        .iter()
        .map(|(texts, load)| {
            json!({
                "texts": texts,
                "per_s": rounded(load.per_s),
                "ratio": rounded(load.per_s / alone.max(1e-9)),
                "p50_ms": rounded(load.latency_ms.median()),
            })
        })
        .collect();
    let best = loads.iter().map(|(_, load)| load.per_s / alone.max(1e-9)).fold(0.0, f64::max);
    json!({"best_ratio": rounded(best), "at_once": at_once})
}

#[cfg(test)]
mod tests {
    use super::super::stats::Sorted;
    use super::*;

    #[test]
    fn ratios_are_to_one_at_a_time() {
        let load = |per_s| Load { latency_ms: Sorted::new([100.0]), per_s };
        let told = figures(&[(1, load(4.0)), (2, load(6.0)), (4, load(5.0))]);
        assert_eq!(told["best_ratio"].as_f64(), Some(1.5));
        assert_eq!(told["at_once"][2]["ratio"].as_f64(), Some(1.25));
    }
}
