//! Checks that engines and gateways have in common.

use std::time::Duration;

use chorus_audio::health::{HealthLimits, measure};
use chorus_protocol::Reason;
use serde_json::json;

use super::message::{Dialect, Message};
use super::report::{Checked, Trouble, unmet};
use super::talk::Talk;
use super::wire::Heard;

/// A range that nobody speaks.
pub(super) const UNSPOKEN: &str = ">=9.0.0";

/// How long a request that was given up may go on.
pub(super) const CANCEL_WITHIN: Duration = Duration::from_secs(5);

/// A method without parameters is answered, and not by an error.
pub(super) async fn answered(talk: &mut Talk, method: &str, within: Duration) -> Checked {
    let answer = talk.answer(json!({"method": method}), within).await?;
    if answer.failed() {
        return Err(unmet(format!("a response to {method}"), answer.shown()));
    }
    Ok(None)
}

/// Waits until the process has ended by itself, with exit code 0.
pub(super) async fn wait(talk: &mut Talk, within: Duration, expected: &str) -> Checked {
    let (heard, exit) = talk.wire.ended(within).await;
    talk.aftermath(heard);
    match exit {
        Some(exit) if exit.success() => Ok(None),
        Some(exit) => Err(unmet(format!("{expected}, with exit code 0"), exit.to_string())),
        None => Err(unmet(
            expected,
            format!("it still ran after {} s and had to be killed", within.as_secs_f64()),
        )),
    }
}

/// Passes when nothing of the kind was seen.
pub(super) fn nothing_odd(seen: &[String], expected: &str) -> Checked {
    match seen {
        [] => Ok(None),
        [only] => Err(unmet(expected, only.as_str())),
        [first, more @ ..] => Err(unmet(expected, format!("{first} (and {} more)", more.len()))),
    }
}

/// Something is to be heard. Not whether it is speech: test engines make tones.
pub(super) fn audible(samples: &[i16], sample_rate: u32) -> Checked {
    let (found, limits) = (measure(samples, sample_rate), HealthLimits::default());
    if samples.is_empty() || found.peak < limits.least_peak {
        let came = format!("{} samples with a peak of {} of 32768", samples.len(), found.peak);
        return Err(unmet("audio that can be heard", came));
    }
    if found.clipped > limits.most_clipped {
        let came = format!("{:.0} % of the samples at full scale", found.clipped * 100.0);
        return Err(unmet("audio that is not clipped", came));
    }
    Ok(Some(format!("{:.2} s at {} Hz", found.duration.as_secs_f64(), sample_rate)))
}

/// A frame beyond the limit is begun. The boundary is lost after it, so the program may end.
pub(super) async fn oversized_frame(talk: &mut Talk, limit: usize, within: Duration) -> Checked {
    let length = (limit as u32 + 1).to_be_bytes();
    talk.wire.send(length.to_vec());
    let (heard, exit) = talk.wire.ended(within).await;
    let told = heard.iter().any(|one| matches!(one, Heard::Message(message) if message.error().is_some()));
    talk.aftermath(heard);
    match (told, exit) {
        (true, Some(_)) => Ok(Some("an error, and its end".into())),
        (true, None) => Ok(Some("an error; it goes on".into())),
        (false, Some(exit)) if exit.signal.is_none() => Ok(Some("its end".into())),
        (false, Some(exit)) => Err(unmet("an error, or an orderly end", exit.to_string())),
        (false, None) => Err(unmet("an error, or its end", "nothing: it waits for the rest of the frame")),
    }
}

/// Bytes that are no message are survived: what is asked after them is answered.
pub(super) async fn survives_garbage(talk: &mut Talk, within: Duration) -> Checked {
    let bodies: [&[u8]; 3] = match talk.dialect {
        // A byte that MessagePack never uses; a map that is no envelope; an envelope cut short.
        Dialect::Frames => [&[0xc1, 0xc1], &[0x81, 0xa1, b'a', 0x01], &[0x87, 0xa7, b'v']],
        _ => [b"no json", b"{\"version\": \"2.0.0\", \"payload\"", b"[1, 2]"],
    };
    for body in bodies {
        let garbage = talk.send_raw(body);
        let ping = talk.ask(json!({"method": "ping"}));
        talk.gather(&[garbage, ping], within).await?;
    }
    Ok(None)
}

/// A method that is none is answered by an error, and the conversation goes on.
pub(super) async fn unknown_method(talk: &mut Talk, within: Duration) -> Checked {
    let refused = talk.answer(json!({"method": "conformanceNoSuchMethod"}), within).await?;
    typed(&refused, talk.dialect, Reason::UnknownMethod)?;
    talk.alive(within).await?;
    Ok(None)
}

/// A greeting with [`UNSPOKEN`] was refused, with the list of what there is.
pub(super) fn refused_version(answer: &Message, dialect: Dialect) -> Result<(), Trouble> {
    typed(answer, dialect, Reason::Version)?;
    let error = answer.error();
    let supported = error.as_ref().and_then(|error| error.details.as_ref()?.get("supported")?.as_array());
    let says = error.as_ref().is_some_and(|error| error.message.contains("Unsupported protocol version"));
    if says && supported.is_some_and(|supported| !supported.is_empty()) {
        return Ok(());
    }
    let expected = "`Unsupported protocol version: …`, and details.supported that lists what there is";
    Err(unmet(expected, answer.shown()))
}

/// The error that a request must be answered by.
pub(super) fn typed(message: &Message, dialect: Dialect, reason: Reason) -> Result<(), Trouble> {
    let expected = match dialect {
        Dialect::Bare => "an error".to_owned(),
        _ => format!("an error {:?}", reason.code()),
    };
    match message.error() {
        Some(error) if dialect == Dialect::Bare || error.code == reason.code() => Ok(()),
        _ => Err(unmet(expected, message.shown())),
    }
}
