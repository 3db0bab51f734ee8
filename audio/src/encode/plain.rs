//! `wav` and `pcm`: samples as they are, with a header or without.

use super::{EncodeError, Encoder, EncoderConfig};
use crate::pcm::{SAMPLE_BYTES, extend_bytes, to_bytes};

/// Bytes of a WAVE header with one format and one data chunk.
const HEADER_BYTES: u32 = 44;
/// The length that stands for "not known yet"; players read on to the end of the stream.
const UNKNOWN_LENGTH: u32 = u32::MAX;

/// Samples without a header.
pub(super) struct PcmEncoder;

impl Encoder for PcmEncoder {
    fn push(&mut self, samples: &[i16]) -> Result<Vec<u8>, EncodeError> {
        Ok(to_bytes(samples))
    }

    fn finish(&mut self) -> Result<Vec<u8>, EncodeError> {
        Ok(Vec::new())
    }
}

/// RIFF WAVE. A length that is unknown, or too large for its 32 bits, is written as the largest number.
pub(super) struct WavEncoder {
    header: Option<Vec<u8>>,
}

impl WavEncoder {
    pub(super) fn new(config: &EncoderConfig) -> Self {
        let data_bytes = config.total_samples.and_then(|samples| {
            let bytes = samples.checked_mul(SAMPLE_BYTES as u64)?;
            u32::try_from(bytes).ok().filter(|&bytes| bytes < UNKNOWN_LENGTH - HEADER_BYTES)
        });
        Self { header: Some(wav_header(config.sample_rate, data_bytes)) }
    }
}

impl Encoder for WavEncoder {
    fn push(&mut self, samples: &[i16]) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = self.header.take().unwrap_or_default();
        bytes.reserve(samples.len() * SAMPLE_BYTES);
        extend_bytes(&mut bytes, samples);
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<Vec<u8>, EncodeError> {
        Ok(self.header.take().unwrap_or_default())
    }
}

fn wav_header(sample_rate: u32, data_bytes: Option<u32>) -> Vec<u8> {
    let riff_bytes = data_bytes.map_or(UNKNOWN_LENGTH, |data| data + HEADER_BYTES - 8);
    let byte_rate = sample_rate.saturating_mul(SAMPLE_BYTES as u32);
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    header.extend(b"RIFF");
    header.extend(riff_bytes.to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16_u32.to_le_bytes()); // bytes of the format chunk
    header.extend(1_u16.to_le_bytes()); // integer PCM
    header.extend(1_u16.to_le_bytes()); // one channel
    header.extend(sample_rate.to_le_bytes());
    header.extend(byte_rate.to_le_bytes());
    header.extend((SAMPLE_BYTES as u16).to_le_bytes()); // bytes of a frame
    header.extend(16_u16.to_le_bytes()); // bits of a sample
    header.extend(b"data");
    header.extend(data_bytes.unwrap_or(UNKNOWN_LENGTH).to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::super::{AudioFormat, encode_file};
    use super::*;

    proptest! {
        #[test]
        fn another_decoder_reads_back_what_was_written(
            samples in prop::collection::vec(any::<i16>(), 0..300), rate in 8_000u32..48_000,
        ) {
            let bytes = encode_file(AudioFormat::Wav, &samples, rate).unwrap();
            let mut reader = hound::WavReader::new(Cursor::new(bytes)).unwrap();
            prop_assert_eq!(reader.spec().sample_rate, rate);
            prop_assert_eq!(reader.spec().channels, 1);
            let read: Result<Vec<i16>, _> = reader.samples().collect();
            prop_assert_eq!(read.unwrap(), samples);
        }
    }

    #[test]
    fn a_stream_has_a_header_of_unknown_length_once() {
        let mut wav = WavEncoder::new(&EncoderConfig { sample_rate: 22_050, total_samples: None });
        let bytes = wav.push(&[]).unwrap();
        assert_eq!(bytes.len(), 44);
        assert_eq!(bytes[4..8], [0xff; 4]);
        assert_eq!(bytes[40..44], [0xff; 4]);
        assert_eq!(wav.push(&[258]).unwrap(), [2, 1]);
        assert!(wav.finish().unwrap().is_empty());
        let mut huge = WavEncoder::new(&EncoderConfig { sample_rate: 1, total_samples: Some(u64::MAX) });
        assert_eq!(huge.finish().unwrap()[4..8], [0xff; 4]);
    }
}
