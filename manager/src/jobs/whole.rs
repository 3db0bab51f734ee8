//! From stored pieces to one file: read one after another, checked, encoded off the async threads.

use bytes::Bytes;
use chorus_audio::checksum::Crc32;
use chorus_audio::encode::{Encoder, EncoderConfig, encoder};
use chorus_audio::pcm;
use chorus_bus::BusErrorKind;
use chorus_protocol::audio::AudioRef;
use chorus_protocol::durable::DurableJob;
use chorus_protocol::{Reason, ServiceError, names};

use super::store::JobStore;

/// Encodes a job's audio and stores it.
///
/// # Errors
/// Retryable when the broker did not answer; not when a piece is gone or damaged, or the encoder refuses.
pub(super) async fn store_whole(
    store: &JobStore,
    key: &str,
    job: &DurableJob,
) -> Result<AudioRef, ServiceError> {
    let progress = &job.progress;
    let config = EncoderConfig { sample_rate: progress.sample_rate, total_samples: Some(progress.samples) };
    let mut encoding = encoder(job.format, &config).map_err(|error| refused(&error))?;
    let (mut file, mut crc) = (Vec::new(), Crc32::new());
    for (epoch, piece) in progress.each_piece() {
        let name = names::job_piece_key(key, epoch, piece);
        let pcm = store.audio.get(&name).await.map_err(|error| match error.kind {
            BusErrorKind::NotFound | BusErrorKind::Malformed => output(error.to_string()),
            _ => error.into_service_error(),
        })?;
        crc.update(&pcm);
        let (encoder, bytes) = push(encoding, pcm).await?;
        encoding = encoder;
        file.extend(bytes);
    }
    if crc.value() != progress.crc32 {
        return Err(output("the stored pieces are not those that were spoken".into()));
    }
    file.extend(finish(encoding).await?);
    let name = names::job_audio_key(key, job.epoch, job.format.name());
    store.audio.put(&name, file.into()).await.map_err(|error| error.into_service_error())?;
    Ok(AudioRef {
        format: job.format,
        sample_rate: progress.sample_rate,
        data: None,
        bucket: Some(names::AUDIO_BUCKET.to_owned()),
        key: Some(name),
    })
}

type Encoding = Box<dyn Encoder>;

async fn push(mut encoding: Encoding, bytes: Bytes) -> Result<(Encoding, Vec<u8>), ServiceError> {
    let pushing = move || {
        let samples = pcm::from_bytes(&bytes).ok_or_else(|| output("a piece ends in mid-sample".into()))?;
        let encoded = encoding.push(&samples).map_err(|error| refused(&error))?;
        Ok((encoding, encoded))
    };
    tokio::task::spawn_blocking(pushing)
        .await
        .unwrap_or_else(|_panic| Err(output("the encoder failed".into())))
}

async fn finish(mut encoding: Encoding) -> Result<Vec<u8>, ServiceError> {
    let finishing = move || encoding.finish().map_err(|error| refused(&error));
    tokio::task::spawn_blocking(finishing)
        .await
        .unwrap_or_else(|_panic| Err(output("the encoder failed".into())))
}

fn refused(error: &chorus_audio::encode::EncodeError) -> ServiceError {
    output(format!("the audio cannot be encoded: {error}"))
}

fn output(message: String) -> ServiceError {
    ServiceError::new(Reason::Output, message)
}
