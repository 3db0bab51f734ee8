//! `chorus bench cache`: the same words again. Each text is asked for until its take is stored; then it comes from the
//! broker's store once, and from this process' memory after that.

use std::time::Duration;

use chorus_client::SessionHost;
use serde_json::{Value, json};

use super::load::closed;
use super::program::{Client, in_fleet, tell};
use super::stats::{Sorted, rounded};
use super::texts;
use super::trial::{Trial, speak_timed};
use crate::app::Context;
use crate::args::CacheBenchArgs;
use crate::commands::embedded::Embedded;
use crate::error::CliError;

/// Texts before those that count.
const WARM_UP: u32 = 3;
/// Characters of each text.
const CHARS: usize = 64;
/// Clients at once, for the rate of hits.
const CLIENTS: usize = 10;
/// Hits that they ask for together.
const HITS: u32 = 2_000;
/// A take is stored off the way of the first answer; it is asked for again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// It is not asked for more often.
const ASKED_AT_MOST: u32 = 250;

/// One text, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Heard {
    spoken: f64,
    from_store: f64,
    from_memory: f64,
}

/// Runs the command.
pub async fn run(context: Context, args: CacheBenchArgs) -> Result<(), CliError> {
    let measuring = async |embedded: &mut Embedded| measure(&context, embedded, &args).await;
    let (heard, hits_per_s) = in_fleet(&context, Embedded::new().with_cache(), measuring).await?;
    let figures = figures(&heard, hits_per_s);
    let line = format!(
        "spoken {} ms, from the store {} ms, from memory {} ms (medians of {}), {} hits/s at {CLIENTS} clients",
        figures["spoken_p50_ms"],
        figures["from_store_p50_ms"],
        figures["from_memory_p50_ms"],
        figures["texts"],
        figures["hits_per_s"]
    );
    tell(context.ui, &figures, [line]);
    Ok(())
}

async fn measure(
    context: &Context,
    embedded: &mut Embedded,
    args: &CacheBenchArgs,
) -> Result<(Vec<Heard>, f64), CliError> {
    // Who speaks is another process than who hears, as far as memory goes.
    let first = Client::start(context, embedded, args.on.model.as_slice()).await?;
    let second = Client::of(context, embedded.connect("chorus-bench-second").await?).await?;
    let spinner = context.ui.spinner("warming up …");
    let mut heard = Vec::new();
    for number in 0..WARM_UP + args.texts {
        let spoken = ask(&first.host, number).await?.total_ms;
        stored(&first.host, number).await?;
        let (from_store, from_memory) = (hit(&second.host, number).await?, hit(&second.host, number).await?);
        if number >= WARM_UP {
            heard.push(Heard { spoken, from_store, from_memory });
            spinner.say(&format!("{} of {} …", heard.len(), args.texts));
        }
    }
    let load = closed(CLIENTS, HITS, |number| hit(&second.host, number % (WARM_UP + args.texts))).await?;
    drop(spinner);
    first.stop().await;
    second.stop().await;
    Ok((heard, load.per_s))
}

async fn ask(host: &SessionHost, number: u32) -> Result<Trial, CliError> {
    speak_timed(host, texts::of_characters(CHARS, number)).await
}

async fn stored(host: &SessionHost, number: u32) -> Result<(), CliError> {
    for _ in 0..ASKED_AT_MOST {
        if ask(host, number).await?.cache_hit {
            return Ok(());
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Err(CliError::Fleet { part: "cache", why: "a take was not stored".into() })
}

async fn hit(host: &SessionHost, number: u32) -> Result<f64, CliError> {
    let trial = ask(host, number).await?;
    if !trial.cache_hit {
        return Err(CliError::Fleet { part: "cache", why: "a stored take was spoken again".into() });
    }
    Ok(trial.total_ms)
}

fn figures(heard: &[Heard], hits_per_s: f64) -> Value {
    let median = |figure: fn(&Heard) -> f64| rounded(Sorted::new(heard.iter().map(figure)).median());
    json!({
        "hit_ratio": median(|one| one.from_memory / one.spoken),
        "spoken_p50_ms": median(|one| one.spoken),
        "from_store_p50_ms": median(|one| one.from_store),
        "from_memory_p50_ms": median(|one| one.from_memory),
        "hits_per_s": rounded(hits_per_s),
        "texts": heard.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_hits_to_what_was_spoken() {
        let told = figures(&[Heard { spoken: 200.0, from_store: 8.0, from_memory: 2.0 }], 900.0);
        assert_eq!((told["hit_ratio"].as_f64(), told["from_store_p50_ms"].as_f64()), (Some(0.01), Some(8.0)));
    }
}
