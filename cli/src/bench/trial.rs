//! One request, timed as its client sees it.

use std::time::Instant;

use chorus_client::{SessionHost, SpeechEvent};
use chorus_protocol::SynthesisRequest;

use crate::commands::speak;
use crate::error::CliError;

/// What one request took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// From the asking to the result.
    pub total_ms: f64,
    /// From the asking to the first audio.
    pub first_audio_ms: f64,
    /// What the engine says that it worked.
    pub engine_ms: f64,
    /// Whether no engine worked: it was spoken before.
    pub cache_hit: bool,
}

/// Speaks a text and takes the time.
pub async fn speak_timed(host: &SessionHost, text: String) -> Result<Trial, CliError> {
    let request = SynthesisRequest { text, ..SynthesisRequest::default() };
    let begun = Instant::now();
    let since = || begun.elapsed().as_secs_f64() * 1000.0;
    let mut speaking = speak::ask(host, request);
    let mut first_audio_ms = None;
    while let Some(event) = speaking.next().await {
        match event {
            SpeechEvent::Accepted { .. } => {}
            SpeechEvent::Audio(_) => _ = first_audio_ms.get_or_insert_with(since),
            SpeechEvent::Ended(result) => {
                let total_ms = since();
                if let Some(error) = result.error {
                    return Err(error.into());
                }
                let metadata = result.metadata.unwrap_or_default();
                let (engine_ms, cache_hit) = (metadata.engine_ms, metadata.cache_hit);
                let first_audio_ms = first_audio_ms.unwrap_or(total_ms);
                return Ok(Trial { total_ms, first_audio_ms, engine_ms, cache_hit });
            }
        }
    }
    Err(CliError::Fleet { part: "session", why: "it ended without a result".into() })
}
