//! Streams: pieces in order, no more than were granted, and an end when they are given up.

use std::time::Duration;

use chorus_audio::pcm;
use chorus_protocol::gateway::{CancelAnswer, GatewayEvent};
use chorus_protocol::{AudioChunk, MessageId, MessageType, Reason};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::lab::Lab;
use crate::conformance::common::{CANCEL_WITHIN, audible, typed};
use crate::conformance::message::Message;
use crate::conformance::report::{Checked, Trouble, not_applicable, unmet};
use crate::conformance::talk::Talk;

/// How long a piece that was not granted is waited for.
const UNGRANTED: Duration = Duration::from_millis(700);
/// How long a parent does not read.
const UNREAD: Duration = Duration::from_secs(1);

/// A text of several sentences, so of several pieces.
fn several(text: &str) -> String {
    format!("{text} And one sentence more. And this is the third one of them. {text}")
}

fn request(text: &str, window: Option<u32>) -> Value {
    let mut request =
        json!({"method": "synthesizeStream", "text": several(text), "outputFormat": "pcm", "fresh": true});
    if let (Some(window), Some(fields)) = (window, request.as_object_mut()) {
        fields.insert("window".into(), window.into());
    }
    request
}

fn grant(talk: &mut Talk, id: &MessageId) {
    talk.tell(json!({"event": "grant", "messageId": id, "chunks": 1}));
}

/// What comes next of one stream.
enum Next {
    Piece(AudioChunk),
    Result(Message),
}

async fn next(talk: &mut Talk, id: &MessageId, until: Instant) -> Result<Option<Next>, Trouble> {
    loop {
        let Some(message) = talk.next(until).await? else { return Ok(None) };
        if message.to.as_ref() != Some(id) {
            continue;
        }
        match message.kind {
            MessageType::Event => match message.read() {
                Ok(GatewayEvent::Audio(chunk)) => return Ok(Some(Next::Piece(chunk))),
                Ok(_) => {}
                Err(why) => return Err(unmet("an audio event", format!("{why}: {}", message.shown()))),
            },
            _ => return Ok(Some(Next::Result(message))),
        }
    }
}

/// Reads a stream to its result, granting where it has a window; checks its pieces.
async fn to_the_end(talk: &mut Talk, id: &MessageId, windowed: bool, within: Duration) -> Checked {
    let (mut bytes, mut pieces, mut ended, mut rate) = (Vec::new(), 0_u64, false, 0);
    loop {
        match next(talk, id, Instant::now() + within).await? {
            None => return Err(talk.silent("the next piece, or the result", within)),
            Some(Next::Piece(piece)) => {
                if ended || piece.sequence != pieces || piece.request_id != *id {
                    let expected = format!("piece {pieces} of {id}, none after the last");
                    return Err(unmet(expected, format!("piece {} of {}", piece.sequence, piece.request_id)));
                }
                (ended, rate, pieces) = (piece.last, piece.sample_rate, pieces + 1);
                bytes.extend_from_slice(&piece.data.0);
                if windowed {
                    grant(talk, id);
                }
            }
            Some(Next::Result(result)) if result.failed() => {
                return Err(unmet("a result that says success", result.shown()));
            }
            Some(Next::Result(_)) => break,
        }
    }
    if !ended {
        return Err(unmet("a last piece that says so", format!("{pieces} pieces")));
    }
    let samples = pcm::from_bytes(&bytes).ok_or_else(|| unmet("whole samples", "an odd number of bytes"))?;
    audible(&samples, rate)?;
    Ok(Some(format!("{pieces} pieces")))
}

/// Without a window.
pub(super) async fn stream(lab: &mut Lab) -> Checked {
    lab.modern()?;
    let (text, within) = (lab.text.clone(), lab.patience.answer);
    let talk = lab.talk().await?;
    let asked = talk.ask(request(&text, None));
    to_the_end(talk, &asked.id, false, within).await
}

/// With a window of one: one piece, then none until it is granted.
pub(super) async fn window(lab: &mut Lab) -> Checked {
    lab.modern()?;
    let (text, within) = (lab.text.clone(), lab.patience.answer);
    let talk = lab.talk().await?;
    let asked = talk.ask(request(&text, Some(1)));
    first_piece(talk, &asked.id, within).await?;
    match next(talk, &asked.id, Instant::now() + UNGRANTED).await? {
        None => {}
        Some(Next::Piece(piece)) => {
            return Err(unmet("no piece before it is granted", format!("piece {}", piece.sequence)));
        }
        Some(Next::Result(result)) => return Err(unmet("more pieces than one", result.shown())),
    }
    grant(talk, &asked.id);
    let mut pieces = 1_u64;
    loop {
        match next(talk, &asked.id, Instant::now() + within).await? {
            Some(Next::Piece(piece)) if piece.sequence == pieces => pieces += 1,
            Some(Next::Piece(piece)) => {
                return Err(unmet(format!("piece {pieces}"), format!("piece {}", piece.sequence)));
            }
            Some(Next::Result(result)) if result.failed() => {
                return Err(unmet("a result that says success", result.shown()));
            }
            Some(Next::Result(_)) => return Ok(Some(format!("{pieces} pieces"))),
            None => return Err(talk.silent("a piece for each grant, then the result", within)),
        }
        grant(talk, &asked.id);
    }
}

