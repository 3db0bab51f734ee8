//! The plan of an SSML document.
//!
//! The document is read as a whole for every page, because no manager remembers it; the session sends how much of it was
//! planned. That sum counts in bytes of what is said, with one more for the end of each passage, and so means the same to
//! every manager.

use chorus_protocol::plan::{Manner, Speech};
use chorus_protocol::request::{PITCH_RANGE, SPEED_RANGE};
use chorus_protocol::{Reason, ServiceError};
use chorus_text::{Segmenter, SegmenterConfig, Span, SsmlConfig, SsmlErrorKind, has_speakable, parse_ssml};

use super::{Draft, LeftOut, Plan, PlanQuestion, class_of};

/// Text that is said in one manner.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    text: String,
    manner: Option<Manner>,
    pause_before_ms: Option<u32>,
    pause_after_ms: u32,
}

/// A document, read.
#[derive(Debug, Default)]
pub struct Document {
    passages: Vec<Passage>,
    left_out: LeftOut,
}

/// Reads a document. `voice_of` finds a voice that the document names.
///
/// # Errors
/// INVALID_REQUEST naming `text`, with the place of the fault; whatever `voice_of` says of a voice.
pub fn read(
    document: &str,
    pauses: &SegmenterConfig,
    speech: &Speech,
    voice_of: impl Fn(&str) -> Result<Option<String>, ServiceError>,
) -> Result<Document, ServiceError> {
    let config = SsmlConfig {
        sentence_pause_ms: pauses.sentence_pause_ms,
        paragraph_pause_ms: pauses.paragraph_pause_ms,
        ..SsmlConfig::default()
    };
    let spans = parse_ssml(document, &config).map_err(|error| {
        let reason = match error.kind {
            SsmlErrorKind::TooLarge { .. } => Reason::TooLarge,
            SsmlErrorKind::UnknownElement(_) | SsmlErrorKind::UnknownAttribute(_) => {
                Reason::UnsupportedOption
            }
            _ => Reason::Malformed,
        };
        ServiceError::field(reason, "text", format!("SSML: {error}"))
            .with("positionBytes", error.position_bytes)
    })?;
    let mut read = Document::default();
    let mut before_ms = None;
    for span in spans {
        if has_speakable(&span.text) {
            let manner = manner_of(&span, speech, &voice_of)?;
            let Span { text, pause_after_ms, .. } = span;
            read.passages.push(Passage { text, manner, pause_before_ms: before_ms.take(), pause_after_ms });
            continue;
        }
        // Its rest is owed all the same.
        read.left_out.add(&span.text);
        match read.passages.last_mut() {
            Some(last) => last.pause_after_ms = last.pause_after_ms.max(span.pause_after_ms),
            None => before_ms = before_ms.max(Some(span.pause_after_ms)),
        }
    }
    Ok(read)
}

fn manner_of(
    span: &Span,
    speech: &Speech,
    voice_of: impl Fn(&str) -> Result<Option<String>, ServiceError>,
) -> Result<Option<Manner>, ServiceError> {
    let prosody = span.prosody;
    let changed = |value: f32, neutral: f32| (value != neutral).then_some(f64::from(value));
    let out_of_range = |what: &str, value: f64| {
        let message = format!(
            "SSML: the request's {what} and the document's prosody come to {value:.2}, which is out of range"
        );
        ServiceError::field(Reason::UnsupportedOption, "text", message)
    };
    let speed = changed(prosody.rate, 1.0).map(|rate| rate * speech.speed.unwrap_or(1.0));
    let pitch = changed(prosody.pitch, 0.0).map(|semitones| semitones + speech.pitch.unwrap_or(0.0));
    if let Some(speed) = speed.filter(|speed| !SPEED_RANGE.contains(speed)) {
        return Err(out_of_range("speed", speed));
    }
    if let Some(pitch) = pitch.filter(|pitch| !PITCH_RANGE.contains(pitch)) {
        return Err(out_of_range("pitch", pitch));
    }
    let voice = match &span.voice {
        Some(name) => voice_of(name)?,
        None => None,
    };
    let manner = Manner { voice, speed, pitch, volume: changed(prosody.volume, 1.0), pause_before_ms: None };
    Ok(Some(manner).filter(|manner| *manner != Manner::default()))
}

