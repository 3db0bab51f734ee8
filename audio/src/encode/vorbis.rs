//! `ogg`: Vorbis in Ogg.
//!
//! Encoded by `vorbis_rs`, which wraps the tuned C encoder aoTuV/Lancer and builds it from source. Its
//! handle may not move between threads, while a stream is written by whichever thread has its samples;
//! so each stream's encoder lives on a thread of its own, which answers block by block and ends when
//! its stream is dropped.

use std::num::{NonZeroU8, NonZeroU32};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use vorbis_rs::{VorbisBitrateManagementStrategy, VorbisEncoderBuilder, VorbisError};

use super::shared::Sink;
use super::{AudioFormat, EncodeError, Encoder, EncoderConfig};

/// Samples that are encoded at a time, the size libvorbis recommends; fixed, so that chunks leave no
/// trace.
const BLOCK_SAMPLES: usize = 1_024;
/// Quality, -0.2 to 1: about 64 kbit/s for one voice at 22.05 kHz.
const QUALITY: f32 = 0.5;
/// Bytes after which a page is closed: about an eighth of a second.
const PAGE_BYTES: u16 = 1_024;
/// Names the stream within its file; any number does for a single one.
const SERIAL: i32 = 0x6368_6f72;

/// What the encoder's thread answers: the bytes that are ready.
type Answer = Result<Vec<u8>, VorbisError>;

pub(super) struct VorbisEncoder {
    /// Blocks go out here; an empty one ends the stream. `None` once it has ended.
    blocks: Option<SyncSender<Vec<f32>>>,
    answers: Receiver<Answer>,
    waiting: Vec<f32>,
    ready: Vec<u8>,
}

impl VorbisEncoder {
    pub(super) fn new(config: &EncoderConfig) -> Result<Self, EncodeError> {
        let sample_rate = config.sample_rate;
        let refused = EncodeError::SampleRate { format: AudioFormat::Ogg, sample_rate };
        let rate = NonZeroU32::new(sample_rate).ok_or(refused)?;
        let (blocks, inbox) = sync_channel(1);
        let (outbox, answers) = sync_channel(1);
        let builder = thread::Builder::new().name("vorbis".to_owned());
        builder.spawn(move || serve(rate, &inbox, &outbox)).map_err(|error| failed(error.into()))?;
        let mut encoder = Self { blocks: Some(blocks), answers, waiting: Vec::new(), ready: Vec::new() };
        encoder.receive()?;
        Ok(encoder)
    }

    fn encode_block(&mut self, length: usize) -> Result<(), EncodeError> {
        let block = self.waiting.drain(..length).collect();
        let sent = self.blocks.as_ref().map(|blocks| blocks.send(block));
        match sent {
            Some(Ok(())) => self.receive(),
            _ => Err(failed("the stream has ended".into())),
        }
    }

    fn receive(&mut self) -> Result<(), EncodeError> {
        let answer = self.answers.recv().map_err(|error| failed(error.into()))?;
        self.ready.extend(answer.map_err(|error| failed(error.to_string().into()))?);
        Ok(())
    }
}

impl Encoder for VorbisEncoder {
    fn push(&mut self, samples: &[i16]) -> Result<Vec<u8>, EncodeError> {
        self.waiting.extend(samples.iter().map(|&sample| f32::from(sample) / 32_768.0));
        while self.waiting.len() >= BLOCK_SAMPLES {
            self.encode_block(BLOCK_SAMPLES)?;
        }
        Ok(std::mem::take(&mut self.ready))
    }

    fn finish(&mut self) -> Result<Vec<u8>, EncodeError> {
        if !self.waiting.is_empty() {
            self.encode_block(self.waiting.len())?;
        }
        self.encode_block(0)?;
        self.blocks = None;
        Ok(std::mem::take(&mut self.ready))
    }
}

/// The encoder's thread: the header first, then an answer for each block, until an empty one or the end
/// of the stream's owner.
fn serve(rate: NonZeroU32, inbox: &Receiver<Vec<f32>>, outbox: &SyncSender<Answer>) {
    let sink = Sink::default();
    let strategy = VorbisBitrateManagementStrategy::QualityVbr { target_quality: QUALITY };
    let mut builder = VorbisEncoderBuilder::new_with_serial(rate, NonZeroU8::MIN, sink.clone(), SERIAL);
    let built =
        builder.bitrate_management_strategy(strategy).minimum_page_data_size(Some(PAGE_BYTES)).build();
    let (answer, mut encoder) = match built {
        Ok(encoder) => (Ok(sink.take()), Some(encoder)),
        Err(error) => (Err(error), None),
    };
    let mut is_heard = outbox.send(answer).is_ok();
    while let (true, Ok(block), Some(mut inner)) = (is_heard, inbox.recv(), encoder.take()) {
        let outcome = if block.is_empty() {
            inner.finish().map(drop)
        } else {
            let encoded = inner.encode_audio_block([block]);
            encoder = Some(inner);
            encoded
        };
        is_heard = outbox.send(outcome.map(|()| sink.take())).is_ok();
    }
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> EncodeError {
    EncodeError::Codec { format: AudioFormat::Ogg, source }
}
