//! One request through a session in this process, its audio into a [`Writer`].

use std::sync::Arc;

use chorus_bus::Bus;
use chorus_client::{BusPort, SessionHost, SpeakAsk, Speaking, SpeechEvent, TextInput};
use chorus_protocol::{MessageId, SynthesisRequest, SynthesisResult};
use chorus_runtime::clock::SystemClock;
use tokio_util::sync::CancellationToken;

use crate::config::CliConfig;
use crate::error::CliError;
use crate::fleet::parts;
use crate::output::Writer;

/// Sessions of this process on this bus.
pub async fn sessions(
    config: &CliConfig,
    bus: &Bus,
    cancel: &CancellationToken,
) -> Result<SessionHost, CliError> {
    let clock = SystemClock::shared();
    let port = Arc::new(BusPort::new(bus.clone(), clock.clone()));
    let host =
        SessionHost::start(bus.clone(), port, clock, parts::session_config(config), cancel.child_token());
    Ok(host.await?)
}

/// Asks for a request to be spoken.
pub fn ask(host: &SessionHost, request: SynthesisRequest) -> Speaking {
    host.speak(asked(request))
}

/// Asks for a request to be spoken whose text is still to come.
pub fn ask_coming(host: &SessionHost, request: SynthesisRequest) -> (Speaking, TextInput) {
    host.speak_coming(asked(request))
}

fn asked(request: SynthesisRequest) -> SpeakAsk {
    SpeakAsk { request_id: MessageId::fresh(), request, traceparent: None, whole_reply_deadline: false }
}

/// Speaks into the writer, and finishes it. A failed request is a result, too; its audio is thrown away.
pub async fn into_writer(mut speaking: Speaking, mut writer: Writer) -> Result<SynthesisResult, CliError> {
    while let Some(event) = speaking.next().await {
        match event {
            SpeechEvent::Accepted { model, .. } => tracing::debug!(%model, "accepted"),
            SpeechEvent::Audio(piece) => {
                // A slow disk or pipe holds the listener back, and with it the asking for more.
                tokio::task::block_in_place(|| writer.push(&piece.pcm, piece.sample_rate))?;
            }
            SpeechEvent::Ended(result) => {
                if result.success {
                    tokio::task::block_in_place(|| writer.finish())?;
                }
                return Ok(*result);
            }
        }
    }
    Err(CliError::Fleet { part: "session", why: "it ended without a result".into() })
}
