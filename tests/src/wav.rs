//! Reading the wav files that chorus writes, strictly.

/// What a wav file holds.
#[derive(Debug)]
pub struct Wav {
    /// Samples per second.
    pub sample_rate: u32,
    /// 16 bit mono samples.
    pub samples: Vec<i16>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads a canonical 44-byte-header wav file.
///
/// # Panics
/// When it is not exactly that.
pub fn parse(bytes: &[u8]) -> Wav {
    assert!(bytes.len() > 44, "only {} bytes", bytes.len());
    assert_eq!((&bytes[..4], &bytes[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
    assert_eq!(u32_at(bytes, 4) as usize, bytes.len() - 8, "the RIFF length is the file's");
    assert_eq!(&bytes[36..40], b"data");
    assert_eq!(u32_at(bytes, 40) as usize, bytes.len() - 44, "the data length is the file's");
    let format = (bytes[20], bytes[22], bytes[34]);
    assert_eq!(format, (1, 1, 16), "PCM, mono, 16 bit");
    let samples = bytes[44..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    Wav { sample_rate: u32_at(bytes, 24), samples }
}
