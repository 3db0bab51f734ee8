//! Is this the sound of this text? The last look at a segment before a listener hears it.
//!
//! A speech engine can fail without an error: half a second of nothing, a full-scale buzz, a minute of
//! babble for one word. The session therefore looks at each finished segment beside its text. The limits
//! are wide on purpose: a wrong alarm costs a retry and a mark against a healthy worker, so only what no
//! voice would ever do is a fault. Engines that do not speak (test tones) are not to be inspected.
//!
//! Sources of the figures. Level: 16-bit speech at any sane volume peaks above -30 dBFS; what stays
//! below -54 dBFS (64 of 32,768) is not heard at all. Clipping: even a recording driven 6 dB too hot
//! spends under 5 % of its samples at full scale. Duration: conversational English is about 15
//! characters a second (150 words a minute of 6 characters), the fastest screen-reader speech about 40;
//! the slowest reading is about 5. Details in [`expectation`].

pub mod expectation;

use std::time::Duration;

use thiserror::Error;

use crate::pcm;
use expectation::Expectation;

/// Limits of what passes; the defaults are those of the module's head.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthLimits {
    /// The loudest sample of a spoken text is at least this (of 32,768).
    pub least_peak: u16,
    /// The loudest 50 ms of a spoken text have at least this root mean square (of 32,768).
    pub least_loudness: f64,
    /// At most this share of samples at full scale, 0 to 1.
    pub most_clipped: f64,
    /// At most this mean value, as a share of full scale, either way.
    pub most_dc_offset: f64,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self { least_peak: 64, least_loudness: 16.0, most_clipped: 0.10, most_dc_offset: 0.10 }
    }
}

/// A finished segment and what it should be.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    /// The samples, 16-bit mono.
    pub samples: &'a [i16],
    /// Their rate in Hz.
    pub sample_rate: u32,
    /// The text that was to be spoken.
    pub text: &'a str,
    /// The speed that was asked for, 1.0 being the voice's own.
    pub speed: f32,
}

/// What was measured; for logs and figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// How long it lasts.
    pub duration: Duration,
    /// Largest magnitude, of 32,768.
    pub peak: u16,
    /// Root mean square of the loudest 50 ms, of 32,768.
    pub loudness: f64,
    /// Share of samples at full scale, 0 to 1.
    pub clipped: f64,
    /// Mean value as a share of full scale, -1 to 1.
    pub dc_offset: f64,
}

/// Why a segment cannot be the speech it should be.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum HealthFault {
    /// There are no samples, or they have no rate.
    #[error("the audio is empty")]
    Empty,
    /// Nothing can be heard.
    #[error("the audio is silent (peak {peak} of 32768)")]
    Silent {
        /// Largest magnitude, of 32,768.
        peak: u16,
    },
    /// Too much of it is at full scale.
    #[error("{:.0} % of the audio is clipped", clipped * 100.0)]
    Clipped {
        /// Share of samples at full scale, 0 to 1.
        clipped: f64,
    },
    /// It swings around a value far from zero.
    #[error("the audio has a constant offset of {:.0} % of full scale", offset * 100.0)]
    DcOffset {
        /// Mean value as a share of full scale, -1 to 1.
        offset: f64,
    },
    /// Nobody could say the text in that time.
    #[error("the audio lasts {duration_ms} ms, but its text needs at least {least_ms} ms")]
    TooShort {
        /// How long it lasts.
        duration_ms: u64,
        /// The shortest that passes.
        least_ms: u64,
    },
    /// Nobody would take so long for the text.
    #[error("the audio lasts {duration_ms} ms, but its text takes at most {most_ms} ms")]
    TooLong {
        /// How long it lasts.
        duration_ms: u64,
        /// The longest that passes.
        most_ms: u64,
    },
}

/// Measures a take and says whether it can be speech of its text.
///
/// A text without a letter or a digit may be silent and as short as it likes: voices say nothing for it.
///
/// # Errors
/// The first [`HealthFault`] found, in the order of the enum.
pub fn inspect(take: &Take<'_>, limits: &HealthLimits) -> Result<Measurement, HealthFault> {
    let expected = Expectation::of(take.text, take.speed);
    if take.sample_rate == 0 || (take.samples.is_empty() && expected.is_speakable) {
        return Err(HealthFault::Empty);
    }
    let found = measure(take.samples, take.sample_rate);
    if expected.is_speakable && (found.peak < limits.least_peak || found.loudness < limits.least_loudness) {
        return Err(HealthFault::Silent { peak: found.peak });
    }
    if found.clipped > limits.most_clipped {
        return Err(HealthFault::Clipped { clipped: found.clipped });
    }
    if found.dc_offset.abs() > limits.most_dc_offset {
        return Err(HealthFault::DcOffset { offset: found.dc_offset });
    }
    let duration_ms = found.duration.as_millis() as u64;
    let (least_ms, most_ms) = (expected.least.as_millis() as u64, expected.most.as_millis() as u64);
    if duration_ms < least_ms {
        return Err(HealthFault::TooShort { duration_ms, least_ms });
    }
    if duration_ms > most_ms {
        return Err(HealthFault::TooLong { duration_ms, most_ms });
    }
    Ok(found)
}

