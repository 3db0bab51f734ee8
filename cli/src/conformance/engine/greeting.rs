//! Which version does it speak? Asked in frames first, then in lines, as a worker would ask.

use std::time::Duration;

use chorus_protocol::adapt::engine::{self, Question, Spoken};
use chorus_protocol::pipe::{EngineRequest, HelloAnswer};
use chorus_protocol::version::{ACCEPT, V2_0, V2_1};
use chorus_protocol::{MessageId, MessageType};
use serde_json::json;
use tokio::time::Instant;

use super::lab::Lab;
use crate::conformance::common::{UNSPOKEN, refused_version};
use crate::conformance::message::{Dialect, Message};
use crate::conformance::report::{Checked, Trouble, not_applicable, unmet};
use crate::conformance::talk::Talk;

/// Who asks.
const ASKER: &str = "conformance";
/// A script that does not answer `hello` for so long is asked as one of 1.0, too.
const PROBE: Duration = Duration::from_secs(5);
/// After both questions, how long the second answer is waited for.
const SETTLE: Duration = Duration::from_millis(300);

/// An engine that has said who it is.
pub(super) struct Greeted {
    pub(super) talk: Talk,
    /// What 1.0 has no words for.
    pub(super) hello: Option<HelloAnswer>,
    pub(super) remark: Option<String>,
}

/// Starts the engine and greets it in the version that is known, or finds that out.
pub(super) async fn greet(lab: &Lab) -> Result<Greeted, Trouble> {
    match lab.dialect {
        Some(Dialect::Frames) => in_frames(lab).await.map_err(|(trouble, _)| trouble),
        Some(dialect) => in_lines(lab, Some(dialect)).await,
        None => {
            let (in_frames, spoke) = match in_frames(lab).await {
                Ok(greeted) => return Ok(greeted),
                Err(failed) => failed,
            };
            if spoke {
                return Err(in_frames);
            }
            match in_lines(lab, None).await {
                Err(Trouble::Unmet { expected, came }) => {
                    let before = match in_frames {
                        Trouble::Unmet { came, .. } | Trouble::NotApplicable(came) => came,
                    };
                    Err(unmet(expected, format!("asked in frames: {before}; asked in lines: {came}")))
                }
                answered => answered,
            }
        }
    }
}

fn start(lab: &Lab, framed: bool) -> Result<Talk, Trouble> {
    Talk::start(&lab.program, if framed { Dialect::Frames } else { Dialect::Lines }, lab.seen.clone())
}

fn hello(range: &str) -> serde_json::Value {
    json!(EngineRequest::Hello { accept: range.to_owned(), worker: ASKER.to_owned() })
}

/// Greets in frames; where that fails, whether the engine has said anything in them.
async fn in_frames(lab: &Lab) -> Result<Greeted, (Trouble, bool)> {
    let mut talk = start(lab, true).map_err(|trouble| (trouble, false))?;
    let answer = match talk.answer(hello(ACCEPT), lab.patience.start).await {
        Ok(answer) => answer,
        Err(trouble) => {
            let spoke = matches!(trouble, Trouble::NotApplicable(_)) || talk.heard_any();
            talk.wire.stop().await;
            return Err((trouble, spoke));
        }
    };
    match introduced(&answer) {
        Ok(hello) if hello.version.major == V2_1.major && hello.version >= V2_1 => {
            Ok(Greeted { talk, hello: Some(hello), remark: None })
        }
        Ok(hello) => {
            talk.wire.stop().await;
            let expected = format!("in frames, a version of {ACCEPT} that is at least {V2_1}");
            Err((unmet(expected, hello.version.to_string()), true))
        }
        Err(why) => {
            talk.wire.stop().await;
            let expected = "version, engine, pid, device and capabilities with at least one lane";
            Err((unmet(expected, why), true))
        }
    }
}

fn introduced(answer: &Message) -> Result<HelloAnswer, String> {
    if answer.kind != MessageType::Response {
        return Err(answer.shown());
    }
    let hello: HelloAnswer = answer.read().map_err(|why| format!("{why}: {}", answer.shown()))?;
    if hello.capabilities.lanes == 0 {
        return Err(format!("no lanes: {}", answer.shown()));
    }
    Ok(hello)
}

/// Greets in lines, in both versions unless one is asked for.
async fn in_lines(lab: &Lab, only: Option<Dialect>) -> Result<Greeted, Trouble> {
    let mut talk = start(lab, false)?;
    let now = Instant::now();
    let (probe_at, until) = (now + PROBE, now + lab.patience.start);
    let mut asked_bare = only == Some(Dialect::Bare);
    if asked_bare {
        send(&talk, &Question::Ping, Spoken::V1);
    } else {
        send(&talk, &Question::Hello { worker: ASKER.into() }, Spoken::V2);
    }
    loop {
        let wait_until = if asked_bare || only.is_some() { until } else { probe_at.min(until) };
        let heard = talk.next(wait_until).await;
        match heard {
            Ok(Some(message)) if message.kind == MessageType::Event => {}
            Ok(Some(message)) => return settle(talk, &message, only, asked_bare && only.is_none()).await,
            Ok(None) if wait_until < until => {
                send(&talk, &Question::Ping, Spoken::V1);
                asked_bare = true;
            }
            Ok(None) => {
                let trouble = talk.silent("an answer to hello or to ping", lab.patience.start);
                talk.wire.stop().await;
                return Err(trouble);
            }
            Err(trouble) => {
                talk.wire.stop().await;
                return Err(trouble);
            }
        }
    }
}

fn send(talk: &Talk, question: &Question, spoken: Spoken) {
    // The questions hold nothing that could not be a line.
    if let Ok(mut line) = engine::write(question, spoken, &MessageId::fresh(), 0) {
        line.push(b'\n');
        talk.wire.send(line);
    }
}

async fn settle(
    mut talk: Talk,
    first: &Message,
    only: Option<Dialect>,
    asked_both: bool,
) -> Result<Greeted, Trouble> {
    talk.dialect = if first.bare { Dialect::Bare } else { Dialect::Lines };
    if only.is_some_and(|only| only != talk.dialect) {
        talk.wire.stop().await;
        return Err(unmet("an answer in the version that was asked for", first.shown()));
    }
    if asked_both {
        let _second = talk.next(Instant::now() + SETTLE).await;
    }
    if first.bare {
        return Ok(Greeted { talk, hello: None, remark: None });
    }
    match introduced(first) {
        Ok(hello) if hello.version.major == V2_0.major => {
            Ok(Greeted { talk, hello: Some(hello), remark: None })
        }
        Ok(hello) => {
            talk.wire.stop().await;
            Err(unmet("version 2.0.0", hello.version.to_string()))
        }
        Err(why) => {
            let remark = format!("it is taken to have no capabilities, for its hello says: {why}");
            Ok(Greeted { talk, hello: None, remark: Some(remark) })
        }
    }
}

/// A range that it does not speak is refused, and another try is free.
pub(super) async fn version_refused(lab: &mut Lab) -> Checked {
    lab.conversed()?;
    if lab.dialect != Some(Dialect::Frames) {
        return Err(not_applicable("an engine of lines is never asked for anything but its version"));
    }
    let mut talk = start(lab, true)?;
    let within = lab.patience.start;
    let checked = async {
        let refused = talk.answer(hello(UNSPOKEN), within).await?;
        refused_version(&refused, Dialect::Frames)?;
        let again = talk.answer(hello(ACCEPT), within).await?;
        introduced(&again).map_err(|why| unmet("another hello is answered", why))?;
        Ok(None)
    };
    let checked = checked.await;
    talk.wire.stop().await;
    checked
}
