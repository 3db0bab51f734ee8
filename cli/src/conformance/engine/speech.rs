//! What an engine speaks, and how it answers when it is asked for several things.

use std::path::{Path, PathBuf};
use std::time::Instant;

use chorus_audio::checksum::crc32;
use chorus_audio::pcm;
use chorus_protocol::adapt;
use chorus_protocol::adapt::engine::{self, Question, Spoken};
use chorus_protocol::pipe::{EngineEvent, EngineRequest, EngineSpeech, SpokenAnswer, UnloadAnswer};
use chorus_protocol::{MessageId, Reason};
use chorus_worker::engine::Liveness;
use chorus_worker::engine::legacy::audio::{self, Take};
use serde_json::{Map, Value, json};

use super::faults::declared;
use super::lab::Lab;
use crate::conformance::common::{CANCEL_WITHIN, audible, typed};
use crate::conformance::message::{Dialect, Message};
use crate::conformance::report::{Checked, Trouble, not_applicable, unmet};
use crate::conformance::talk::{Answers, Open};

/// Requests that are sent at once.
const AT_ONCE: usize = 8;
/// Characters of the text that is given up half-way.
const LONG_TEXT_CHARS: usize = 1_000;
/// The longest line that a script's question may be.
const MAX_QUESTION_BYTES: usize = 1 << 20;

/// A request to speak.
struct Asked {
    open: Open,
    /// Where an engine of lines puts the audio.
    path: PathBuf,
}

async fn ask(lab: &mut Lab, text: &str, more: &Map<String, Value>) -> Result<Asked, Trouble> {
    let (path, model) = (lab.file(), lab.definition()?.name.to_string());
    let talk = lab.talk().await?;
    let mut payload = question(talk.dialect, model, text, &path);
    payload.extend(more.clone());
    let id = talk.fresh_id();
    talk.ask_as(&id, Value::Object(payload), more);
    Ok(Asked { open: Open { id, optional: false }, path })
}

/// A request to speak as a worker would make it.
fn question(dialect: Dialect, model: String, text: &str, path: &Path) -> Map<String, Value> {
    let speech = EngineSpeech::plain(model, text);
    if dialect == Dialect::Frames {
        return json!(EngineRequest::Synthesize(Box::new(speech))).as_object().cloned().unwrap_or_default();
    }
    let question = Question::Speak(Box::new(speech), path.display().to_string());
    let line = engine::write(&question, Spoken::V1, &MessageId::fresh(), 0).unwrap_or_default();
    let mut fields = adapt::fields(&line, MAX_QUESTION_BYTES).unwrap_or_default();
    fields.remove("type");
    if dialect == Dialect::Lines {
        fields.insert("method".into(), "synthesize".into());
    }
    fields
}

fn answer_of(answers: &mut Answers, asked: &Asked) -> Result<Message, Trouble> {
    let message = answers.by_id.remove(&asked.open.id);
    let message = message.ok_or_else(|| unmet("an answer to synthesize", "none"))?;
    if message.failed() {
        return Err(unmet("a response to synthesize", message.shown()));
    }
    Ok(message)
}

/// A text becomes whole, audible audio.
pub(super) async fn synthesis(lab: &mut Lab) -> Checked {
    let (text, within) = (lab.text.clone(), lab.patience.answer);
    let asked = ask(lab, &text, &Map::new()).await?;
    let talk = lab.talk().await?;
    let mut answers = talk.gather(std::slice::from_ref(&asked.open), within).await?;
    let dialect = talk.dialect;
    let answer = answer_of(&mut answers, &asked)?;
    let take = if dialect == Dialect::Frames {
        let rate = lab.loaded.as_ref().map(|loaded| loaded.sample_rate);
        whole(&answers.events, &asked.open.id, &answer, rate)?
    } else {
        let take = audio::take(&answer.fields(), &asked.path).await;
        take.map_err(|error| unmet("a WAV file at outputPath", format!("{error}: {}", answer.shown())))?
    };
    audible(&take.samples, take.sample_rate)
}