async fn first_piece(talk: &mut Talk, id: &MessageId, within: Duration) -> Result<(), Trouble> {
    match next(talk, id, Instant::now() + within).await? {
        Some(Next::Piece(piece)) if piece.sequence == 0 => Ok(()),
        Some(Next::Piece(piece)) => Err(unmet("piece 0", format!("piece {}", piece.sequence))),
        Some(Next::Result(result)) => Err(unmet("audio before the result", result.shown())),
        None => Err(talk.silent("the first piece", within)),
    }
}

/// A parent that does not read for a while.
pub(super) async fn unread(lab: &mut Lab) -> Checked {
    lab.modern()?;
    let (text, within) = (lab.text.clone(), lab.patience.answer);
    let talk = lab.talk().await?;
    let asked = [talk.ask(request(&text, None)), talk.ask(request(&text, None))];
    tokio::time::sleep(UNREAD).await;
    let mut open: Vec<(MessageId, u64)> = asked.iter().map(|asked| (asked.id.clone(), 0)).collect();
    while !open.is_empty() {
        let Some(message) = talk.next(Instant::now() + within).await? else {
            return Err(talk.silent("all pieces and both results", within));
        };
        let of = open.iter().position(|(id, _)| message.to.as_ref() == Some(id));
        let Some(at) = of else { continue };
        if message.kind != MessageType::Event {
            if message.failed() {
                return Err(unmet("a result that says success", message.shown()));
            }
            open.remove(at);
        } else if let Ok(GatewayEvent::Audio(piece)) = message.read() {
            if piece.sequence != open[at].1 {
                return Err(unmet(format!("piece {}", open[at].1), format!("piece {}", piece.sequence)));
            }
            open[at].1 += 1;
        }
    }
    Ok(None)
}

/// A stream that waits for grants is given up.
pub(super) async fn cancel(lab: &mut Lab) -> Checked {
    lab.modern()?;
    let (text, within) = (lab.text.clone(), lab.patience.answer);
    let talk = lab.talk().await?;
    let nobody = talk.answer(json!({"method": "cancel", "messageId": "nobody"}), within).await?;
    if nobody.read::<CancelAnswer>().map(|answer| answer.cancelled) != Ok(false) {
        return Err(unmet("cancelled false where there is no such request", nobody.shown()));
    }
    let asked = talk.ask(request(&text, Some(1)));
    first_piece(talk, &asked.id, within).await?;
    let cancel = talk.ask(json!({"method": "cancel", "messageId": asked.id}));
    let (began, both) = (Instant::now(), [asked.clone(), cancel.clone()]);
    let answers = talk.gather(&both, CANCEL_WITHIN).await?;
    let told = answers.by_id.get(&cancel.id).map(|answer| (answer.read::<CancelAnswer>(), answer.shown()));
    let over = answers.by_id.get(&asked.id).is_some_and(|ended| !ended.failed());
    match told {
        Some((Ok(CancelAnswer { cancelled: true }), _)) => {}
        Some((Ok(_), _)) if over => return Err(not_applicable("the stream did not wait to be given up")),
        Some((_, shown)) => return Err(unmet("cancelled true", shown)),
        None => return Err(unmet("an answer to cancel", "none")),
    }
    let ended = answers.by_id.get(&asked.id).ok_or_else(|| unmet("the end of the stream", "none"))?;
    match ended.error().and_then(|error| error.reason()) {
        Some(Reason::Cancelled) => Ok(Some(format!("{} ms", began.elapsed().as_millis()))),
        _ => Err(unmet("details.reason cancelled", ended.shown())),
    }
}

/// A second request under the id of one that is under way.
pub(super) async fn id_reused(lab: &mut Lab) -> Checked {
    lab.modern()?;
    let (text, within) = (lab.text.clone(), lab.patience.answer);
    let talk = lab.talk().await?;
    let asked = talk.ask(request(&text, Some(1)));
    first_piece(talk, &asked.id, within).await?;
    talk.ask_as(&asked.id, json!({"text": "The same id."}), &Map::new());
    let mut waits = true;
    let refused = loop {
        match next(talk, &asked.id, Instant::now() + within).await? {
            Some(Next::Result(message)) if message.failed() || waits => break message,
            Some(Next::Result(_)) => return Err(not_applicable("the stream did not wait for its grants")),
            Some(Next::Piece(_)) => waits = false,
            None => return Err(talk.silent("an error", within)),
        }
    };
    typed(&refused, talk.dialect, Reason::IdReused)?;
    // The first goes on.
    loop {
        grant(talk, &asked.id);
        match next(talk, &asked.id, Instant::now() + within).await? {
            Some(Next::Piece(_)) => {}
            Some(Next::Result(result)) if result.failed() => {
                return Err(unmet("the first request goes on", result.shown()));
            }
            Some(Next::Result(_)) => return Ok(None),
            None => return Err(talk.silent("the end of the first request", within)),
        }
    }
}
