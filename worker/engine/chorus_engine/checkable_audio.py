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
from collections.abc import Sequence

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
# All 15-bit values, as they are stored.
_RISING = array.array("h", range(-_OFFSET, _OFFSET))


def sample_count(text: str) -> int:
    """Number of samples that a text (without directives) has: 50 ms a character, within bounds."""
    return max(MIN_SAMPLES, min(MAX_SAMPLES, SAMPLES_PER_CHAR * len(text)))


def expected_samples(text: str, segment: int, clip: bytes = b"") -> array.array[int]:
    """The samples of segment number `segment` with this text (without directives), spoken like this clip.

    Put together from runs of values, one place of all frames at a time: a loop over the samples would make
    this the slowest engine of all.
    """
    count = sample_count(text)
    frames = (count + FRAME_SAMPLES - 1) // FRAME_SAMPLES
    tag = zlib.crc32(clip, zlib.crc32(text.encode("utf-8")))
    high, low, number = tag >> 15 & _MASK, tag & _MASK, segment & _MASK
    index_high, index_low, checksum = _same(0, 0), _same(0, 0), _same(0, 0)
    for block in range(0, frames, len(_RISING)):
        length = min(len(_RISING), frames - block)
        start = high + low + number + (block >> 15) & _MASK
        index_high += _same((block >> 15) - _OFFSET, length)
        index_low += _RISING[:length]
        checksum += (_RISING[start:] + _RISING[:start])[:length]
    tags = [_same(value - _OFFSET, frames) for value in (high, low, number)]
    samples = _same(0, FRAME_SAMPLES * frames)
    places = [_same(SYNC, frames), *tags, index_high, index_low, checksum, _same(-SYNC, frames)]
    for place, values in enumerate(places):
        samples[place::FRAME_SAMPLES] = values
    return samples[:count]


def _same(value: int, length: int) -> array.array[int]:
    return array.array("h", [value]) * length


def square_wave(count: int) -> list[int]:
    """Full-scale square wave: audio that a health check must call clipped."""
    return [CLIP if index // 32 % 2 == 0 else -CLIP for index in range(count)]


def to_pcm(samples: Sequence[int]) -> bytes:
    """Samples as s16le."""
    packed = array.array("h", samples)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
