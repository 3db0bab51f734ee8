//! The file that a script has spoken into, as checked samples.

use std::io::Cursor;
use std::path::Path;

use bytes::Bytes;
use chorus_audio::stretch::{change_pitch, change_speed};
use chorus_protocol::adapt::Fields;
use chorus_protocol::adapt::engine::without_audio;
use chorus_protocol::audio::AudioRef;
use chorus_protocol::job::MAX_CHUNK_BYTES;
use chorus_protocol::pipe::SpokenAnswer;
use chorus_protocol::{Reason, ServiceError};
use hound::{SampleFormat, WavReader};

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Rates that speech can have, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=96_000;

/// What was spoken: mono samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// 16-bit mono samples.
    pub samples: Vec<i16>,
    /// Samples per second.
    pub sample_rate: u32,
}

/// Reads what an answer speaks of: the audio inside it, else the file that was asked for, else the one that it names. Both
/// files are removed.
///
/// # Errors
/// When there is no file, or it is not the audio that it should be.
pub async fn take(answer: &Fields, asked_for: &Path) -> Result<Take, ServiceError> {
    let inside = answer.get("audio").and_then(|audio| serde_json::from_value::<AudioRef>(audio.clone()).ok());
    if let Some(data) = inside.and_then(|audio| audio.data) {
        return read(&data.0);
    }
    let named = answer.get("outputPath").and_then(serde_json::Value::as_str).map(Path::new);
    let place = match named {
        Some(named) if !asked_for.exists() => named,
        _ => asked_for,
    };
    let unread = |error: std::io::Error| {
        let message = format!("the engine's file {} cannot be read: {error}", place.display());
        ServiceError::new(Reason::EngineProtocol, message)
    };
    let about = tokio::fs::metadata(place).await;
    let about = about.map_err(|error| if named.is_none() { without_audio(answer) } else { unread(error) })?;
    if about.len() > MAX_FILE_BYTES {
        let message =
            format!("the engine's file is {} bytes; at most {MAX_FILE_BYTES} are read", about.len());
        return Err(ServiceError::new(Reason::EngineProtocol, message));
    }
    let bytes = tokio::fs::read(place).await.map_err(unread)?;
    if let Err(error) = tokio::fs::remove_file(place).await {
        tracing::debug!(%error, place = %place.display(), "an engine's file was not removed");
    }
    read(&bytes)
}

/// A WAV file as samples: 8 to 32 bits, integer or float; several channels are mixed into one.
///
/// # Errors
/// When it is none, or holds no samples.
pub fn read(bytes: &[u8]) -> Result<Take, ServiceError> {
    let broken =
        |why: String| ServiceError::new(Reason::EngineProtocol, format!("the engine's audio: {why}"));
    let mut reader = WavReader::new(Cursor::new(bytes)).map_err(|error| broken(error.to_string()))?;
    let spec = reader.spec();
    if !RATES.contains(&spec.sample_rate) || spec.channels == 0 {
        return Err(broken(format!("{} Hz, {} channels", spec.sample_rate, spec.channels)));
    }
    let wide: Result<Vec<f32>, hound::Error> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().map(|sample| Ok(sample? * 32_768.0)).collect(),
        SampleFormat::Int => {
            let scale = 32_768.0 / 2_f32.powi(i32::from(spec.bits_per_sample) - 1);
            reader.samples::<i32>().map(|sample| Ok(sample? as f32 * scale)).collect()
        }
    };
    let wide = wide.map_err(|error| broken(error.to_string()))?;
    let channels = usize::from(spec.channels);
    let mixed = wide.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32);
    // A cast saturates; NaN becomes silence.
    let samples: Vec<i16> = mixed.map(|sample| sample.round() as i16).collect();
    if samples.is_empty() {
        return Err(ServiceError::new(Reason::BadAudio, "the engine's file holds no samples"));
    }
    Ok(Take { samples, sample_rate: spec.sample_rate })
}