/// Measures samples (16-bit mono) at a rate in Hz.
pub fn measure(samples: &[i16], sample_rate: u32) -> Measurement {
    let count = samples.len().max(1) as f64;
    let window = pcm::samples_in_ms(50, sample_rate).max(1);
    let (mut whole, mut loudest) = (Sums::default(), 0.0f64);
    for part in samples.chunks(window) {
        let sums = part.chunks(BLOCK_SAMPLES).map(Sums::of_block).fold(Sums::default(), Sums::plus);
        loudest = loudest.max(sums.squares as f64 / part.len() as f64);
        whole = whole.plus(sums);
    }
    Measurement {
        duration: pcm::duration(samples.len(), sample_rate),
        peak: whole.peak,
        loudness: loudest.sqrt(),
        clipped: whole.clipped as f64 / count,
        dc_offset: whole.values as f64 / count / 32_768.0,
    }
}

/// Samples whose values sum up in 32 bits, so that a block is summed many samples at a time.
const BLOCK_SAMPLES: usize = 1024;
/// Samples this loud count as clipped.
const CLIPPED_FROM: u16 = 32_760;

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    peak: u16,
    clipped: u64,
    values: i64,
    squares: u64,
}

impl Sums {
    /// Every listener waits for this at every segment, so its loops are written for the compiler to make vectors of:
    /// one plain reduction each.
    fn of_block(block: &[i16]) -> Self {
        let values: i32 = block.iter().map(|&sample| i32::from(sample)).sum();
        let squares: u64 =
            block.iter().map(|&sample| u64::from(i32::from(sample).pow(2).unsigned_abs())).sum();
        let clipped: u32 = block.iter().map(|sample| u32::from(sample.unsigned_abs() >= CLIPPED_FROM)).sum();
        let peak = block.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
        Self { peak, clipped: clipped.into(), values: values.into(), squares }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            peak: self.peak.max(other.peak),
            clipped: self.clipped + other.clipped,
            values: self.values + other.values,
            squares: self.squares + other.squares,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    const RATE: u32 = 22_050;

    /// A voice-like signal: 120 Hz pulses with formant-like overtones, loud and soft by syllables.
    fn voice(seconds: f64, amplitude: f64) -> Vec<i16> {
        let count = (seconds * f64::from(RATE)) as usize;
        let sample = |at: usize| {
            let time = at as f64 / f64::from(RATE);
            let syllable = (0.5 - 0.5 * (TAU * 4.0 * time).cos()).powi(2);
            let harmonics = (1..12).map(|n| (TAU * 120.0 * f64::from(n) * time).sin() / f64::from(n));
            (amplitude * syllable * harmonics.sum::<f64>() / 1.9) as i16
        };
        (0..count).map(sample).collect()
    }

    fn look(samples: &[i16], text: &str) -> Result<Measurement, HealthFault> {
        inspect(&Take { samples, sample_rate: RATE, text, speed: 1.0 }, &HealthLimits::default())
    }

    #[test]
    fn speech_passes_loud_or_soft_fast_or_slow() {
        let text = "The quick brown fox jumps over the lazy dog near the river bank.";
        for seconds in [1.8, 4.0, 12.0] {
            for amplitude in [300.0, 8_000.0, 32_000.0] {
                look(&voice(seconds, amplitude), text).unwrap();
            }
        }
        look(&voice(0.15, 8_000.0), "Hi.").unwrap();
        look(&voice(1.2, 8_000.0), "No.").unwrap();
        look(&voice(9.0, 8_000.0), "1234567890123").unwrap();
        look(&voice(2.5, 8_000.0), "WWW").unwrap();
        look(&[], "…").unwrap();
        look(&[0; 100], "***").unwrap();
    }

    #[test]
    fn what_is_no_speech_is_named() {
        let text = "The quick brown fox jumps over the lazy dog.";
        assert_eq!(look(&[], text), Err(HealthFault::Empty));
        assert_eq!(look(&[0; 66_150], text), Err(HealthFault::Silent { peak: 0 }));
        let mut click = vec![0; 66_150];
        click[7] = 200;
        assert_eq!(look(&click, text), Err(HealthFault::Silent { peak: 200 }));
        let square: Vec<i16> =
            (0..66_150).map(|at| if at / 50 % 2 == 0 { 32_767 } else { -32_768 }).collect();
        assert!(matches!(look(&square, text), Err(HealthFault::Clipped { .. })));
        let shifted: Vec<i16> = voice(3.0, 8_000.0).iter().map(|sample| sample + 9_000).collect();
        assert!(matches!(look(&shifted, text), Err(HealthFault::DcOffset { .. })));
        assert!(matches!(
            look(&voice(0.3, 8_000.0), text),
            Err(HealthFault::TooShort { duration_ms: 300, .. })
        ));
        assert!(matches!(look(&voice(60.0, 8_000.0), "Hello."), Err(HealthFault::TooLong { .. })));
    }

    #[test]
    fn a_take_without_a_rate_is_empty() {
        let take = Take { samples: &[1], sample_rate: 0, text: "a", speed: 1.0 };
        assert_eq!(inspect(&take, &HealthLimits::default()), Err(HealthFault::Empty));
    }
}
