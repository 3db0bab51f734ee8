"""Float samples of a model to the s16le bytes of the pipe.

Nothing is normalised: a gain per call would make loudness jump between sentences. What is over full scale
is clipped.
"""

from __future__ import annotations

import sys

import torch

from chorus_engine.errors import SYNTHESIS_FAILED, EngineError

FULL_SCALE = 32_767.0


def to_pcm(samples: torch.Tensor) -> bytes:
    """One-dimensional float samples in -1..1 to s16le; an error if a sample is not a number."""
    samples = samples.detach().reshape(-1).float()
    if not bool(torch.isfinite(samples).all()):
        message = "the model made samples that are not numbers"
        raise EngineError(SYNTHESIS_FAILED, "bad_audio", message, retryable=True)
    scaled = samples.mul(FULL_SCALE).round_().clamp_(-FULL_SCALE, FULL_SCALE).to(torch.int16)
    array = scaled.cpu().numpy()
    return (array if sys.byteorder == "little" else array.byteswap()).tobytes()