/// The pieces and the answer put together, every figure checked.
fn whole(events: &[Message], id: &MessageId, answer: &Message, rate: Option<u32>) -> Result<Take, Trouble> {
    let spoken: SpokenAnswer = answer
        .read()
        .map_err(|why| unmet("seq, data, chunks, samples, sampleRate, crc32 and engineMs", why))?;
    let mut bytes = Vec::new();
    let mut next = 0;
    for event in events.iter().filter(|event| event.to.as_ref().is_none_or(|to| to == id)) {
        if let Ok(EngineEvent::Chunk { seq, data }) = event.read() {
            if seq != next {
                return Err(unmet(format!("piece {next}"), format!("piece {seq}")));
            }
            next += 1;
            bytes.extend_from_slice(&data.0);
        }
    }
    bytes.extend_from_slice(&spoken.data.0);
    let samples =
        pcm::from_bytes(&bytes).ok_or_else(|| unmet("whole samples of two bytes", "an odd number"))?;
    let figures = [
        ("seq of the last piece", u64::from(next), u64::from(spoken.seq)),
        ("chunks", u64::from(next) + 1, u64::from(spoken.chunks)),
        ("samples", samples.len() as u64, spoken.samples),
        ("crc32", u64::from(crc32(&bytes)), u64::from(spoken.crc32)),
        ("sampleRate", u64::from(rate.unwrap_or(spoken.sample_rate)), u64::from(spoken.sample_rate)),
    ];
    for (name, expected, came) in figures {
        if expected != came {
            return Err(unmet(format!("{name} {expected}"), came.to_string()));
        }
    }
    Ok(Take { samples, sample_rate: spoken.sample_rate })
}

/// A worker takes an engine that is silent for long for dead.
pub(super) async fn liveness(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    let Liveness { ping_every, busy_silence: limit, .. } = Liveness::default();
    if lab.talk().await?.dialect != Dialect::Frames {
        return Err(not_applicable("an engine of lines says nothing until it has spoken"));
    }
    let text = long_text(lab);
    let asked = ask(lab, &text, &Map::new()).await?;
    let silence = lab.talk().await?.silence_before(&asked.open, ping_every, within).await?;
    if silence > limit {
        let came = format!("none for {} ms, though pinged", silence.as_millis());
        return Err(unmet(format!("a frame at least every {} ms", limit.as_millis()), came));
    }
    Ok(Some(format!("{} ms was the longest silence", silence.as_millis())))
}

/// Fields that no version has, in the payload and around it.
pub(super) async fn unknown_fields(lab: &mut Lab) -> Checked {
    let (text, within) = (lab.text.clone(), lab.patience.answer);
    let more = json!({"conformanceUnknown": {"deep": [1, "two", null]}, "futureFlag": true});
    let asked = ask(lab, &text, more.as_object().unwrap_or(&Map::new())).await?;
    let mut answers = lab.talk().await?.gather(std::slice::from_ref(&asked.open), within).await?;
    answer_of(&mut answers, &asked)?;
    Ok(None)
}

