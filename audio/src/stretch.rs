//! Speed and pitch for models that cannot do them.
//!
//! A model with a length scale speaks faster by itself, and better; this is for the others. Time is
//! stretched by WSOLA (Verhelst and Roelands, ICASSP 1993): windows of the input are laid over each other
//! at another pace, each shifted by the few milliseconds that make it continue the wave of the one
//! before. Pitch is shifted by stretching and then resampling back to the same length. Both work on a
//! whole segment: that is how segments are heard.

use std::f64::consts::PI;

use thiserror::Error;

use crate::resample::{ResampleError, resample};

/// Speeds that are honoured; 1 is unchanged.
pub const SPEEDS: std::ops::RangeInclusive<f32> = 0.25..=4.0;
/// Shifts of pitch that are honoured, in semitones.
pub const SEMITONES: std::ops::RangeInclusive<f32> = -12.0..=12.0;

/// Length of a window, in milliseconds: two periods of a very low voice.
const WINDOW_MS: u32 = 30;
/// How far a window may be shifted either way, in milliseconds: one period of a low voice.
const SEARCH_MS: u32 = 10;
/// A scale of the resampler for pitch: rates are ratios here, not Hz.
const PITCH_SCALE: f64 = 24_000.0;

/// Why speed or pitch could not be changed.
#[derive(Debug, Error)]
pub enum StretchError {
    /// A speed out of [`SPEEDS`].
    #[error("a speed of {0} is not supported (0.25 to 4)")]
    Speed(f32),
    /// A shift out of [`SEMITONES`].
    #[error("a pitch shift of {0} semitones is not supported (-12 to 12)")]
    Pitch(f32),
    /// The resampler refused.
    #[error("cannot resample for the pitch")]
    Resample(#[from] ResampleError),
}

/// A segment at another speed, its pitch unchanged: `1 / speed` times as long, to the sample.
///
/// # Errors
/// [`StretchError::Speed`] when the speed is out of range.
pub fn change_speed(samples: &[i16], sample_rate: u32, speed: f32) -> Result<Vec<i16>, StretchError> {
    if !SPEEDS.contains(&speed) {
        return Err(StretchError::Speed(speed));
    }
    Ok(stretch(samples, sample_rate, f64::from(speed)))
}

/// A segment at another pitch, its length unchanged.
///
/// # Errors
/// [`StretchError::Pitch`] when the shift is out of range.
pub fn change_pitch(samples: &[i16], sample_rate: u32, semitones: f32) -> Result<Vec<i16>, StretchError> {
    if !SEMITONES.contains(&semitones) {
        return Err(StretchError::Pitch(semitones));
    }
    let ratio = 2_f64.powf(f64::from(semitones) / 12.0);
    let to_rate = PITCH_SCALE.round() as u32;
    let from_rate = (PITCH_SCALE * ratio).round() as u32;
    let longer = stretch(samples, sample_rate, f64::from(to_rate) / f64::from(from_rate));
    let mut shifted = resample(&longer, from_rate, to_rate)?;
    shifted.resize(samples.len(), 0);
    Ok(shifted)
}

fn stretch(samples: &[i16], sample_rate: u32, speed: f64) -> Vec<i16> {
    let half = crate::pcm::samples_in_ms(WINDOW_MS, sample_rate).max(8) / 2;
    let length = (samples.len() as f64 / speed).round() as usize;
    if samples.len() <= half * 2 || (speed - 1.0).abs() < 1e-6 {
        // Shorter than a window there is no rhythm to change; only the length is set.
        let mut same = samples.to_vec();
        same.resize(length, 0);
        return same;
    }
    let search = crate::pcm::samples_in_ms(SEARCH_MS, sample_rate).max(1);
    let last_start = samples.len() - half * 2;
    let mut output = vec![0.0_f64; length + half * 2];
    // The first half window has nothing to overlap with.
    for at in 0..half {
        output[at] = f64::from(samples[at]) * (1.0 - rise(at, half));
    }
    let mut start = 0;
    for position in (0..length).step_by(half) {
        let wanted = ((position as f64 * speed) as usize).min(last_start);
        if position > 0 {
            start = best_start(samples, (start + half).min(last_start), wanted, search, half);
        }
        for at in 0..half {
            let gain = rise(at, half);
            output[position + at] += f64::from(samples[start + at]) * gain;
            output[position + half + at] += f64::from(samples[start + half + at]) * (1.0 - gain);
        }
    }
    output.truncate(length);
    output.into_iter().map(|value| value.round() as i16).collect()
}

/// The first half of a raised cosine; it and its mirror image add up to one.
fn rise(at: usize, half: usize) -> f64 {
    0.5 - 0.5 * (PI * (at as f64 + 0.5) / half as f64).cos()
}

/// The start near `wanted` from which the input looks most like its continuation at `natural`.
fn best_start(samples: &[i16], natural: usize, wanted: usize, search: usize, half: usize) -> usize {
    let last = samples.len() - half * 2;
    let target = &samples[natural..natural + half];
    let likeness = |start: usize| {
        let found = &samples[start..start + half];
        let (mut product, mut power) = (0.0, 1.0);
        // Every second sample will do: voices have little above a quarter of the rate.
        for (&a, &b) in target.iter().zip(found).step_by(2) {
            product += f64::from(a) * f64::from(b);
            power += f64::from(b) * f64::from(b);
        }
        product / power.sqrt()
    };
    let range = wanted.saturating_sub(search)..=(wanted + search).min(last);
    let ranked = range.map(|start| (likeness(start), start));
    ranked.fold((f64::NEG_INFINITY, wanted), |best, next| if next.0 > best.0 { next } else { best }).1
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;

    const RATE: u32 = 22_050;

    fn tone(hertz: f64, count: usize) -> Vec<i16> {
        (0..count).map(|at| (9_000.0 * (TAU * hertz * at as f64 / f64::from(RATE)).sin()) as i16).collect()
    }

    /// Zero crossings a second, upwards: the pitch of a pure tone.
    fn pitch(samples: &[i16]) -> f64 {
        let crossings = samples.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        crossings as f64 * f64::from(RATE) / samples.len() as f64
    }

    #[test]
    fn speed_changes_the_length_and_not_the_pitch() {
        let original = tone(200.0, 22_050);
        for speed in [0.25, 0.5, 0.9, 1.3, 2.0, 4.0] {
            let found = change_speed(&original, RATE, speed).unwrap();
            assert_eq!(found.len(), (22_050.0 / f64::from(speed)).round() as usize);
            assert!((pitch(&found) - 200.0).abs() < 6.0, "speed {speed}: {} Hz", pitch(&found));
            let steps = found.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap();
            assert!(steps < 1_200, "speed {speed}: a step of {steps}");
        }
    }

    #[test]
    fn pitch_changes_and_the_length_does_not() {
        let original = tone(300.0, 22_050);
        for semitones in [-12.0, -3.0, 4.0, 12.0] {
            let found = change_pitch(&original, RATE, semitones).unwrap();
            let expected = 300.0 * 2_f64.powf(f64::from(semitones) / 12.0);
            assert_eq!(found.len(), original.len());
            assert!((pitch(&found) / expected - 1.0).abs() < 0.03, "{semitones}: {} Hz", pitch(&found));
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        assert!(matches!(change_speed(&[], RATE, 0.2), Err(StretchError::Speed(_))));
        assert!(matches!(change_speed(&[], RATE, f32::NAN), Err(StretchError::Speed(_))));
        assert!(matches!(change_pitch(&[], RATE, 13.0), Err(StretchError::Pitch(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_samples_at_any_speed(
            samples in prop::collection::vec(any::<i16>(), 0..3_000), speed in 0.25f32..=4.0, semitones in -12f32..=12.0,
        ) {
            let found = change_speed(&samples, 8_000, speed).unwrap();
            prop_assert_eq!(found.len(), (samples.len() as f64 / f64::from(speed)).round() as usize);
            prop_assert_eq!(change_pitch(&samples, 8_000, semitones).unwrap().len(), samples.len());
        }
    }
}
