//! The `checkable` engine's audio, computed independently: loss, repetition and mixing are seen to the sample.
//!
//! 800 samples per character at 16 kHz, in frames of eight values: sync, tag (two), segment, frame number (two), checksum,
//! end mark. The tag is the CRC-32 of the segment's text, with the bytes of the speaker clip behind it where there is one. [`compare`] first looks whether the samples are what they must be;
//! only when they are not it reads the frames one by one and counts what is wrong with them.

use std::collections::HashMap;

/// Samples per second of the engine.
pub const SAMPLE_RATE: u32 = 16_000;

/// Samples of a frame.
const FRAME: usize = 8;
/// Small: a segment that begins and ends softly is not faded at its joints.
const SYNC: i16 = 181;
const OFFSET: i32 = 16_384;
const MASK: u32 = 0x7fff;

/// What the engine says for this text as this segment.
pub fn expected(text: &str, segment: u32) -> Vec<i16> {
    expected_like(text, segment, &[])
}

/// The same in the voice of a clip.
pub fn expected_like(text: &str, segment: u32, clip: &[u8]) -> Vec<i16> {
    let count = (800 * text.chars().count()).clamp(1_600, 30 * SAMPLE_RATE as usize);
    let tag = crc32(&[text.as_bytes(), clip].concat());
    let mut samples = Vec::with_capacity(count + FRAME);
    for frame in 0.. {
        if samples.len() >= count {
            break;
        }
        let raw = [tag >> 15 & MASK, tag & MASK, segment & MASK, frame >> 15 & MASK, frame & MASK];
        samples.push(SYNC);
        samples.extend(raw.iter().map(|&v| centred(v)));
        samples.push(centred(raw.iter().sum::<u32>() & MASK));
        samples.push(-SYNC);
    }
    samples.truncate(count);
    samples
}

fn centred(v: u32) -> i16 {
    (v as i32 - OFFSET) as i16
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

/// What is wrong with audio, in samples; all zero when it is exactly what was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Expected, and not there.
    pub missing: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Of another text, or of another place of this one.
    pub mixed: u64,
    /// No frame of any text, or frames that are all there in a wrong order.
    pub garbled: u64,
}

impl Damage {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares `samples` with these segments in order, whatever silence lies between them.
pub fn compare<T: AsRef<str>>(samples: &[i16], segments: &[T]) -> Damage {
    if first_difference(samples, segments).is_none() {
        Damage::default()
    } else {
        read_frames(samples, segments)
    }
}

/// Checks that `samples` are exactly these segments in order, whatever silence lies between them.
///
/// # Panics
/// With the first place that differs.
pub fn assert_spoken(samples: &[i16], segments: &[&str]) {
    assert_eq!(first_difference(samples, segments), None, "{:?}", compare(samples, segments));
}

/// Where the samples are not what was asked for: segment (the number of segments stands for what follows the last), sample.
fn first_difference<T: AsRef<str>>(samples: &[i16], segments: &[T]) -> Option<(usize, usize)> {
    let mut at = 0;
    for (index, text) in segments.iter().enumerate() {
        while samples.get(at) == Some(&0) {
            at += 1;
        }
        let expected = expected(text.as_ref(), index as u32);
        let found = &samples[at..samples.len().min(at + expected.len())];
        if found != expected {
            let differs = expected.iter().zip(found).position(|(a, b)| a != b);
            return Some((index, differs.unwrap_or(found.len())));
        }
        at += expected.len();
    }
    samples[at..].iter().position(|&s| s != 0).map(|sample| (segments.len(), sample))
}

/// Which frame of which text as which segment.
type FrameId = (u32, u32, u32);

fn read_frames<T: AsRef<str>>(samples: &[i16], segments: &[T]) -> Damage {
    let mut left: HashMap<FrameId, u32> = HashMap::new();
    for (index, text) in segments.iter().enumerate() {
        let expected = expected(text.as_ref(), index as u32);
        for frame in expected.chunks_exact(FRAME).filter_map(frame) {
            left.insert(frame, 0);
        }
    }
    let mut damage = Damage::default();
    let mut at = 0;
    while at < samples.len() {
        let Some(id) = samples.get(at..at + FRAME).and_then(frame) else {
            damage.garbled += u64::from(samples[at] != 0);
            at += 1;
            continue;
        };
        match left.get_mut(&id) {
            None => damage.mixed += FRAME as u64,
            Some(times) => {
                damage.duplicated += if *times > 0 { FRAME as u64 } else { 0 };
                *times += 1;
            }
        }
        at += FRAME;
    }
    damage.missing = left.values().filter(|&&times| times == 0).count() as u64 * FRAME as u64;
    if damage.is_none() {
        // All there, once each, but not as it must be: the order is wrong.
        damage.garbled = samples.len() as u64;
    }
    damage
}

fn frame(samples: &[i16]) -> Option<FrameId> {
    let &[SYNC, a, b, segment, c, d, checksum, end] = samples else { return None };
    let raw = [a, b, segment, c, d].map(|v| (i32::from(v) + OFFSET) as u32);
    let whole = end == -SYNC && checksum == centred(raw.iter().sum::<u32>() & MASK);
    whole.then_some((raw[0] << 15 | raw[1], raw[2], raw[3] << 15 | raw[4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(segments: &[&str]) -> Vec<i16> {
        let mut samples = Vec::new();
        for (index, text) in segments.iter().enumerate() {
            samples.extend(expected(text, index as u32));
            samples.extend([0; 160]);
        }
        samples
    }

    #[test]
    fn every_damage_is_told_from_the_others() {
        let segments = ["One sentence.", "Another one."];
        let whole = spoken(&segments);
        assert!(compare(&whole, &segments).is_none());
        let mut lost = whole.clone();
        lost.drain(800..816);
        assert_eq!(compare(&lost, &segments), Damage { missing: 16, ..Damage::default() });
        let mut twice = whole.clone();
        twice.splice(800..800, whole[792..800].to_vec());
        assert_eq!(compare(&twice, &segments), Damage { duplicated: 8, ..Damage::default() });
        let mut foreign = whole.clone();
        foreign.extend(expected("Somebody else.", 0));
        assert_eq!(compare(&foreign, &segments).mixed, 800 * 14);
        let mut noisy = whole.clone();
        noisy.push(7);
        assert_eq!(compare(&noisy, &segments), Damage { garbled: 1, ..Damage::default() });
        let mut swapped = whole.clone();
        swapped.rotate_left(800 * 13 + 160);
        assert_eq!(compare(&swapped, &segments).garbled, whole.len() as u64);
    }

    #[test]
    fn nothing_at_all_is_all_missing() {
        assert_eq!(compare::<&str>(&[], &[]), Damage::default());
        assert_eq!(compare(&[], &["abc"]).missing, 2_400);
    }
}
