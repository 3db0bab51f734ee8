//! `opus`: Opus in Ogg, the best sound for its size.
//!
//! Packets of 20 ms are made by `ropus` and put into pages by `ogg`, as RFC 7845 has it. The first
//! samples of every Opus stream are the encoder's delay ("pre-skip"); the position of the last page says
//! where the sound ends within the last packet, so that a decoder gives back every sample and no more.

use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use ropus::{Application, Bitrate, Channels, Encoder as Inner};

use super::shared::Sink;
use super::{AudioFormat, EncodeError, Encoder, EncoderConfig};

/// Samples of a packet: 20 ms at 48 kHz.
const PACKET_SAMPLES: usize = 960;
/// Packets of a page: 100 ms, what a stream may lag behind.
const PAGE_PACKETS: u64 = 5;
/// Largest packet, in bytes (RFC 6716, section 3.4, for one frame).
const MOST_PACKET_BYTES: usize = 1_275;
/// Bits a second for one voice, full band.
const BITS_PER_SECOND: u32 = 40_000;
/// Complexity, 0 to 10: half costs a third of the time for no audible loss on speech.
const COMPLEXITY: u8 = 5;
/// Names the stream within its file; any number does for a single one.
const SERIAL: u32 = 0x6368_6f72;

pub(super) struct OpusEncoder {
    inner: Inner,
    writer: PacketWriter<'static, Sink>,
    sink: Sink,
    waiting: Vec<i16>,
    /// The newest packet, kept back because the last one is marked.
    held: Option<Vec<u8>>,
    packets: u64,
    taken_samples: u64,
    pre_skip: u16,
}

impl OpusEncoder {
    /// An encoder for 48 kHz, whatever `config` says of the rate; the caller resamples.
    pub(super) fn new(config: &EncoderConfig) -> Result<Self, EncodeError> {
        let builder = Inner::builder(config.sample_rate, Channels::Mono, Application::Audio);
        let builder = builder.bitrate(Bitrate::Bits(BITS_PER_SECOND)).complexity(COMPLEXITY).vbr(true);
        let inner = builder.build().map_err(failed)?;
        let pre_skip = u16::try_from(inner.lookahead()).map_err(failed)?;
        let sink = Sink::default();
        let mut writer = PacketWriter::new(sink.clone());
        let head = identification(pre_skip, config.sample_rate);
        writer.write_packet(head, SERIAL, PacketWriteEndInfo::EndPage, 0).map_err(failed)?;
        writer.write_packet(comment(), SERIAL, PacketWriteEndInfo::EndPage, 0).map_err(failed)?;
        Ok(Self {
            inner,
            writer,
            sink,
            waiting: Vec::new(),
            held: None,
            packets: 0,
            taken_samples: 0,
            pre_skip,
        })
    }

    /// Encodes the whole packets that wait.
    fn encode_waiting(&mut self) -> Result<(), EncodeError> {
        while self.waiting.len() >= PACKET_SAMPLES {
            let samples: Vec<i16> = self.waiting.drain(..PACKET_SAMPLES).collect();
            let mut packet = vec![0; MOST_PACKET_BYTES];
            let length = self.inner.encode(&samples, &mut packet).map_err(failed)?;
            packet.truncate(length);
            if let Some(before) = self.held.replace(packet) {
                self.write(before, None)?;
            }
        }
        Ok(())
    }

    /// Writes the packet after those written so far; `end_at` is given for the last one.
    fn write(&mut self, packet: Vec<u8>, end_at: Option<u64>) -> Result<(), EncodeError> {
        self.packets += 1;
        let position = end_at.unwrap_or(self.packets * PACKET_SAMPLES as u64);
        let mark = match end_at {
            Some(_) => PacketWriteEndInfo::EndStream,
            None if self.packets.is_multiple_of(PAGE_PACKETS) => PacketWriteEndInfo::EndPage,
            None => PacketWriteEndInfo::NormalPacket,
        };
        self.writer.write_packet(packet, SERIAL, mark, position).map_err(failed)
    }
}

impl Encoder for OpusEncoder {
    fn push(&mut self, samples: &[i16]) -> Result<Vec<u8>, EncodeError> {
        self.taken_samples += samples.len() as u64;
        self.waiting.extend_from_slice(samples);
        self.encode_waiting()?;
        Ok(self.sink.take())
    }

    fn finish(&mut self) -> Result<Vec<u8>, EncodeError> {
        // Silence pushes the last sound through the encoder's delay; at least one packet is written.
        let silence = usize::from(self.pre_skip);
        let whole = (self.waiting.len() + silence).max(1).next_multiple_of(PACKET_SAMPLES);
        self.waiting.resize(whole, 0);
        self.encode_waiting()?;
        if let Some(last) = self.held.take() {
            self.write(last, Some(self.taken_samples + u64::from(self.pre_skip)))?;
        }
        Ok(self.sink.take())
    }
}

/// The identification header (RFC 7845, section 5.1).
fn identification(pre_skip: u16, sample_rate: u32) -> Vec<u8> {
    let mut head = b"OpusHead".to_vec();
    head.extend([1, 1]); // version, channels
    head.extend(pre_skip.to_le_bytes());
    head.extend(sample_rate.to_le_bytes());
    head.extend([0, 0, 0]); // gain, channel mapping
    head
}

/// The comment header (RFC 7845, section 5.2), without comments.
fn comment() -> Vec<u8> {
    let vendor = b"chorus";
    let mut tags = b"OpusTags".to_vec();
    tags.extend((vendor.len() as u32).to_le_bytes());
    tags.extend(vendor);
    tags.extend(0_u32.to_le_bytes());
    tags
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> EncodeError {
    EncodeError::Codec { format: AudioFormat::Opus, source: Box::new(error) }
}