/// Pings and texts at once; every answer fits its own request.
pub(super) async fn in_flight(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    let (mut texts, mut pings, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..AT_ONCE / 2 {
        let asked = ask(lab, &format!("Number {number}."), &Map::new()).await?;
        let ping = lab.talk().await?.ask(json!({"method": "ping"}));
        all.extend([asked.open.clone(), ping.clone()]);
        texts.push(asked);
        pings.push(ping);
    }
    let talk = lab.talk().await?;
    let mut answers = talk.gather(&all, within).await?;
    let dialect = talk.dialect;
    for (ping, asked) in pings.iter().zip(&texts) {
        let pong = answers.by_id.remove(&ping.id).ok_or_else(|| unmet("an answer to each ping", "none"))?;
        if speaks(&pong) || pong.failed() {
            return Err(unmet("the answer to a ping under the ping's id", pong.shown()));
        }
        let spoken = answer_of(&mut answers, asked)?;
        fits(dialect, &spoken, asked)?;
    }
    // What comes twice has come by now.
    lab.talk().await?.alive(within).await?;
    Ok(None)
}

/// Whether an answer is about audio.
fn speaks(answer: &Message) -> bool {
    answer.read::<SpokenAnswer>().is_ok() || answer.fields().contains_key("outputPath")
}

fn fits(dialect: Dialect, spoken: &Message, asked: &Asked) -> Result<(), Trouble> {
    if dialect == Dialect::Frames {
        let read = spoken.read::<SpokenAnswer>().map(|_whole| ());
        return read.map_err(|_why| unmet("what was spoken under its request's id", spoken.shown()));
    }
    let path = asked.path.display().to_string();
    match spoken.fields().get("outputPath").and_then(Value::as_str) {
        Some(named) if named != path => {
            Err(unmet(format!("the answer about {path} in answer to its request"), spoken.shown()))
        }
        None if !asked.path.exists() => Err(unmet("an answer with audio or a file", spoken.shown())),
        _ => Ok(()),
    }
}

/// A model is unloaded; it speaks no more, until it is loaded again.
pub(super) async fn unload(lab: &mut Lab) -> Checked {
    let within = lab.patience.answer;
    if lab.talk().await?.dialect != Dialect::Frames {
        return Err(not_applicable("an engine of lines keeps the model that it brings"));
    }
    let model = lab.definition()?.name.to_string();
    let unload = json!(EngineRequest::Unload { model });
    let talk = lab.talk().await?;
    let answer = talk.answer(unload.clone(), within).await?;
    if answer.failed() {
        return Err(unmet("a response to unload", answer.shown()));
    }
    answer.read::<UnloadAnswer>().map_err(|why| unmet("an UnloadAnswer", why))?;
    let gone = ask(lab, "Nobody says this.", &Map::new()).await?;
    let talk = lab.talk().await?;
    let mut answers = talk.gather(std::slice::from_ref(&gone.open), within).await?;
    let refused = answers.by_id.remove(&gone.open.id);
    typed(&refused.ok_or_else(|| unmet("an error", "none"))?, talk.dialect, Reason::UnknownModel)?;
    let twice = talk.answer(unload, within).await?;
    typed(&twice, talk.dialect, Reason::UnknownModel)?;
    lab.load().await?;
    let again = ask(lab, "Here again.", &Map::new()).await?;
    let mut answers = lab.talk().await?.gather(std::slice::from_ref(&again.open), within).await?;
    answer_of(&mut answers, &again)?;
    Ok(None)
}

/// As long a text as the model takes, within bounds.
fn long_text(lab: &Lab) -> String {
    let most = lab.loaded.as_ref().and_then(|loaded| loaded.max_text_chars);
    let most = most.map_or(LONG_TEXT_CHARS, |chars| LONG_TEXT_CHARS.min(chars as usize));
    let text = format!("{} ", lab.text);
    let long: String = text.chars().cycle().take(most.max(lab.text.chars().count())).collect();
    long.trim_end().to_owned()
}

/// A long text is given up; it ends soon, spoken or with the error of those that are.
pub(super) async fn cancel(lab: &mut Lab) -> Checked {
    lab.talk().await?;
    declared(lab)?;
    let text = long_text(lab);
    let asked = ask(lab, &text, &Map::new()).await?;
    let talk = lab.talk().await?;
    let began = Instant::now();
    let cancel = talk.ask(json!({"method": "cancel", "messageId": asked.open.id}));
    let both = [asked.open.clone(), cancel.clone()];
    let mut answers = talk.gather(&both, CANCEL_WITHIN).await?;
    if began.elapsed() > CANCEL_WITHIN {
        let came = format!("after {} ms", began.elapsed().as_millis());
        return Err(unmet(format!("the end of what is given up within {} s", CANCEL_WITHIN.as_secs()), came));
    }
    if let Some(answer) = answers.by_id.remove(&cancel.id).filter(Message::failed) {
        return Err(unmet("a response to cancel", answer.shown()));
    }
    let ended = answers.by_id.remove(&asked.open.id).filter(Message::failed);
    let remark = match ended.map(|ended| (ended.error(), ended.shown())) {
        None => "it was spoken before it could be given up",
        Some((Some(error), _)) if error.reason() == Some(Reason::Cancelled) => "ended as cancelled",
        Some((_, shown)) => return Err(unmet("details.reason cancelled", shown)),
    };
    talk.alive(CANCEL_WITHIN).await?;
    Ok(Some(format!("{remark}, {} ms", began.elapsed().as_millis())))
}
