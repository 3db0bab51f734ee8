//! Whether what an engine made can be speech. A success is not health: a speech endpoint once returned a silent chunk of
//! 0.08 s (lessons), and no counter noticed.
//!
//! Judged here, before the result goes out, because it is the worker's fault and the segment can be tried elsewhere. The
//! judgement itself is [`chorus_audio::health`]'s.

use std::borrow::Cow;

use bytes::Bytes;
use chorus_audio::health::{HealthLimits, Take, inspect as inspect_take};
use chorus_audio::pcm::{SAMPLE_BYTES, SampleReader};
use chorus_protocol::{Reason, ServiceError};

/// Finished audio, and what it should be.
pub(crate) struct Finished<'a> {
    /// The kind of engine that made it.
    pub(crate) engine: &'a str,
    /// The text that it was given.
    pub(crate) text: &'a str,
    /// The speed that was asked for.
    pub(crate) speed: Option<f64>,
    /// s16le mono samples, in pieces.
    pub(crate) pieces: &'a [Bytes],
    /// The last piece.
    pub(crate) last: &'a Bytes,
    /// Samples per second.
    pub(crate) sample_rate: u32,
}

/// What is wrong with it; `None`: nothing.
pub(crate) fn inspect(finished: &Finished<'_>) -> Option<ServiceError> {
    let text = spoken_part(finished.engine, finished.text)?;
    let samples = samples_of(finished);
    let speed = finished.speed.unwrap_or(1.0) as f32;
    let take = Take { samples: &samples, sample_rate: finished.sample_rate, text: &text, speed };
    let fault = inspect_take(&take, &limits(finished.engine)).err()?;
    Some(ServiceError::new(Reason::BadAudio, fault.to_string()))
}

fn samples_of(finished: &Finished<'_>) -> Vec<i16> {
    let pieces = || finished.pieces.iter().chain([finished.last]);
    let bytes: usize = pieces().map(Bytes::len).sum();
    let mut samples = Vec::with_capacity(bytes / SAMPLE_BYTES);
    let mut reader = SampleReader::default();
    for piece in pieces() {
        reader.push(piece, &mut samples);
    }
    samples
}

/// The part of a text that an engine of this kind speaks; `None` for one whose audio has nothing to do with its text.
fn spoken_part<'a>(engine: &str, text: &'a str) -> Option<Cow<'a, str>> {
    match engine {
        // The same second of a tone for any text.
        "null" => None,
        // Takes its directives out of the text before it speaks.
        "checkable" => Some(without_directives(text)),
        _ => Some(Cow::Borrowed(text)),
    }
}

fn limits(engine: &str) -> HealthLimits {
    let usual = HealthLimits::default();
    match engine {
        // Its samples are numbers, most of them small ones, which lie far from zero.
        "checkable" => HealthLimits { most_dc_offset: 1.0, ..usual },
        _ => usual,
    }
}

fn without_directives(text: &str) -> Cow<'_, str> {
    if !text.contains("[[") {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split("[[");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once("]]").map_or(part, |(_directive, rest)| rest));
    }
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(engine: &str, text: &str, samples: impl Iterator<Item = i16>) -> Option<Reason> {
        let pcm: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
        let last = Bytes::from(pcm);
        let finished = Finished { engine, text, speed: None, pieces: &[], last: &last, sample_rate: 16_000 };
        inspect(&finished)?.reason()
    }

    fn tone(count: usize) -> impl Iterator<Item = i16> {
        (0..count).map(|n| if n % 50 < 25 { 900 } else { -900 })
    }

    #[test]
    fn speech_passes_and_what_cannot_be_speech_does_not() {
        assert_eq!(judged("coqui", "hello there", tone(16_000)), None);
        assert_eq!(judged("coqui", "hello there", std::iter::repeat_n(3, 16_000)), Some(Reason::BadAudio));
        assert_eq!(judged("coqui", "hello there", tone(10)), Some(Reason::BadAudio));
        assert_eq!(judged("null", "hello there", tone(10)), None);
    }

    #[test]
    fn directives_are_not_spoken() {
        assert_eq!(without_directives("a [[slow ms=5]]b[[x]] c"), "a b c");
        assert_eq!(without_directives("plain"), "plain");
        assert_eq!(judged("checkable", &format!("hello [[{}]]", "x".repeat(900)), tone(4_000)), None);
    }
}
