//! From samples to the bytes that a client asked for.
//!
//! Each format has an [`Encoder`]: samples go in as they come, bytes come out when they are ready. The
//! same encoder serves a live stream (length unknown, nothing is ever rewritten) and a file whose length
//! is known before it begins. [`encoder`] makes one; where a format cannot carry the stream's rate, a
//! resampler is put before it. Compressed formats are cargo features, all on by default; a format whose
//! encoder was left out of the build is refused by name. What comes out does not depend on how the
//! samples were cut into chunks.

#[cfg(feature = "flac")]
mod flac;
mod format;
#[cfg(feature = "mp3")]
mod mp3;
#[cfg(feature = "opus")]
mod opus;
mod plain;
#[cfg(any(feature = "flac", feature = "vorbis", feature = "opus"))]
mod shared;
#[cfg(feature = "vorbis")]
mod vorbis;

use thiserror::Error;

pub use chorus_protocol::AudioFormat;
pub use format::{carried_rate, is_built};

use crate::resample::{ResampleError, Resampler};

/// Why sound could not be encoded.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The format's encoder is not part of this build.
    #[error("this build has no encoder for {0}")]
    NotBuilt(AudioFormat),
    /// The format cannot carry this rate, nor can it be resampled.
    #[error("{format} cannot carry {sample_rate} Hz")]
    SampleRate {
        /// The format.
        format: AudioFormat,
        /// The rate, in Hz.
        sample_rate: u32,
    },
    /// The samples could not be brought to the format's rate.
    #[error("cannot resample for the encoder")]
    Resample(#[from] ResampleError),
    /// The encoder of the format failed.
    #[error("the {format} encoder failed")]
    Codec {
        /// The format.
        format: AudioFormat,
        /// What its encoder says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What an encoder has to know before it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Rate of the samples, in Hz.
    pub sample_rate: u32,
    /// How many samples will come, when that is known: then headers carry exact lengths. An `mp3` is
    /// given out only at its end then, because its first frame names its length.
    pub total_samples: Option<u64>,
}

/// Turns samples into the bytes of one format.
pub trait Encoder: Send {
    /// Encodes samples; the first bytes are the header. No samples are allowed: that is how a header is
    /// had before the first sound.
    ///
    /// # Errors
    /// Whatever the encoder refuses; the stream cannot go on then.
    fn push(&mut self, samples: &[i16]) -> Result<Vec<u8>, EncodeError>;

    /// Ends the stream; the last bytes. Nothing may be pushed after it.
    ///
    /// # Errors
    /// As for `push`.
    fn finish(&mut self) -> Result<Vec<u8>, EncodeError>;
}

/// An encoder for the format.
///
/// # Errors
/// [`EncodeError::NotBuilt`], [`EncodeError::SampleRate`], or the encoder's own refusal.
pub fn encoder(format: AudioFormat, config: &EncoderConfig) -> Result<Box<dyn Encoder>, EncodeError> {
    if config.sample_rate == 0 {
        return Err(EncodeError::SampleRate { format, sample_rate: 0 });
    }
    let rate = carried_rate(format, config.sample_rate);
    if rate == config.sample_rate {
        return encoder_at_rate(format, config);
    }
    let resampler = Resampler::new(config.sample_rate, rate)?;
    let total_samples = config.total_samples.map(|samples| resampler.length_after(samples));
    let inner = encoder_at_rate(format, &EncoderConfig { sample_rate: rate, total_samples })?;
    Ok(Box::new(Resampled { resampler, inner }))
}

fn encoder_at_rate(format: AudioFormat, config: &EncoderConfig) -> Result<Box<dyn Encoder>, EncodeError> {
    Ok(match format {
        AudioFormat::Wav => Box::new(plain::WavEncoder::new(config)),
        AudioFormat::Pcm => Box::new(plain::PcmEncoder),
        #[cfg(feature = "flac")]
        AudioFormat::Flac => Box::new(flac::FlacEncoder::new(config)?),
        #[cfg(feature = "mp3")]
        AudioFormat::Mp3 => Box::new(mp3::Mp3Encoder::new(config)?),
        #[cfg(feature = "opus")]
        AudioFormat::Opus => Box::new(opus::OpusEncoder::new(config)?),
        #[cfg(feature = "vorbis")]
        AudioFormat::Ogg => Box::new(vorbis::VorbisEncoder::new(config)?),
        #[allow(unreachable_patterns, reason = "reachable when a format's feature is off")]
        other => return Err(EncodeError::NotBuilt(other)),
    })
}

/// A whole recording as a file in memory.
///
/// # Errors
/// As for [`encoder`] and [`Encoder::push`].
pub fn encode_file(format: AudioFormat, samples: &[i16], sample_rate: u32) -> Result<Vec<u8>, EncodeError> {
    let config = EncoderConfig { sample_rate, total_samples: Some(samples.len() as u64) };
    let mut encoder = encoder(format, &config)?;
    let mut bytes = encoder.push(samples)?;
    bytes.extend(encoder.finish()?);
    Ok(bytes)
}

/// An encoder behind a resampler.
struct Resampled {
    resampler: Resampler,
    inner: Box<dyn Encoder>,
}

impl Encoder for Resampled {
    fn push(&mut self, samples: &[i16]) -> Result<Vec<u8>, EncodeError> {
        let mut resampled = Vec::new();
        self.resampler.push(samples, &mut resampled)?;
        self.inner.push(&resampled)
    }

    fn finish(&mut self) -> Result<Vec<u8>, EncodeError> {
        let mut resampled = Vec::new();
        self.resampler.finish(&mut resampled)?;
        let mut bytes = self.inner.push(&resampled)?;
        bytes.extend(self.inner.finish()?);
        Ok(bytes)
    }
}

/// Streams `samples` in chunks through an encoder that does not know their number.
#[cfg(test)]
fn encode_in_pieces(format: AudioFormat, samples: &[i16], sample_rate: u32, size: usize) -> Vec<u8> {
    let mut encoder = encoder(format, &EncoderConfig { sample_rate, total_samples: None }).unwrap();
    let mut bytes: Vec<u8> = samples.chunks(size).flat_map(|chunk| encoder.push(chunk).unwrap()).collect();
    bytes.extend(encoder.finish().unwrap());
    bytes
}

#[cfg(test)]
mod tests;
