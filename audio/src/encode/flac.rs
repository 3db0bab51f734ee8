//! `flac`: lossless, about half the size of `wav`.
//!
//! The frames are made by `flac-codec`; the head of the stream (the marker and its STREAMINFO block) is
//! written here, because it has to go out before the length and the checksum of the sound are known. The
//! format has a value for "unknown" for both, which is what a stream carries; a file whose length is
//! known beforehand says so.

use flac_codec::encode::{FlacStreamWriter, Options};

use super::shared::Sink;
use super::{AudioFormat, EncodeError, Encoder, EncoderConfig};

/// Samples of one frame: 186 ms at 22.05 kHz, the usual size.
const BLOCK_SAMPLES: usize = 4_096;
const BITS_PER_SAMPLE: u32 = 16;
/// Largest number of samples that STREAMINFO can name.
const MOST_SAMPLES: u64 = (1 << 36) - 1;

pub(super) struct FlacEncoder {
    writer: FlacStreamWriter<Sink>,
    sink: Sink,
    sample_rate: u32,
    header: Option<Vec<u8>>,
    waiting: Vec<i32>,
}

impl FlacEncoder {
    pub(super) fn new(config: &EncoderConfig) -> Result<Self, EncodeError> {
        // Frames name their rate in 16 bits of Hz, or of tens of Hz.
        if config.sample_rate > 65_535 {
            return Err(EncodeError::SampleRate {
                format: AudioFormat::Flac,
                sample_rate: config.sample_rate,
            });
        }
        let sink = Sink::default();
        let writer = FlacStreamWriter::new(sink.clone(), Options::default());
        let header = Some(stream_head(config));
        Ok(Self { writer, sink, sample_rate: config.sample_rate, header, waiting: Vec::new() })
    }

    fn write_frame(&mut self, length: usize) -> Result<(), EncodeError> {
        let block: Vec<i32> = self.waiting.drain(..length).collect();
        let written = self.writer.write(self.sample_rate, 1, BITS_PER_SAMPLE, &block);
        written.map_err(|error| EncodeError::Codec { format: AudioFormat::Flac, source: error.into() })
    }
}

impl Encoder for FlacEncoder {
    fn push(&mut self, samples: &[i16]) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = self.header.take().unwrap_or_default();
        self.waiting.extend(samples.iter().map(|&sample| i32::from(sample)));
        while self.waiting.len() >= BLOCK_SAMPLES {
            self.write_frame(BLOCK_SAMPLES)?;
        }
        bytes.extend(self.sink.take());
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = self.header.take().unwrap_or_default();
        if !self.waiting.is_empty() {
            self.write_frame(self.waiting.len())?;
        }
        bytes.extend(self.sink.take());
        Ok(bytes)
    }
}

/// The marker and a STREAMINFO block (RFC 9639, section 8.2), the only and so the last one.
fn stream_head(config: &EncoderConfig) -> Vec<u8> {
    let block = BLOCK_SAMPLES as u16;
    let samples = config.total_samples.filter(|&samples| samples <= MOST_SAMPLES).unwrap_or(0);
    // 20 bits of rate, 3 of channels - 1, 5 of bits - 1, 36 of samples.
    let packed = (u64::from(config.sample_rate) << 44) | (u64::from(BITS_PER_SAMPLE - 1) << 36) | samples;
    let mut head = Vec::with_capacity(42);
    head.extend(b"fLaC");
    head.extend([0x80, 0, 0, 34]); // last block, STREAMINFO, its length
    head.extend(block.to_be_bytes());
    head.extend(block.to_be_bytes());
    head.extend([0; 6]); // smallest and largest frame: unknown
    head.extend(packed.to_be_bytes());
    head.extend([0; 16]); // MD5 of the samples: unknown
    head
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::super::{encode_file, encode_in_pieces};
    use super::*;

    fn decode(bytes: Vec<u8>) -> (u32, Vec<i32>) {
        let mut reader = claxon::FlacReader::new(Cursor::new(bytes)).unwrap();
        let rate = reader.streaminfo().sample_rate;
        (rate, reader.samples().collect::<Result<_, _>>().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn another_decoder_reads_back_every_sample(
            samples in prop::collection::vec(any::<i16>(), 0..9_000), rate in prop::sample::select(vec![16_000u32, 22_050, 24_000, 48_000]),
            size in 1usize..5_000,
        ) {
            let expected: Vec<i32> = samples.iter().map(|&sample| i32::from(sample)).collect();
            let file = encode_file(AudioFormat::Flac, &samples, rate).unwrap();
            prop_assert_eq!(decode(file), (rate, expected.clone()));
            let stream = encode_in_pieces(AudioFormat::Flac, &samples, rate, size);
            prop_assert_eq!(decode(stream), (rate, expected));
        }
    }

    #[test]
    fn a_rate_beyond_the_frame_header_is_refused() {
        let config = EncoderConfig { sample_rate: 96_000, total_samples: None };
        assert!(matches!(FlacEncoder::new(&config), Err(EncodeError::SampleRate { .. })));
    }
}