impl Take {
    /// With the speed and pitch that the script could not make.
    pub(super) fn changed(mut self, speed: Option<f32>, pitch: Option<f32>) -> Result<Self, ServiceError> {
        let refused = |error: chorus_audio::stretch::StretchError| {
            ServiceError::new(Reason::UnsupportedOption, error.to_string())
        };
        if let Some(speed) = speed.filter(|speed| (speed - 1.0).abs() > f32::EPSILON) {
            self.samples = change_speed(&self.samples, self.sample_rate, speed).map_err(refused)?;
        }
        if let Some(semitones) = pitch.filter(|semitones| semitones.abs() > f32::EPSILON) {
            self.samples = change_pitch(&self.samples, self.sample_rate, semitones).map_err(refused)?;
        }
        Ok(self)
    }

    /// As pieces of a run; the last is in the answer.
    pub(super) fn pieces(self, engine_ms: f64) -> (Vec<Bytes>, SpokenAnswer) {
        let pcm: Bytes = self.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let last_at = pcm.len().saturating_sub(1) / MAX_CHUNK_BYTES * MAX_CHUNK_BYTES;
        let pieces: Vec<Bytes> = (0..last_at / MAX_CHUNK_BYTES)
            .map(|piece| pcm.slice(piece * MAX_CHUNK_BYTES..(piece + 1) * MAX_CHUNK_BYTES))
            .collect();
        let seq = pieces.len() as u32;
        let answer = SpokenAnswer {
            seq,
            data: pcm.slice(last_at..).into(),
            chunks: seq + 1,
            samples: self.samples.len() as u64,
            sample_rate: self.sample_rate,
            crc32: crc32fast::hash(&pcm),
            engine_ms,
            warnings: Vec::new(),
        };
        (pieces, answer)
    }
}

#[cfg(test)]
mod tests {
    use hound::{WavSpec, WavWriter};
    use proptest::prelude::*;

    use super::*;

    fn wav(spec: WavSpec, samples: &[i32]) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        for &sample in samples {
            match spec.sample_format {
                SampleFormat::Int => writer.write_sample(sample).unwrap(),
                SampleFormat::Float => writer.write_sample(sample as f32 / 32_768.0).unwrap(),
            }
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    fn spec(bits: u16, channels: u16, sample_format: SampleFormat) -> WavSpec {
        WavSpec { channels, sample_rate: 22_050, bits_per_sample: bits, sample_format }
    }

    #[test]
    fn every_usual_kind_of_wav_is_read() {
        let read = |spec, samples: &[i32]| read(&wav(spec, samples)).unwrap().samples;
        assert_eq!(read(spec(16, 1, SampleFormat::Int), &[1, -2, 32_767]), [1, -2, 32_767]);
        assert_eq!(read(spec(24, 1, SampleFormat::Int), &[256, -512]), [1, -2]);
        assert_eq!(read(spec(32, 1, SampleFormat::Float), &[5, -6]), [5, -6]);
        assert_eq!(read(spec(16, 2, SampleFormat::Int), &[10, 20, -4, -4]), [15, -4]);
    }

    #[test]
    fn what_is_no_speech_is_refused() {
        assert_eq!(read(b"RIFF").unwrap_err().reason(), Some(Reason::EngineProtocol));
        let empty = wav(spec(16, 1, SampleFormat::Int), &[]);
        assert_eq!(read(&empty).unwrap_err().reason(), Some(Reason::BadAudio));
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole_in_order(len in 1usize..40_000) {
            let samples: Vec<i16> = (0..len).map(|at| at as i16).collect();
            let (pieces, answer) = Take { samples: samples.clone(), sample_rate: 22_050 }.pieces(1.0);
            let mut pcm: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            prop_assert!(pieces.iter().all(|piece| piece.len() == MAX_CHUNK_BYTES));
            prop_assert!(!answer.data.0.is_empty() && answer.data.0.len() <= MAX_CHUNK_BYTES);
            pcm.extend_from_slice(&answer.data.0);
            prop_assert_eq!(answer.crc32, crc32fast::hash(&pcm));
            prop_assert_eq!((answer.chunks as usize, answer.samples as usize), (pieces.len() + 1, len));
            prop_assert_eq!(pcm, samples.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read = read(&bytes);
            let mut wav = wav(spec(16, 1, SampleFormat::Int), &[1, 2, 3]);
            for (at, byte) in bytes.iter().enumerate().take(wav.len()) {
                wav[at] ^= byte;
            }
            let _read = read(&wav);
        }
    }
}
