"""The null engine: one second of the same quiet tone for any text, at once.

It costs next to nothing, so that what is measured through it is everything else.
"""

from __future__ import annotations

import math
import struct

from chorus_engine.engines.base import (
    Engine,
    Model,
    ModelInfo,
    Progress,
    refuse_options,
    refuse_voice_changes,
)
from chorus_engine.requests import ModelSpec, SynthesisRequest
from chorus_engine.take import Take

SAMPLE_RATE = 22_050
TONE_HZ = 220.0
AMPLITUDE = 1_000


def tone() -> bytes:
    """One second of a sine as s16le."""
    step = 2.0 * math.pi * TONE_HZ / SAMPLE_RATE
    samples = (round(AMPLITUDE * math.sin(step * index)) for index in range(SAMPLE_RATE))
    return struct.pack(f"<{SAMPLE_RATE}h", *samples)


class NullModel(Model):
    """Writes the one tone."""

    def __init__(self) -> None:
        self.info = ModelInfo(SAMPLE_RATE)
        self._pcm = tone()

    def synthesize(self, request: SynthesisRequest, take: Take) -> None:
        """One second of PCM, whatever the text."""
        refuse_voice_changes(request)
        refuse_options(request)
        take.write(self._pcm)


class NullEngine(Engine):
    """Loads the same model under any name."""

    name = "null"
    library = "none"

    def load(self, spec: ModelSpec, progress: Progress) -> Model:
        """There is nothing to load."""
        progress("load")
        return NullModel()
