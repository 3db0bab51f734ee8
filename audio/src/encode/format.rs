//! The formats by name.

use std::fmt;
use std::str::FromStr;

use super::EncodeError;

/// The formats that clients may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioFormat {
    /// RIFF WAVE, 16-bit PCM.
    Wav,
    /// MPEG layer III.
    Mp3,
    /// Vorbis in Ogg.
    Ogg,
    /// Opus in Ogg.
    Opus,
    /// FLAC in its own container.
    Flac,
    /// Samples without a header, s16le.
    Pcm,
}

/// Rates of MPEG layer III, in Hz: MPEG-2.5, MPEG-2, MPEG-1.
const MP3_RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
/// Opus always decodes at this rate; so is it encoded here.
const OPUS_RATE: u32 = 48_000;
/// Beyond this, neither FLAC's frame headers nor Vorbis' speech modes go.
const HIGHEST_RATE: u32 = 48_000;
const LOWEST_VORBIS_RATE: u32 = 8_000;

impl AudioFormat {
    /// Every format, whether or not its encoder is built in.
    pub const ALL: [Self; 6] = [Self::Wav, Self::Mp3, Self::Ogg, Self::Opus, Self::Flac, Self::Pcm];

    /// Its name, as clients write it; also the file name extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::Ogg => "ogg",
            Self::Opus => "opus",
            Self::Flac => "flac",
            Self::Pcm => "pcm",
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mpeg",
            Self::Ogg => "audio/ogg",
            Self::Opus => "audio/ogg; codecs=opus",
            Self::Flac => "audio/flac",
            Self::Pcm => "audio/pcm",
        }
    }

    /// The rate, in Hz, at which a stream of `sample_rate` is carried: the same where the format can,
    /// else the next higher one that it has, else its highest.
    pub fn carried_rate(self, sample_rate: u32) -> u32 {
        match self {
            Self::Wav | Self::Pcm => sample_rate,
            Self::Opus => OPUS_RATE,
            Self::Flac => sample_rate.min(HIGHEST_RATE),
            Self::Ogg => sample_rate.clamp(LOWEST_VORBIS_RATE, HIGHEST_RATE),
            Self::Mp3 => MP3_RATES.into_iter().find(|&rate| rate >= sample_rate).unwrap_or(HIGHEST_RATE),
        }
    }

    /// Whether its encoder is part of this build.
    pub fn is_built(self) -> bool {
        match self {
            Self::Wav | Self::Pcm => true,
            Self::Mp3 => cfg!(feature = "mp3"),
            Self::Ogg => cfg!(feature = "vorbis"),
            Self::Opus => cfg!(feature = "opus"),
            Self::Flac => cfg!(feature = "flac"),
        }
    }
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for AudioFormat {
    type Err = EncodeError;

    fn from_str(name: &str) -> Result<Self, EncodeError> {
        let found = Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| EncodeError::UnknownFormat(name.to_owned()))
    }
}
