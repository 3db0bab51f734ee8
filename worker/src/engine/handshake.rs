//! The first words on the pipe: who is there, and which version both speak.

use std::sync::Arc;
use std::time::Duration;

use chorus_protocol::ServiceError;
use chorus_protocol::pipe::{EngineRequest, HelloAnswer};
use chorus_protocol::version::{self, V2_1, VersionError};

use super::link::Link;

/// Why no conversation began.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The engine refused, died, or did not answer.
    #[error("the engine did not shake hands: {0}")]
    Refused(#[source] ServiceError),
    /// It chose a version that this worker cannot speak on the pipe.
    #[error(transparent)]
    Version(#[from] VersionError),
}

/// Says hello. `worker` is the name of the worker; `within` bounds the wait for the answer.
///
/// # Errors
/// See [`HandshakeError`].
pub async fn shake_hands(
    link: &Arc<Link>,
    worker: &str,
    within: Duration,
) -> Result<HelloAnswer, HandshakeError> {
    let hello = EngineRequest::Hello { accept: version::ACCEPT.to_owned(), worker: worker.to_owned() };
    // Python itself is starting: `within` bounds it, not what an engine at work may be silent.
    let _longer_silence = link.loading();
    let answer: HelloAnswer =
        link.call(hello, within).await.map_err(|failed| HandshakeError::Refused(failed.error))?;
    check_version(&answer)?;
    Ok(answer)
}

/// Frames are 2.1 and whatever newer minor is compatible with it.
fn check_version(answer: &HelloAnswer) -> Result<(), VersionError> {
    let spoken = &answer.version;
    if spoken.major == V2_1.major && *spoken >= V2_1 {
        return Ok(());
    }
    Err(VersionError::Unsupported { offered: spoken.to_string(), supported: vec![V2_1] })
}
