//! The pieces of one run's audio, collected until the run is judged.

use bytes::Bytes;
use chorus_protocol::job::Spoken;

/// Pieces by their place, bounded in bytes.
#[derive(Debug, Default)]
pub struct Pieces {
    pieces: Vec<Option<Bytes>>,
    bytes: usize,
}

/// What the pieces amount to, measured against what the worker says of them.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// All there, and what they should be.
    Whole(Bytes),
    /// The first that is missing.
    Missing(u32),
    /// All there, but not what the worker says they are.
    Corrupt(&'static str),
}

impl Pieces {
    /// Keeps a piece. A piece seen before changes nothing; one beyond the bound is dropped, and will be missing.
    pub fn put(&mut self, seq: u32, data: Bytes, max_bytes: usize) {
        // A piece holds at least one sample, so a place beyond the bound in bytes cannot be honest.
        let place = seq as usize;
        if self.bytes + data.len() > max_bytes || place > max_bytes / 2 {
            return;
        }
        if self.pieces.len() <= place {
            self.pieces.resize(place + 1, None);
        }
        if self.pieces[place].is_none() {
            self.bytes += data.len();
            self.pieces[place] = Some(data);
        }
    }

    /// Adds the last piece, which came with the result, and checks the whole, as far as `strict` asks for it.
    pub fn check(&mut self, spoken: &Spoken, max_bytes: usize, strict: bool) -> Checked {
        if spoken.chunks == 0 || spoken.sample_rate == 0 {
            return Checked::Corrupt("a result without chunks or sample rate");
        }
        self.put(spoken.chunks - 1, spoken.data.0.clone(), max_bytes);
        if self.pieces.len() > spoken.chunks as usize {
            return Checked::Corrupt("more chunks than the result says");
        }
        if let Some(place) = self.pieces.iter().position(Option::is_none) {
            return Checked::Missing(place as u32);
        }
        if self.pieces.len() < spoken.chunks as usize {
            return Checked::Missing(self.pieces.len() as u32);
        }
        if !strict {
            return Checked::Whole(self.join());
        }
        if self.bytes as u64 != spoken.samples.saturating_mul(2) {
            return Checked::Corrupt("the chunks hold another number of samples than the result says");
        }
        let whole = self.join();
        if crc32fast::hash(&whole) == spoken.crc32 {
            Checked::Whole(whole)
        } else {
            Checked::Corrupt("the checksum of the audio is wrong")
        }
    }

    fn join(&mut self) -> Bytes {
        if let [Some(only)] = self.pieces.as_slice() {
            return only.clone();
        }
        let mut whole = Vec::with_capacity(self.bytes);
        for piece in self.pieces.iter().flatten() {
            whole.extend_from_slice(piece);
        }
        whole.into()
    }
}

#[cfg(test)]
mod tests {
    use chorus_protocol::AudioData;

    use super::*;

    fn spoken(pieces: &[&[u8]]) -> Spoken {
        let whole: Vec<u8> = pieces.concat();
        Spoken {
            data: AudioData::from(pieces[pieces.len() - 1].to_vec()),
            chunks: pieces.len() as u32,
            samples: whole.len() as u64 / 2,
            sample_rate: 16_000,
            crc32: crc32fast::hash(&whole),
            engine_ms: 1.0,
            warnings: Vec::new(),
        }
    }

    const THREE: [&[u8]; 3] = [&[1, 2], &[3, 4], &[5, 6]];

    #[test]
    fn order_and_repetition_do_not_matter() {
        let mut pieces = Pieces::default();
        for place in [1, 0, 1, 0] {
            pieces.put(place, Bytes::from_static(THREE[place as usize]), 100);
        }
        assert_eq!(
            pieces.check(&spoken(&THREE), 100, true),
            Checked::Whole(Bytes::from_static(&[1, 2, 3, 4, 5, 6]))
        );
    }

    #[test]
    fn the_first_gap_is_named() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.check(&spoken(&THREE), 100, true), Checked::Missing(0));
        pieces.put(0, Bytes::from_static(THREE[0]), 100);
        assert_eq!(pieces.check(&spoken(&THREE), 100, true), Checked::Missing(1));
    }

    #[test]
    fn lies_are_found() {
        let mut pieces = Pieces::default();
        let mut lie = spoken(&THREE[..1]);
        lie.crc32 ^= 1;
        assert!(matches!(pieces.check(&lie, 100, true), Checked::Corrupt(_)));
        lie = spoken(&THREE[..1]);
        lie.samples = 9;
        assert!(matches!(Pieces::default().check(&lie, 100, true), Checked::Corrupt(_)));
        lie.chunks = 0;
        assert!(matches!(Pieces::default().check(&lie, 100, true), Checked::Corrupt(_)));
        lie.chunks = u32::MAX;
        assert!(matches!(Pieces::default().check(&lie, 100, true), Checked::Missing(0)));
    }

    #[test]
    fn pieces_beyond_the_bound_are_dropped() {
        let mut pieces = Pieces::default();
        pieces.put(u32::MAX, Bytes::from_static(&[0, 0]), 100);
        assert!(pieces.pieces.is_empty());
        pieces.put(0, Bytes::from(vec![0; 101]), 100);
        assert_eq!(pieces.bytes, 0);
    }
}
