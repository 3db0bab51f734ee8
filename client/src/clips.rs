//! Speaker reference clips, from a file of this machine to the bucket where workers find them.

use std::path::Path;

use bytes::Bytes;
use chorus_bus::{Bus, BusError, BusErrorKind};
use chorus_protocol::clip::MAX_CLIP_BYTES;
use chorus_protocol::{ClipId, Reason, ServiceError};
use tokio::io::AsyncReadExt;

use crate::host::SessionHost;

const FIELD: &str = "speakerClip";

/// Reads a clip. Whether it is speech, the model says.
///
/// # Errors
/// INVALID_REQUEST naming `speakerClip`: no file, not to be read, empty, or over [`MAX_CLIP_BYTES`].
pub async fn read(path: &Path) -> Result<Bytes, ServiceError> {
    let wrong = |why: String| {
        let message = format!("the clip {} cannot be used: {why}", path.display());
        ServiceError::field(Reason::Malformed, FIELD, message)
    };
    let unread = |error: std::io::Error| wrong(error.to_string());
    // Looked at before it is opened: to open a pipe may take for ever.
    if !tokio::fs::metadata(path).await.map_err(unread)?.is_file() {
        return Err(wrong("it is no file".into()));
    }
    let file = tokio::fs::File::open(path).await.map_err(unread)?;
    let mut clip = Vec::new();
    file.take(MAX_CLIP_BYTES as u64 + 1).read_to_end(&mut clip).await.map_err(unread)?;
    if clip.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    if clip.len() > MAX_CLIP_BYTES { Err(too_large()) } else { Ok(clip.into()) }
}

/// Keeps a clip where workers find it, if it is not there already. Requests name it by what comes back
/// ([`SynthesisRequest::speaker_clip`](chorus_protocol::SynthesisRequest)).
///
/// # Errors
/// INVALID_REQUEST naming `speakerClip` when it is empty or too large; RESOURCE_EXHAUSTED when it could not be kept.
pub async fn keep(bus: &Bus, clip: Bytes) -> Result<ClipId, ServiceError> {
    if clip.is_empty() {
        return Err(ServiceError::field(Reason::Malformed, FIELD, "the clip is empty"));
    }
    bus.clips().keep(clip).await.map_err(|error: BusError| match error.kind {
        BusErrorKind::TooLarge => too_large(),
        _ => ServiceError::new(Reason::NoBroker, format!("the clip could not be kept: {error}")),
    })
}

impl SessionHost {
    /// The same, on the broker of these sessions.
    ///
    /// # Errors
    /// As of [`keep`].
    pub async fn keep_clip(&self, clip: Bytes) -> Result<ClipId, ServiceError> {
        keep(self.bus(), clip).await
    }
}

fn too_large() -> ServiceError {
    let message = format!("the clip is larger than {MAX_CLIP_BYTES} bytes");
    ServiceError::field(Reason::TooLarge, FIELD, message).with("maxBytes", MAX_CLIP_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_clip_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            std::fs::write(folder.path().join(name), content).unwrap();
            folder.path().join(name)
        };
        assert_eq!(read(&file("good.wav", b"speech")).await.unwrap(), Bytes::from_static(b"speech"));
        let large = vec![0; MAX_CLIP_BYTES + 1];
        for bad in [
            file("empty.wav", b""),
            file("large.wav", &large),
            folder.path().into(),
            folder.path().join("none"),
        ] {
            let error = read(&bad).await.unwrap_err();
            assert_eq!(error.details.unwrap()["field"], "speakerClip", "{}", bad.display());
        }
    }
}
