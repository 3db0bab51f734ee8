//! `chorus bench tts-server`: the fleet against Coqui's own server, on the same voice and machine, turn by turn.
//!
//! Two comparisons. One client, texts of 12 and of 64 characters: the median time to the whole audio. Ten clients, 64
//! characters: requests per second and the 95th percentile. Both sides are up all the time; only one is asked at a time, and
//! they take turns, so that a machine that grows slow grows slow for both.

use chorus_client::SessionHost;
use serde_json::{Value, json};

use super::load::{Load, closed};
use super::peer::TtsServer;
use super::program::{Client, in_fleet, tell};
use super::stats::{Sorted, rounded};
use super::texts;
use super::trial::speak_timed;
use crate::app::Context;
use crate::args::TtsServerArgs;
use crate::commands::embedded::Embedded;
use crate::error::CliError;

/// Requests to each side before those that count.
const WARM_UP: u32 = 3;
/// The lengths that a single client asks for, in characters.
const SHORT: usize = 12;
const LONG: usize = 64;
/// Clients at once.
const CLIENTS: usize = 10;

/// What was found.
struct Found {
    single: [Pair; 2],
    /// Each side's rounds with ten clients.
    rounds: Vec<(Load, Load)>,
}

/// One client's times, in milliseconds.
#[derive(Debug, Default, Clone)]
struct Pair {
    fleet: Vec<f64>,
    peer: Vec<f64>,
}

/// Runs the command.
pub async fn run(context: Context, args: TtsServerArgs) -> Result<(), CliError> {
    let measuring = async |embedded: &mut Embedded| measure(&context, embedded, &args).await;
    let found = in_fleet(&context, Embedded::new(), measuring).await?;
    let figures = figures(&found);
    let single = [SHORT, LONG].map(|chars| {
        let at = &figures["single"][chars.to_string()];
        let (fleet, peer, ratio) = (&at["fleet_p50_ms"], &at["tts_server_p50_ms"], &at["p50_ratio"]);
        format!("1 client, {chars} characters: {fleet} ms, tts-server {peer} ms, ratio {ratio}")
    });
    let many = &figures["clients_10"];
    let many = format!(
        "10 clients, {LONG} characters: {}/s and p95 {} ms, tts-server {}/s and {} ms, ratios {} and {}",
        many["fleet_per_s"],
        many["fleet_p95_ms"],
        many["tts_server_per_s"],
        many["tts_server_p95_ms"],
        figures["throughput_ratio"],
        figures["p95_ratio"]
    );
    tell(context.ui, &figures, single.into_iter().chain([many]));
    Ok(())
}

async fn measure(
    context: &Context,
    embedded: &mut Embedded,
    args: &TtsServerArgs,
) -> Result<Found, CliError> {
    let client = Client::start(context, embedded, &[]).await?;
    let spinner = context.ui.spinner("starting tts-server …");
    let peer = TtsServer::start(context).await?;
    let mut found = Found { single: [Pair::default(), Pair::default()], rounds: Vec::new() };
    let mut number = 0;
    for run in 0..WARM_UP + args.runs {
        spinner.say(&format!("one client, {run} of {} …", WARM_UP + args.runs));
        for (pair, chars) in found.single.iter_mut().zip([SHORT, LONG]) {
            // Another text for each side: neither may remember what the other said.
            let (ours, theirs) =
                (texts::of_characters(chars, number), texts::of_characters(chars, number + 1));
            number += 2;
            let fleet = speak_timed(&client.host, ours).await?.total_ms;
            let server = peer.speak(&theirs).await?;
            if run >= WARM_UP {
                pair.fleet.push(fleet);
                pair.peer.push(server);
            }
        }
    }
    for round in 0..args.rounds {
        spinner.say(&format!("ten clients, round {} of {} …", round + 1, args.rounds));
        let ours = closed(CLIENTS, args.requests, |n| fleet(&client.host, number + n)).await?;
        number += args.requests;
        let theirs = closed(CLIENTS, args.requests, async |n| {
            peer.speak(&texts::of_characters(LONG, number + n)).await
        })
        .await?;
        number += args.requests;
        found.rounds.push((ours, theirs));
    }
    drop(spinner);
    peer.stop().await;
    client.stop().await;
    Ok(found)
}

async fn fleet(host: &SessionHost, number: u32) -> Result<f64, CliError> {
    Ok(speak_timed(host, texts::of_characters(LONG, number)).await?.total_ms)
}

fn figures(found: &Found) -> Value {
    let single = |pair: &Pair| {
        let (fleet, peer) =
            (Sorted::new(pair.fleet.clone()).median(), Sorted::new(pair.peer.clone()).median());
        json!({
            "fleet_p50_ms": rounded(fleet),
            "tts_server_p50_ms": rounded(peer),
            "p50_ratio": rounded(fleet / peer.max(0.001)),
        })
    };
    let [short, long] = &found.single;
    let (short, long) = (single(short), single(long));
    let median =
        |figure: &dyn Fn(&(Load, Load)) -> f64| Sorted::new(found.rounds.iter().map(figure)).median();
    let p95 = |load: &Load| load.latency_ms.percentile(95.0);
    let worst = [&short, &long].map(|one| one["p50_ratio"].as_f64().unwrap_or(f64::NAN));
    json!({
        "throughput_ratio": rounded(median(&|(ours, theirs)| ours.per_s / theirs.per_s)),
        "p95_ratio": rounded(median(&|(ours, theirs)| p95(ours) / p95(theirs))),
        "single_p50_ratio": Sorted::new(worst).percentile(100.0),
        "single": { (SHORT.to_string()): short, (LONG.to_string()): long },
        "clients_10": {
            "rounds": found.rounds.len(),
            "fleet_per_s": rounded(median(&|(ours, _)| ours.per_s)),
            "fleet_p95_ms": rounded(median(&|(ours, _)| p95(ours))),
            "tts_server_per_s": rounded(median(&|(_, theirs)| theirs.per_s)),
            "tts_server_p95_ms": rounded(median(&|(_, theirs)| p95(theirs))),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_ours_to_theirs() {
        let load = |ms: f64, per_s| Load { latency_ms: Sorted::new([ms]), per_s };
        let pair = |fleet, peer| Pair { fleet: vec![fleet], peer: vec![peer] };
        let found = Found {
            single: [pair(50.0, 100.0), pair(90.0, 300.0)],
            rounds: vec![(load(400.0, 6.0), load(1000.0, 2.0))],
        };
        let figures = figures(&found);
        assert_eq!(figures["throughput_ratio"].as_f64(), Some(3.0));
        assert_eq!(figures["p95_ratio"].as_f64(), Some(0.4));
        assert_eq!(figures["single_p50_ratio"].as_f64(), Some(0.5), "the worse of the two");
        assert_eq!(figures["single"]["64"]["p50_ratio"].as_f64(), Some(0.3));
    }
}
