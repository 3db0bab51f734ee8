//! Changing the rate of a stream, with the quality that speech deserves.
//!
//! Models speak at their own rate (22.05 kHz mostly); some clients assume 24 kHz, and Opus wants 48. The
//! work is done by `rubato`'s FFT resampler, which is transparent to 16 bits below 90 % of the smaller
//! band. Its start-up delay is cut off and its tail flushed, so that a stream keeps its length to the
//! sample and two streams joined stay in time. What comes out does not depend on how samples arrive.

use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Fft, FixedSync, Resampler as _};
use thiserror::Error;

/// Samples that are resampled at a time: 23 ms at 22.05 kHz.
const CHUNK_SAMPLES: usize = 512;
/// Rates that are accepted, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;

/// Why a stream could not be resampled.
#[derive(Debug, Error)]
pub enum ResampleError {
    /// A rate out of range.
    #[error("a rate of {0} Hz is not supported (4000 to 192000)")]
    Rate(u32),
    /// The resampler could not be made for these rates.
    #[error("cannot resample between these rates")]
    Construction(#[from] rubato::ResamplerConstructionError),
    /// The resampler failed.
    #[error("resampling failed")]
    Process(#[from] rubato::ResampleError),
    /// The resampler's buffers do not fit.
    #[error("resampling failed: {0}")]
    Buffer(#[from] rubato::audioadapter_buffers::SizeError),
}

/// Resamples one stream of 16-bit mono samples.
pub struct Resampler {
    /// `None` when the rates are equal: samples pass through.
    inner: Option<Fft<f32>>,
    from_rate: u32,
    to_rate: u32,
    /// Input that waits for a whole chunk.
    waiting: Vec<f32>,
    taken_samples: u64,
    given_samples: u64,
    /// Output of the start-up delay still to be dropped.
    to_drop_samples: usize,
}

impl Resampler {
    /// A resampler between two rates in Hz.
    ///
    /// # Errors
    /// [`ResampleError::Rate`] for a rate out of range.
    pub fn new(from_rate: u32, to_rate: u32) -> Result<Self, ResampleError> {
        if let Some(&rate) = [from_rate, to_rate].iter().find(|&rate| !RATES.contains(rate)) {
            return Err(ResampleError::Rate(rate));
        }
        let make = || Fft::new(from_rate as usize, to_rate as usize, CHUNK_SAMPLES, 1, FixedSync::Input);
        let inner = if from_rate == to_rate { None } else { Some(make()?) };
        let to_drop_samples = inner.as_ref().map_or(0, |inner| inner.output_delay());
        Ok(Self {
            inner,
            from_rate,
            to_rate,
            waiting: Vec::new(),
            taken_samples: 0,
            given_samples: 0,
            to_drop_samples,
        })
    }

    /// Takes samples and appends to `output` what is ready.
    ///
    /// # Errors
    /// [`ResampleError`] when the resampler fails; the stream cannot go on then.
    pub fn push(&mut self, samples: &[i16], output: &mut Vec<i16>) -> Result<(), ResampleError> {
        if self.inner.is_none() {
            output.extend_from_slice(samples);
            return Ok(());
        }
        self.taken_samples += samples.len() as u64;
        self.waiting.extend(samples.iter().map(|&sample| f32::from(sample)));
        self.run(output)
    }

    /// Ends the stream: the rest of its output. Its whole length is then that of the input in time,
    /// rounded to the nearest sample.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub fn finish(&mut self, output: &mut Vec<i16>) -> Result<(), ResampleError> {
        if self.inner.is_none() {
            return Ok(());
        }
        let total = self.length_after(self.taken_samples);
        let begin = output.len() as u64;
        let owed = total.saturating_sub(self.given_samples);
        while (output.len() as u64) - begin < owed {
            let missing = self.chunk_samples().saturating_sub(self.waiting.len()).max(1);
            self.waiting.extend(std::iter::repeat_n(0.0, missing));
            self.run(output)?;
        }
        output.truncate((begin + owed) as usize);
        Ok(())
    }

    /// How many samples a stream of `samples` has at the new rate.
    pub fn length_after(&self, samples: u64) -> u64 {
        let (from, to) = (u128::from(self.from_rate), u128::from(self.to_rate));
        let length = (u128::from(samples) * to + from / 2) / from;
        u64::try_from(length).unwrap_or(u64::MAX)
    }

    fn chunk_samples(&self) -> usize {
        self.inner.as_ref().map_or(1, |inner| inner.input_frames_next())
    }

    /// Resamples the whole chunks that wait.
    fn run(&mut self, output: &mut Vec<i16>) -> Result<(), ResampleError> {
        let Some(inner) = self.inner.as_mut() else { return Ok(()) };
        while self.waiting.len() >= inner.input_frames_next() {
            let length = inner.input_frames_next();
            let chunk = [self.waiting.drain(..length).collect::<Vec<f32>>()];
            let ready = inner.process(&SequentialSliceOfVecs::new(&chunk, 1, length)?, None)?.take_data();
            let dropped = ready.len().min(self.to_drop_samples);
            self.to_drop_samples -= dropped;
            self.given_samples += (ready.len() - dropped) as u64;
            // A float to integer cast stops at the ends of the range: an overshoot is clipped.
            output.extend(ready[dropped..].iter().map(|&value| value.round() as i16));
        }
        Ok(())
    }
}

/// A whole recording at another rate.
///
/// # Errors
/// As for [`Resampler::new`] and [`Resampler::push`].
pub fn resample(samples: &[i16], from_rate: u32, to_rate: u32) -> Result<Vec<i16>, ResampleError> {
    let mut resampler = Resampler::new(from_rate, to_rate)?;
    let mut output = Vec::new();
    resampler.push(samples, &mut output)?;
    resampler.finish(&mut output)?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;

    fn tone(hertz: f64, rate: u32, count: usize) -> Vec<i16> {
        let sample =
            |at: usize| (12_000.0 * (TAU * hertz * at as f64 / f64::from(rate)).sin()).round() as i16;
        (0..count).map(sample).collect()
    }

    #[test]
    fn a_tone_stays_a_tone_in_time() {
        for (from, to) in
            [(22_050, 24_000), (22_050, 48_000), (24_000, 22_050), (16_000, 48_000), (48_000, 16_000)]
        {
            let count = from as usize;
            let found = resample(&tone(1_000.0, from, count), from, to).unwrap();
            assert_eq!(found.len(), to as usize);
            let expected = tone(1_000.0, to, to as usize);
            let inside = 2_000..found.len() - 2_000;
            let worst = inside.map(|at| found[at].abs_diff(expected[at])).max().unwrap();
            assert!(worst <= 12, "{from} to {to}: off by {worst} of 12000");
        }
    }

    #[test]
    fn rates_out_of_range_are_refused() {
        assert!(matches!(Resampler::new(22_050, 0), Err(ResampleError::Rate(0))));
        assert!(matches!(Resampler::new(1_000_000, 8_000), Err(ResampleError::Rate(1_000_000))));
    }

    proptest! {
        #[test]
        fn chunks_leave_no_trace(
            samples in prop::collection::vec(any::<i16>(), 0..3_000), size in 1usize..2_000, same in any::<bool>(),
        ) {
            let to = if same { 22_050 } else { 24_000 };
            let whole = resample(&samples, 22_050, to).unwrap();
            let mut resampler = Resampler::new(22_050, to).unwrap();
            let mut output = Vec::new();
            for chunk in samples.chunks(size) {
                resampler.push(chunk, &mut output).unwrap();
            }
            resampler.finish(&mut output).unwrap();
            prop_assert_eq!(&output, &whole);
            let exact = samples.len() as f64 * f64::from(to) / 22_050.0;
            prop_assert!((whole.len() as f64 - exact).abs() <= 0.5);
        }
    }
}
