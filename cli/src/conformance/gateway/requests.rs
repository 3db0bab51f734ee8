//! Requests and their answers: right ones, wrong ones, too large ones, many at once.

use chorus_protocol::gateway::MAX_REQUEST_BYTES;
use chorus_protocol::{Reason, ServiceError, SynthesisResult};
use chorus_worker::engine::legacy::audio;
use serde_json::{Map, Value, json};

use super::lab::Lab;
use crate::conformance::common::{audible, oversized_frame, typed};
use crate::conformance::message::{Dialect, Message};
use crate::conformance::report::{Checked, Trouble, unmet};
use crate::conformance::talk::Open;

/// A model that nobody has.
pub(super) const NO_MODEL: &str = "conformance/no-such-model";

/// A response that says that it went well.
pub(super) fn success(answer: Message) -> Result<Message, Trouble> {
    if answer.failed() { Err(unmet("a result that says success", answer.shown())) } else { Ok(answer) }
}

/// A text becomes audio: inside the result, or in 1.0 in a file.
pub(super) async fn synthesis(lab: &mut Lab) -> Checked {
    let (text, within) = (lab.text.clone(), lab.patience.answer);
    if lab.dialect()? == Dialect::Bare {
        let request = lab.request(&text);
        success(lab.talk().await?.answer(request, within).await?)?;
        return Ok(None);
    }
    let talk = lab.talk().await?;
    let asked = talk.ask(json!({"text": text}));
    let mut answers = talk.gather(std::slice::from_ref(&asked), within).await?;
    let answer = answers.by_id.remove(&asked.id).ok_or_else(|| unmet("a result", "none"))?;
    let answer = success(answer)?;
    let result: SynthesisResult =
        answer.read().map_err(|why| unmet("a SynthesisResult", format!("{why}: {}", answer.shown())))?;
    if result.request_id != asked.id {
        return Err(unmet(format!("requestId {}", asked.id), result.request_id.to_string()));
    }
    let data = result.audio.and_then(|audio| audio.data);
    let data = data.ok_or_else(|| unmet("audio.data in the result", answer.shown()))?;
    let take = audio::read(&data.0).map_err(|error| unmet("a WAV file in audio.data", error.message))?;
    audible(&take.samples, take.sample_rate)
}

/// Fields that no version has, in the payload and around it.
pub(super) async fn unknown_fields(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    let more = json!({"conformanceUnknown": {"deep": [1, "two", null]}, "futureFlag": true});
    let more = more.as_object().cloned().unwrap_or_default();
    let mut request = lab.request("One.").as_object().cloned().unwrap_or_default();
    request.extend(more.clone());
    let talk = lab.talk().await?;
    let id = talk.fresh_id();
    talk.ask_as(&id, Value::Object(request), &more);
    let open = Open { id: id.clone(), optional: false };
    let mut answers = talk.gather(&[open], within).await?;
    success(answers.by_id.remove(&id).ok_or_else(|| unmet("a result", "none"))?)?;
    Ok(None)
}

/// Requests that cannot be served, each in its own way.
pub(super) async fn typed_errors(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    let empty = (json!({"text": ""}), Reason::Malformed, None);
    let wrong = (json!({"text": "One.", "speed": "fast"}), Reason::Malformed, Some("speed"));
    let unknown = (json!({"text": "One.", "model": NO_MODEL}), Reason::UnknownModel, None);
    let talk = lab.talk().await?;
    let cases = if talk.dialect == Dialect::Bare { vec![empty] } else { vec![empty, wrong, unknown] };
    for (request, reason, field) in cases {
        let asked = request.to_string();
        let answer = talk.answer(request, within).await?;
        let about = |trouble| match trouble {
            Trouble::Unmet { expected, came } => unmet(format!("{expected} in answer to {asked}"), came),
            other => other,
        };
        typed(&answer, talk.dialect, reason).map_err(about)?;
        let Some(error) = answer.error().filter(|_| talk.dialect != Dialect::Bare) else { continue };
        judged(&error, field).map_err(|expected| about(unmet(expected, answer.shown())))?;
    }
    Ok(None)
}

/// What an error must say besides its code.
fn judged(error: &ServiceError, field: Option<&str>) -> Result<(), String> {
    if error.retryable {
        return Err("retryable false".to_owned());
    }
    let named = error.details.as_ref().and_then(|details| details.get("field")?.as_str());
    match field {
        Some(field) if named != Some(field) => Err(format!("details.field {field}")),
        _ => Ok(()),
    }
}

/// A message beyond the limit.
pub(super) async fn oversized(lab: &mut Lab) -> Checked {
    let (within, end) = (lab.patience.answer, lab.patience.end);
    let limit = lab.hello.as_ref().map_or(MAX_REQUEST_BYTES, |hello| hello.limits.message_bytes);
    if lab.dialect()? == Dialect::Frames {
        let mut talk = lab.take_talk().await?;
        let checked = oversized_frame(&mut talk, limit, end).await;
        talk.wire.stop().await;
        return checked;
    }
    let talk = lab.talk().await?;
    let long = json!({"method": "ping", "padding": "x".repeat(limit)});
    // In 1.0 everything is answered, in order; an envelope that was not read has no id.
    let line = Open { optional: talk.dialect != Dialect::Bare, ..talk.ask(long) };
    let ping = talk.ask(json!({"method": "ping"}));
    let (id, bare) = (line.id.clone(), talk.dialect == Dialect::Bare);
    let answers = talk.gather(&[line, ping], within).await?;
    let refused = answers.nameless.iter().chain(answers.by_id.get(&id)).any(Message::failed);
    if refused || bare { Ok(None) } else { Err(unmet("an error (too_large)", "none")) }
}

/// Many at once: in 1.0 answered in order, in newer versions by their ids.
pub(super) async fn in_flight(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    let limit = lab.hello.as_ref().map_or(usize::MAX, |hello| hello.limits.in_flight);
    let count = (lab.at_once as usize).min(limit);
    let requests: Vec<Value> = (0..count).map(|number| lab.request(&format!("Number {number}."))).collect();
    let talk = lab.talk().await?;
    let open: Vec<Open> = requests.iter().map(|request| talk.ask(request.clone())).collect();
    let mut answers = talk.gather(&open, within).await?;
    for (asked, request) in open.iter().zip(&requests) {
        let answer =
            answers.by_id.remove(&asked.id).ok_or_else(|| unmet("every answer", "one is missing"))?;
        let answer = success(answer)?;
        let fields: Map<String, Value> = answer.fields();
        if fields.get("outputPath") != request.get("outputPath") {
            let expected = format!("the answer about {} in its place", request["outputPath"]);
            return Err(unmet(expected, answer.shown()));
        }
    }
    // What comes twice has come by now.
    talk.alive(within).await?;
    Ok(Some(format!("{count} at once")))
}
