//! What a speaker reference clip adds.

use super::*;

fn clip() -> ClipId {
    ClipId::of(b"a few seconds of speech")
}

#[test]
fn spoken_in_the_voice_of_a_clip() {
    let request = SynthesisRequest {
        text: "Hello.".into(),
        model: Some("xtts".into()),
        speaker_clip: Some(clip().to_string()),
        language: Some("en".into()),
        ..SynthesisRequest::default()
    };
    golden("synthesis_request_clip", request);
    let speech = Speech { voice: None, speaker_clip: Some(clip()), ..speech() };
    let text = "Grüße.".to_owned();
    let (class, keep) = (JobClass::High, true);
    golden("job_clip", Job { session: session(), segment: 2, attempt: 1, text, speech, class, keep });
    let path = "/tmp/chorus-clips-x/ba7816bf".to_owned();
    let plain = EngineSpeech::plain("xtts", "Grüße.");
    let spoken = EngineSpeech { speaker_clip: Some(path), language: Some("en".into()), ..plain };
    golden("pipe_synthesize_clip", EngineRequest::Synthesize(Box::new(spoken)));
}
