//! What a gateway says and does about the fleet behind it: figures, models, news.

use std::time::Duration;

use chorus_protocol::MessageType;
use chorus_protocol::gateway::GatewayEvent;
use chorus_protocol::service::{ModelList, ModelStatus, ServiceMetrics, ServiceStatus};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::lab::Lab;
use super::requests::{NO_MODEL, success};
use crate::conformance::message::Message;
use crate::conformance::report::{Checked, Trouble, not_applicable, unmet};
use crate::conformance::talk::Talk;

/// How soon figures that lag behind are asked for again.
const ASKED_AGAIN: Duration = Duration::from_millis(50);
/// How long news that nobody asked for are waited for.
const UNWANTED: Duration = Duration::from_millis(500);
/// The kind that every gateway tells.
const READY: &str = "fleetReady";
/// A kind that is none.
const NO_KIND: &str = "conformanceNoSuchKind";

/// Asks, and reads the answer as a `T`.
async fn told<T: DeserializeOwned>(
    talk: &mut Talk,
    request: Value,
    expected: &str,
    within: Duration,
) -> Result<T, Trouble> {
    let answer = talk.answer(request, within).await?;
    if answer.failed() {
        return Err(unmet(expected, answer.shown()));
    }
    answer.read().map_err(|why| unmet(expected, format!("{why}: {}", answer.shown())))
}

/// Asks for what is answered by no more than that it was done.
async fn done(talk: &mut Talk, request: Value, within: Duration) -> Result<(), Trouble> {
    told::<Value>(talk, request, "a response", within).await.map(drop)
}

/// Speaks what was not spoken before.
async fn speak_fresh(talk: &mut Talk, request: Value, within: Duration) -> Result<Vec<Message>, Trouble> {
    let asked = talk.ask(request);
    let mut answers = talk.gather(std::slice::from_ref(&asked), within).await?;
    success(answers.by_id.remove(&asked.id).ok_or_else(|| unmet("a result", "none"))?)?;
    Ok(answers.events)
}

/// How the fleet is, in full.
pub(super) async fn status(talk: &mut Talk, within: Duration) -> Checked {
    let asked = json!({"method": "status"});
    told::<ServiceStatus>(talk, asked, "a ServiceStatus", within).await.map(|_status| None)
}

/// The figures are there, can be true, and count what was spoken.
pub(super) async fn metrics(lab: &mut Lab) -> Checked {
    lab.offers("metrics")?;
    let within = lab.patience.answer;
    let talk = lab.talk().await?;
    speak_fresh(talk, json!({"text": "To be counted.", "fresh": true}), within).await?;
    let until = Instant::now() + within;
    loop {
        let asked = json!({"method": "metrics"});
        let figures: ServiceMetrics = told(talk, asked, "ServiceMetrics", within).await?;
        let in_order = figures.p50_ms <= figures.p95_ms && figures.p95_ms <= figures.p99_ms;
        if !in_order {
            let came = format!("{}, {}, {}", figures.p50_ms, figures.p95_ms, figures.p99_ms);
            return Err(unmet("p50Ms at most p95Ms at most p99Ms", came));
        }
        if figures.successes > 0 {
            return Ok(Some(format!("{} successes", figures.successes)));
        }
        if Instant::now() > until {
            return Err(unmet("successes that count what was spoken", "0"));
        }
        tokio::time::sleep(ASKED_AGAIN).await;
    }
}

/// The first model of the catalogue.
async fn first_model(talk: &mut Talk, within: Duration) -> Result<String, Trouble> {
    let list: ModelList = told(talk, json!({"method": "listModels"}), "a ModelList", within).await?;
    let first = list.models.first().ok_or_else(|| not_applicable("there is no model in the catalogue"))?;
    Ok(first.name.to_string())
}

/// Asks for what cannot be. By which code it is refused is for another check.
async fn refused(talk: &mut Talk, request: Value, within: Duration) -> Result<(), Trouble> {
    let asked = request.to_string();
    let answer = talk.answer(request, within).await?;
    if answer.failed() {
        Ok(())
    } else {
        Err(unmet(format!("an error in answer to {asked}"), answer.shown()))
    }
}

/// A model is loaded by its name; a request that names none is refused.
pub(super) async fn load_model(lab: &mut Lab) -> Checked {
    lab.offers("loadModel")?;
    lab.offers("listModels")?;
    let within = lab.patience.answer;
    let talk = lab.talk().await?;
    let name = first_model(talk, within).await?;
    let load = json!({"method": "loadModel", "model": name});
    let status: ModelStatus = told(talk, load, "a ModelStatus", within).await?;
    if status.name.as_str() != name {
        return Err(unmet(format!("the ModelStatus of {name}"), format!("that of {}", status.name)));
    }
    refused(talk, json!({"method": "loadModel"}), within).await?;
    Ok(Some(name))
}

/// A model that is unloaded can be loaded and spoken again; one that nobody has cannot be unloaded.
pub(super) async fn unload_model(lab: &mut Lab) -> Checked {
    for method in ["unloadModel", "loadModel", "listModels"] {
        lab.offers(method)?;
    }
    let (start, within) = (lab.patience.start, lab.patience.answer);
    let talk = lab.talk().await?;
    refused(talk, json!({"method": "unloadModel", "model": NO_MODEL}), within).await?;
    let name = first_model(talk, within).await?;
    done(talk, json!({"method": "unloadModel", "model": name}), within).await?;
    done(talk, json!({"method": "loadModel", "model": name}), within).await?;
    speak_fresh(talk, json!({"text": "Here again.", "model": name, "fresh": true}), start).await?;
    Ok(Some(name))
}

/// The kind of an event of the fleet.
fn kind(event: &Message) -> Result<Option<String>, Trouble> {
    if event.kind != MessageType::Event {
        return Ok(None);
    }
    match event.read::<GatewayEvent>() {
        Ok(GatewayEvent::Fleet(_)) => {
            Ok(event.fields().get("kind").and_then(Value::as_str).map(str::to_owned))
        }
        Ok(_) => Ok(None),
        Err(why) => Err(unmet("an event of the fleet", format!("{why}: {}", event.shown()))),
    }
}

/// Of which kind the next event of the fleet is.
async fn next_kind(talk: &mut Talk, until: Instant) -> Result<Option<String>, Trouble> {
    while let Some(message) = talk.next(until).await? {
        if let Some(kind) = kind(&message)? {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// That the fleet is ready is told to who wants it, and nothing to who wants something else.
pub(super) async fn subscribe(lab: &mut Lab) -> Checked {
    lab.offers("subscribe")?;
    let within = lab.patience.answer;
    let talk = lab.talk().await?;
    done(talk, json!({"method": "subscribe", "events": [READY]}), within).await?;
    match next_kind(talk, Instant::now() + within).await? {
        Some(kind) if kind == READY => {}
        Some(kind) => return Err(unmet(format!("the event {READY}, which was asked for"), kind)),
        None => return Err(talk.silent(&format!("the event {READY}"), within)),
    }
    done(talk, json!({"method": "subscribe", "events": [NO_KIND]}), within).await?;
    let spoken = json!({"text": "Nobody is told.", "fresh": true});
    let mut unwanted = Vec::new();
    for event in speak_fresh(talk, spoken, within).await? {
        unwanted.extend(kind(&event)?);
    }
    unwanted.extend(next_kind(talk, Instant::now() + UNWANTED).await?);
    if let Some(kind) = unwanted.first() {
        return Err(unmet("no event of a kind that was not asked for", kind.as_str()));
    }
    done(talk, json!({"method": "unsubscribe"}), within).await?;
    Ok(None)
}
