"""The audio of the checkable engine: every frame of samples says which text and segment it is of, and where
in it.

`expected_samples` is the verifier's side too: a test that has received samples compares them with what this
function gives, and sees loss, repetition and mixing to the sample.

A frame is eight s16 values: a sync mark, the CRC-32 of the text (with the bytes of the speaker clip behind
it, where there is one) in two parts of 15 bits (bits 29 to 0), the segment's number, the frame's index in two
parts, a checksum over those five, and an end mark. A 15-bit value v is stored as v - 16384. The last frame is
cut to the audio's length.
"""

from __future__ import annotations

import array
import sys
import zlib

SAMPLE_RATE = 16_000
SAMPLES_PER_CHAR = 800
MIN_SAMPLES = 1_600
MAX_SAMPLES = 30 * SAMPLE_RATE
FRAME_SAMPLES = 8
# Small, so that a joint between two segments is no step: audio that begins and ends softly is not faded.
SYNC = 181
CLIP = 32_767
_MASK = 0x7FFF
_OFFSET = 16_384


def sample_count(text: str) -> int:
    """Number of samples that a text (without directives) has: 50 ms a character, within bounds."""
    return max(MIN_SAMPLES, min(MAX_SAMPLES, SAMPLES_PER_CHAR * len(text)))


def expected_samples(text: str, segment: int, clip: bytes = b"") -> list[int]:
    """The samples of segment number `segment` with this text (without directives), spoken like this clip."""
    count = sample_count(text)
    tag = zlib.crc32(clip, zlib.crc32(text.encode("utf-8")))
    high, low, number = tag >> 15 & _MASK, tag & _MASK, segment & _MASK
    samples: list[int] = []
    for index in range((count + FRAME_SAMPLES - 1) // FRAME_SAMPLES):
        values = (high, low, number, index >> 15 & _MASK, index & _MASK)
        checksum = sum(values) & _MASK
        samples.append(SYNC)
        samples.extend(value - _OFFSET for value in (*values, checksum))
        samples.append(-SYNC)
    return samples[:count]


def square_wave(count: int) -> list[int]:
    """Full-scale square wave: audio that a health check must call clipped."""
    return [CLIP if index // 32 % 2 == 0 else -CLIP for index in range(count)]


def to_pcm(samples: list[int]) -> bytes:
    """Samples as s16le."""
    packed = array.array("h", samples)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
