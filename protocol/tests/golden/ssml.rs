//! What SSML adds: the words of a document, and what single segments have of their own.

use super::*;

#[test]
fn spoken_from_a_document() {
    let text = "<speak>One.<break time=\"1s\"/><prosody rate=\"50%\">Two.</prosody></speak>";
    let request = SynthesisRequest {
        text: text.into(),
        input_type: Some(InputType::Ssml),
        sample_rate: Some(24_000),
        ..SynthesisRequest::default()
    };
    golden("synthesis_request_ssml", request.clone());
    let manner = Manner {
        voice: Some("p225".into()),
        speed: Some(0.5),
        pitch: Some(-1.5),
        volume: Some(2.0),
        pause_before_ms: Some(100),
    };
    let mut page = page();
    page.segments[0].manner = Some(manner.clone());
    golden("plan_page_ssml", page);
    let retry = Retry {
        segment: 1,
        text: "Two.".into(),
        manner: Some(manner),
        attempt: 2,
        class: JobClass::Urgent,
        failures: 0,
        tried: Vec::new(),
        supersedes: None,
    };
    golden(
        "advance_ssml",
        Advance {
            session: session(),
            inbox: "_INBOX.abc.1".into(),
            request_id: MessageId::new("req-1").unwrap(),
            speech: Speech { volume: Some(0.5), input_type: Some(InputType::Ssml), ..speech() },
            next_segment: 1,
            text: request.text,
            planned_bytes: 5,
            text_complete: true,
            window: 2,
            urgent: true,
            retries: vec![retry],
            lookups: Vec::new(),
            takes: false,
        },
    );
}
