//! Samples as bytes and as time: signed 16-bit, little-endian, one channel (s16le mono).
//!
//! This is the form in which audio travels from the engine to the session, and the body of `wav` and
//! `pcm` output. Chunks on the wire may be cut anywhere; [`SampleReader`] puts a sample together that was
//! cut in two.

use std::time::Duration;

/// Bytes of one sample.
pub const SAMPLE_BYTES: usize = 2;

/// The samples as s16le bytes.
pub fn to_bytes(samples: &[i16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(samples.len() * SAMPLE_BYTES);
    extend_bytes(&mut bytes, samples);
    bytes
}

/// Appends the samples as s16le bytes.
pub fn extend_bytes(bytes: &mut Vec<u8>, samples: &[i16]) {
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
}

/// The samples in s16le bytes; `None` when the length is odd, which no whole recording has.
pub fn from_bytes(bytes: &[u8]) -> Option<Vec<i16>> {
    let (pairs, rest) = bytes.as_chunks::<SAMPLE_BYTES>();
    rest.is_empty().then(|| pairs.iter().map(|&pair| i16::from_le_bytes(pair)).collect())
}

/// Reads samples from bytes that arrive in pieces of any length.
#[derive(Debug, Clone, Default)]
pub struct SampleReader {
    half: Option<u8>,
}

impl SampleReader {
    /// Appends the samples that `bytes` completes to `samples`.
    pub fn push(&mut self, bytes: &[u8], samples: &mut Vec<i16>) {
        let mut bytes = bytes;
        if let (Some(low), Some((&high, rest))) = (self.half, bytes.split_first()) {
            samples.push(i16::from_le_bytes([low, high]));
            self.half = None;
            bytes = rest;
        }
        let (pairs, rest) = bytes.as_chunks::<SAMPLE_BYTES>();
        samples.extend(pairs.iter().map(|&pair| i16::from_le_bytes(pair)));
        self.half = rest.first().copied().or(self.half);
    }

    /// Whether the last byte still waits for its other half.
    pub fn is_mid_sample(&self) -> bool {
        self.half.is_some()
    }
}

/// How many samples last `milliseconds` at `sample_rate` (Hz), rounded to the nearest.
pub fn samples_in_ms(milliseconds: u32, sample_rate: u32) -> usize {
    ((u64::from(milliseconds) * u64::from(sample_rate) + 500) / 1000) as usize
}

/// How long `samples` last at `sample_rate` (Hz); nothing at a rate of zero.
pub fn duration(samples: usize, sample_rate: u32) -> Duration {
    if sample_rate == 0 {
        return Duration::ZERO;
    }
    let rate = u64::from(sample_rate);
    let whole_seconds = samples as u64 / rate;
    let nanoseconds = (samples as u64 % rate) * 1_000_000_000 / rate;
    Duration::from_secs(whole_seconds) + Duration::from_nanos(nanoseconds)
}

/// Silence of the given length, in samples.
pub fn silence(milliseconds: u32, sample_rate: u32) -> Vec<i16> {
    vec![0; samples_in_ms(milliseconds, sample_rate)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_little_endian() {
        assert_eq!(to_bytes(&[1, -2]), [1, 0, 0xfe, 0xff]);
        assert_eq!(from_bytes(&[1, 0, 0xfe, 0xff]), Some(vec![1, -2]));
        assert_eq!(from_bytes(&[1, 0, 7]), None);
    }

    #[test]
    fn time_and_samples() {
        assert_eq!(samples_in_ms(1000, 22_050), 22_050);
        assert_eq!(silence(20, 22_050).len(), 441);
        assert_eq!(duration(33_075, 22_050), Duration::from_millis(1500));
        assert_eq!(duration(5, 0), Duration::ZERO);
        assert_eq!(samples_in_ms(u32::MAX, 48_000), 206_158_430_160);
    }

    proptest! {
        #[test]
        fn cut_bytes_read_as_whole_ones(samples in prop::collection::vec(any::<i16>(), 0..50), size in 1usize..7) {
            let bytes = to_bytes(&samples);
            let mut reader = SampleReader::default();
            let mut read = Vec::new();
            for piece in bytes.chunks(size) {
                reader.push(piece, &mut read);
            }
            prop_assert!(!reader.is_mid_sample());
            prop_assert_eq!(read, samples);
        }
    }
}
