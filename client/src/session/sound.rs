//! A segment's samples as the listener gets them: joined softly to what is before them, after their pause, at the rate that
//! was asked for.
//!
//! Each segment is treated by itself, so that what is heard depends neither on how the text was windowed nor on when its
//! neighbours come: soft ends make every joint one from near silence to near silence, and the length is exact to half a
//! sample.

use std::time::Duration;

use bytes::Bytes;
use chorus_audio::joint::{JointConfig, softened};
use chorus_audio::pcm;
use chorus_audio::resample::resample;
use chorus_protocol::{Reason, ServiceError};

/// The segment with the pause before it. Untouched where nothing is to be done to it.
pub(super) fn heard(
    audio: Bytes,
    from_rate: u32,
    to_rate: u32,
    pause_ms: u32,
) -> Result<Bytes, ServiceError> {
    let wrong = |why: String| ServiceError::new(Reason::BadAudio, why);
    let mut audio = audio;
    if let Some(soft) = softened(&audio, &JointConfig::at(from_rate)) {
        audio = soft.into();
    }
    if from_rate != to_rate {
        let samples = pcm::from_bytes(&audio).ok_or_else(|| wrong("half a sample came".into()))?;
        let resampled = resample(&samples, from_rate, to_rate).map_err(|e| wrong(e.to_string()))?;
        audio = pcm::to_bytes(&resampled).into();
    }
    let silence_bytes = pcm::samples_in_ms(pause_ms, to_rate) * pcm::SAMPLE_BYTES;
    if silence_bytes == 0 {
        return Ok(audio);
    }
    let mut joined = Vec::with_capacity(silence_bytes + audio.len());
    joined.resize(silence_bytes, 0);
    joined.extend_from_slice(&audio);
    Ok(joined.into())
}

/// How long it sounds.
pub(super) fn duration(pcm: &Bytes, rate: u32) -> Duration {
    Duration::from_secs_f64((pcm.len() / pcm::SAMPLE_BYTES) as f64 / f64::from(rate.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_audio_passes_untouched_and_a_step_is_faded() {
        let soft = Bytes::from(pcm::to_bytes(&[10, 900, -900, -10]));
        assert_eq!(heard(soft.clone(), 16_000, 16_000, 0).unwrap(), soft);
        let loud = Bytes::from(pcm::to_bytes(&[9_000; 400]));
        let faded = pcm::from_bytes(&heard(loud, 16_000, 16_000, 10).unwrap()).unwrap();
        assert_eq!((faded.len(), faded[159], faded[160], faded[360], faded[559]), (560, 0, 0, 9_000, 0));
    }

    #[test]
    fn another_rate_keeps_the_time() {
        let second = Bytes::from(pcm::to_bytes(&vec![50; 22_050]));
        let pcm = heard(second, 22_050, 24_000, 500).unwrap();
        assert_eq!(pcm.len(), (12_000 + 24_000) * 2);
        assert!(heard(Bytes::from_static(&[0, 0]), 1, 24_000, 0).is_err());
    }
}