/// Cuts the next segments off a document of which `planned_bytes` were planned before.
pub fn plan_document(
    question: &PlanQuestion<'_>,
    document: Document,
    planned_bytes: usize,
    segmenter: &Segmenter,
) -> Plan {
    let mut plan = Plan::default();
    let mut at = 0;
    let mut complete = true;
    for passage in &document.passages {
        let next = at + passage.text.len() + 1;
        if next > planned_bytes {
            complete = add_passage(&mut plan, question, passage, at, planned_bytes, segmenter);
            if !complete {
                break;
            }
        }
        at = next;
    }
    plan.complete = complete;
    if planned_bytes == 0 {
        plan.warnings.extend(document.left_out.warning());
    }
    plan
}

/// Adds what fits of a passage that begins at `begins_bytes`; whether all of it did.
fn add_passage(
    plan: &mut Plan,
    question: &PlanQuestion<'_>,
    passage: &Passage,
    begins_bytes: usize,
    planned_bytes: usize,
    segmenter: &Segmenter,
) -> bool {
    let mut offset = (planned_bytes + plan.consumed_bytes).saturating_sub(begins_bytes);
    let Some(mut rest) = passage.text.get(offset..) else { return true };
    while has_speakable(rest) {
        if plan.drafts.len() >= question.window {
            return false;
        }
        let page = segmenter.next_segments(rest, true, 1);
        let Some(segment) = page.segments.into_iter().next() else { break };
        let start_bytes = plan.consumed_bytes;
        let is_first = offset == 0;
        offset += page.consumed_bytes;
        rest = &passage.text[offset..];
        plan.consumed_bytes += page.consumed_bytes;
        if !has_speakable(&segment.text) {
            continue;
        }
        let is_last = !has_speakable(rest);
        let index = question.first_index.saturating_add(plan.drafts.len() as u32);
        plan.drafts.push(Draft {
            index,
            text: segment.text,
            pause_after_ms: if is_last { passage.pause_after_ms } else { segment.pause_after_ms },
            manner: manner_at(passage, is_first),
            class: class_of(question.priority, index, question.urgent),
            start_bytes,
        });
    }
    plan.consumed_bytes = begins_bytes + passage.text.len() + 1 - planned_bytes;
    true
}

fn manner_at(passage: &Passage, is_first: bool) -> Option<Manner> {
    match passage.pause_before_ms.filter(|_| is_first) {
        None => passage.manner.clone(),
        pause_before_ms => Some(Manner { pause_before_ms, ..passage.manner.clone().unwrap_or_default() }),
    }
}

#[cfg(test)]
mod tests {
    use chorus_protocol::{ModelName, Priority};
    use proptest::prelude::*;

    use super::*;

    fn speech(speed: Option<f64>) -> Speech {
        Speech {
            model: ModelName::new("m").unwrap(),
            voice: None,
            speaker_clip: None,
            language: None,
            speed,
            pitch: None,
            volume: None,
            seed: None,
            priority: Priority::Normal,
            fresh: false,
            input_type: None,
        }
    }

    fn read_with(document: &str, speed: Option<f64>) -> Result<Document, ServiceError> {
        read(document, &SegmenterConfig::default(), &speech(speed), |name| match name {
            "p225" => Ok(Some(name.to_owned())),
            other => Err(ServiceError::field(Reason::UnknownModel, "text", format!("no voice {other}"))),
        })
    }

