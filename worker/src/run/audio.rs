//! The audio of a run as the engine makes it: kept until the session has judged it, and checked on the way.

use bytes::Bytes;
use chorus_protocol::Warning;
use chorus_protocol::job::{MAX_CHUNK_BYTES, Spoken};
use chorus_protocol::pipe::SpokenAnswer;

const SAMPLE_BYTES: u64 = 2;

/// How an engine broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("the engine sent piece {found} where piece {wanted} was due")]
    Order { found: u32, wanted: u32 },
    #[error("the engine sent a piece of {0} bytes; an even number, at most {MAX_CHUNK_BYTES}, is allowed")]
    Size(usize),
    #[error("the engine sent more than {0} bytes of audio for one segment")]
    TooMuch(usize),
    #[error("the engine says {what} is {said}, but sent {sent}")]
    Mismatch { what: &'static str, said: u64, sent: u64 },
    #[error("the engine says that a second has no samples")]
    NoRate,
}

#[derive(Debug)]
pub(super) struct Audio {
    pieces: Vec<Bytes>,
    bytes: usize,
    max_bytes: usize,
    checked: bool,
    crc: crc32fast::Hasher,
}

impl Audio {
    pub(super) fn new(max_bytes: usize, checked: bool) -> Self {
        Self { pieces: Vec::new(), bytes: 0, max_bytes, checked, crc: crc32fast::Hasher::new() }
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, seq: u32, data: Bytes) -> Result<(), Broken> {
        self.check(seq, &data)?;
        self.pieces.push(data);
        Ok(())
    }

    /// Takes the last piece, and compares what the engine says of the whole with what came.
    pub(super) fn finish(&mut self, answer: SpokenAnswer) -> Result<Spoken, Broken> {
        self.check(answer.seq, &answer.data.0)?;
        let told = [
            ("the number of pieces", u64::from(answer.chunks), u64::from(self.count()) + 1),
            ("the number of samples", answer.samples, self.bytes as u64 / SAMPLE_BYTES),
            ("the CRC-32", u64::from(answer.crc32), u64::from(self.crc.clone().finalize())),
        ];
        if let Some((what, said, sent)) =
            told.into_iter().find(|(_, said, sent)| self.checked && said != sent)
        {
            return Err(Broken::Mismatch { what, said, sent });
        }
        if answer.sample_rate == 0 {
            return Err(Broken::NoRate);
        }
        let warnings = answer.warnings.into_iter();
        let warnings = warnings.map(|w| Warning { reason: w.reason, message: w.message, segment: None });
        Ok(Spoken {
            data: answer.data,
            chunks: self.count() + 1,
            samples: answer.samples,
            sample_rate: answer.sample_rate,
            crc32: answer.crc32,
            engine_ms: answer.engine_ms,
            warnings: warnings.collect(),
        })
    }

    /// Puts other samples in the place of those that the engine made, and says what they are.
    pub(super) fn replace(&mut self, pcm: &Bytes, spoken: Spoken) -> Spoken {
        let last = pcm.len().saturating_sub(1) / MAX_CHUNK_BYTES * MAX_CHUNK_BYTES;
        let starts = (0..last).step_by(MAX_CHUNK_BYTES);
        self.pieces = starts.map(|start| pcm.slice(start..start + MAX_CHUNK_BYTES)).collect();
        self.bytes = pcm.len();
        Spoken {
            data: pcm.slice(last..).into(),
            chunks: self.count() + 1,
            samples: pcm.len() as u64 / SAMPLE_BYTES,
            crc32: crc32fast::hash(pcm),
            ..spoken
        }
    }

    pub(super) fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Pieces so far, the last one not counted.
    pub(super) fn count(&self) -> u32 {
        self.pieces.len() as u32
    }

    fn check(&mut self, seq: u32, data: &Bytes) -> Result<(), Broken> {
        if self.checked && seq != self.count() {
            return Err(Broken::Order { found: seq, wanted: self.count() });
        }
        if data.len() > MAX_CHUNK_BYTES || !data.len().is_multiple_of(SAMPLE_BYTES as usize) {
            return Err(Broken::Size(data.len()));
        }
        self.bytes += data.len();
        if self.bytes > self.max_bytes {
            return Err(Broken::TooMuch(self.max_bytes));
        }
        self.crc.update(data);
        Ok(())
    }
}
