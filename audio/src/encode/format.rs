//! What each format can carry.

use chorus_protocol::AudioFormat;

/// Rates of MPEG layer III, in Hz: MPEG-2.5, MPEG-2, MPEG-1.
const MP3_RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
/// Opus always decodes at this rate; so is it encoded here.
const OPUS_RATE: u32 = 48_000;
/// Beyond this, neither FLAC's frame headers nor Vorbis' speech modes go.
const HIGHEST_RATE: u32 = 48_000;
const LOWEST_VORBIS_RATE: u32 = 8_000;

/// The rate, in Hz, at which a stream of `sample_rate` is carried: the same where the format can, else the next higher one
/// that it has, else its highest.
pub fn carried_rate(format: AudioFormat, sample_rate: u32) -> u32 {
    match format {
        AudioFormat::Wav | AudioFormat::Pcm => sample_rate,
        AudioFormat::Opus => OPUS_RATE,
        AudioFormat::Flac => sample_rate.min(HIGHEST_RATE),
        AudioFormat::Ogg => sample_rate.clamp(LOWEST_VORBIS_RATE, HIGHEST_RATE),
        AudioFormat::Mp3 => MP3_RATES.into_iter().find(|&rate| rate >= sample_rate).unwrap_or(HIGHEST_RATE),
    }
}

/// Whether the format's encoder is part of this build.
pub fn is_built(format: AudioFormat) -> bool {
    match format {
        AudioFormat::Wav | AudioFormat::Pcm => true,
        AudioFormat::Mp3 => cfg!(feature = "mp3"),
        AudioFormat::Ogg => cfg!(feature = "vorbis"),
        AudioFormat::Opus => cfg!(feature = "opus"),
        AudioFormat::Flac => cfg!(feature = "flac"),
    }
}
