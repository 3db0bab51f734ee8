//! The `checkable` engine's audio, computed independently: loss, repetition and mixing are seen to the sample.
//!
//! 800 samples per character at 16 kHz, in frames of eight values: sync, tag (two), segment, frame number (two), checksum,
//! end mark. The tag is the CRC-32 of the segment's text.

/// Samples per second of the engine.
pub const SAMPLE_RATE: u32 = 16_000;

/// What the engine says for this text as this segment.
pub fn expected(text: &str, segment: u32) -> Vec<i16> {
    let count = (800 * text.chars().count()).clamp(1_600, 30 * SAMPLE_RATE as usize);
    let tag = crc32(text.as_bytes());
    let mut samples = Vec::with_capacity(count + 8);
    for frame in 0.. {
        if samples.len() >= count {
            break;
        }
        let raw = [tag >> 15 & 0x7fff, tag & 0x7fff, segment & 0x7fff, frame >> 15 & 0x7fff, frame & 0x7fff];
        samples.push(12_345);
        samples.extend(raw.iter().map(|&v| centred(v)));
        samples.push(centred(raw.iter().sum::<u32>() & 0x7fff));
        samples.push(-12_345);
    }
    samples.truncate(count);
    samples
}

fn centred(v: u32) -> i16 {
    (v as i32 - 16_384) as i16
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// Checks that `samples` are exactly these segments in order, whatever silence lies between them.
///
/// # Panics
/// With the first place that differs.
pub fn assert_spoken(samples: &[i16], segments: &[&str]) {
    let mut at = 0;
    for (index, text) in segments.iter().enumerate() {
        while samples.get(at) == Some(&0) {
            at += 1;
        }
        let expected = expected(text, index as u32);
        let found = &samples[at..samples.len().min(at + expected.len())];
        let differs = expected.iter().zip(found).position(|(a, b)| a != b);
        assert_eq!(differs, None, "segment {index} ({text:?}) differs at its sample {differs:?}");
        assert_eq!(found.len(), expected.len(), "segment {index} ({text:?}) is cut short");
        at += expected.len();
    }
    assert!(samples[at..].iter().all(|&s| s == 0), "audio after the last segment");
}
