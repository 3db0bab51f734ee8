//! `mp3`: what every player knows.
//!
//! Encoded by `rusty_mp3`. A stream's first frame would be a tag with the length of the whole, which is
//! not known while streaming; it is left out then. A recording of known length gets the tag, and with it
//! players that cut the encoder's delay off again.

use rusty_mp3::{Mp3Encoder as Inner, Mp3EncoderConfig};

use super::{AudioFormat, EncodeError, Encoder, EncoderConfig};

/// Rates from here on are MPEG-1, whose constant-rate mode holds everything back until the end (its bit
/// reservoir); they are encoded at variable rate instead.
const FIRST_MPEG1_RATE: u32 = 32_000;
/// Quality of variable rate on LAME's scale, 0 the best and 9 the smallest.
const VARIABLE_QUALITY: f32 = 2.0;
/// Constant rate for MPEG-2 and 2.5: transparent for one voice at 24 kHz.
const CONSTANT_KBPS: u32 = 96;
const CONSTANT_KBPS_MPEG25: u32 = 64;

pub(super) struct Mp3Encoder {
    inner: Inner,
    sample_rate: u32,
    /// Whether all frames wait for the end, so that the tag is complete.
    is_file: bool,
    skip_tag: bool,
}

impl Mp3Encoder {
    pub(super) fn new(config: &EncoderConfig) -> Result<Self, EncodeError> {
        let settings = match config.sample_rate {
            rate if rate >= FIRST_MPEG1_RATE => {
                Mp3EncoderConfig { bitrate_kbps: 0, vbr_quality: Some(VARIABLE_QUALITY) }
            }
            rate if rate >= 16_000 => Mp3EncoderConfig { bitrate_kbps: CONSTANT_KBPS, vbr_quality: None },
            _ => Mp3EncoderConfig { bitrate_kbps: CONSTANT_KBPS_MPEG25, vbr_quality: None },
        };
        let mut inner = Inner::new(settings);
        // An empty push fixes the format, so that an empty stream is an mp3 too.
        inner.push_pcm_s16(&[], 1, config.sample_rate).map_err(failed)?;
        let is_file = config.total_samples.is_some();
        Ok(Self { inner, sample_rate: config.sample_rate, is_file, skip_tag: !is_file })
    }

    fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(packet) = self.inner.next_packet() {
            if !std::mem::take(&mut self.skip_tag) {
                bytes.extend(packet);
            }
        }
        bytes
    }
}

impl Encoder for Mp3Encoder {
    fn push(&mut self, samples: &[i16]) -> Result<Vec<u8>, EncodeError> {
        self.inner.push_pcm_s16(samples, 1, self.sample_rate).map_err(failed)?;
        Ok(if self.is_file { Vec::new() } else { self.drain() })
    }

    fn finish(&mut self) -> Result<Vec<u8>, EncodeError> {
        self.inner.finish();
        Ok(self.drain())
    }
}

fn failed(error: rusty_mp3::Error) -> EncodeError {
    EncodeError::Codec { format: AudioFormat::Mp3, source: error.to_string().into() }
}