    fn page(document: &str, planned_bytes: usize, first_index: u32, window: usize) -> Plan {
        let question = PlanQuestion {
            text: "",
            text_complete: true,
            first_index,
            window,
            urgent: false,
            priority: Priority::Normal,
        };
        let segmenter = Segmenter::new(SegmenterConfig::default()).unwrap();
        plan_document(&question, read_with(document, None).unwrap(), planned_bytes, &segmenter)
    }

    #[test]
    fn passages_become_segments_with_their_manner_and_pauses() {
        let document = "<speak><break time='1s'/>One here. Two here.<break time='700ms'/>\
            <prosody rate='200%' pitch='-2st' volume='soft'>Three.</prosody> *** <voice name='p225'>Four</voice></speak>";
        let plan = page(document, 0, 0, 64);
        let said: Vec<_> = plan.drafts.iter().map(|d| (d.text.as_str(), d.pause_after_ms)).collect();
        assert_eq!(said, [("One here.", 300), ("Two here.", 700), ("Three.", 300), ("Four", 0)]);
        let manner = |at: usize| plan.drafts[at].manner.clone().unwrap();
        assert_eq!(manner(0), Manner { pause_before_ms: Some(1_000), ..Manner::default() });
        assert_eq!(plan.drafts[1].manner, None);
        let three = manner(2);
        assert_eq!((three.speed, three.pitch, three.volume), (Some(2.0), Some(-2.0), Some(0.5)));
        assert_eq!(manner(3).voice.as_deref(), Some("p225"));
        assert!(plan.complete);
        assert_eq!(plan.warnings.len(), 1, "the stars are left out with a word");
    }

    #[test]
    fn faults_name_the_text_and_their_place() {
        for (document, speed, reason) in [
            ("<speak>a", None, Reason::Malformed),
            ("<speak><audio/></speak>", None, Reason::UnsupportedOption),
            ("<speak><break time='61s'/></speak>", None, Reason::Malformed),
            ("<speak><prosody rate='5'>a</prosody></speak>", None, Reason::Malformed),
            ("<speak><prosody rate='300%'>a</prosody></speak>", Some(2.0), Reason::UnsupportedOption),
            ("<speak><voice name='nobody'>a</voice></speak>", None, Reason::UnknownModel),
        ] {
            let error = read_with(document, speed).unwrap_err();
            assert_eq!(error.reason(), Some(reason), "{document}: {error}");
            assert_eq!(error.details.unwrap()["field"], "text", "{document}");
        }
    }

    fn documents() -> impl Strategy<Value = String> {
        let words = "[a-zA-Z ,.!?*é]{0,40}";
        let piece = prop_oneof![
            words.prop_map(String::from),
            words.prop_map(|text| format!("<p>{text}</p>")),
            words.prop_map(|text| format!("<prosody rate='fast'>{text}</prosody>")),
            Just("<break time='200ms'/>".to_owned()),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| format!("<speak>{}</speak>", pieces.concat()))
    }

    proptest! {
        /// However a document is windowed, and wherever a page is cut off, the segments are the same.
        #[test]
        fn windows_do_not_change_the_plan(document in documents(), window in 1usize..4, queued in 1usize..4) {
            let whole = page(&document, 0, 0, 1_000);
            prop_assert!(whole.complete);
            let (mut drafts, mut planned) = (Vec::new(), 0);
            loop {
                let next = page(&document, planned, drafts.len() as u32, window);
                let taken = queued.min(next.drafts.len());
                planned += next.consumed_by(taken);
                let all = taken == next.drafts.len();
                drafts.extend(next.drafts.into_iter().take(taken));
                if all && next.complete {
                    break;
                }
            }
            let told = |drafts: &[Draft]| -> Vec<_> {
                drafts.iter().map(|d| (d.index, d.text.clone(), d.pause_after_ms, d.manner.clone())).collect()
            };
            prop_assert_eq!(told(&drafts), told(&whole.drafts));
            prop_assert_eq!(planned, whole.consumed_bytes);
            prop_assert!(planned <= document.len());
        }
    }
}
