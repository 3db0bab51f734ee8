"""Noise of a take, drawn from a generator of its own.

VITS draws twice per sentence from torch's one global generator. For takes that can be repeated from their
seed while other lanes draw too, the two Coqui modules that draw get a stand-in for the name `torch`: it is
torch, but for the two drawing functions, which use the generator of the calling thread if there is one.
Noise is drawn on the CPU and then moved, so that a seed means the same take on any device.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_current = threading.local()


class _SeededTorch:
    """The module torch, with its drawing functions under the thread's generator."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def randn(*size: int, **options: Any) -> torch.Tensor:
        """`torch.randn` from the thread's generator."""
        return torch.randn(*size, generator=getattr(_current, "generator", None), **options)

    @staticmethod
    def randn_like(like: torch.Tensor) -> torch.Tensor:
        """`torch.randn_like` from the thread's generator."""
        generator = getattr(_current, "generator", None)
        return torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like.device)


def install() -> None:
    """Gives the drawing modules of VITS their stand-in."""
    from TTS.tts.layers.vits import stochastic_duration_predictor
    from TTS.tts.models import vits

    stand_in = _SeededTorch()
    vits.torch = stand_in
    stochastic_duration_predictor.torch = stand_in


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Within it, this thread draws the noise of `seed` (any u64), or fresh noise for None."""
    generator = torch.Generator()
    generator.manual_seed(secrets.randbits(64) if seed is None else seed)
    _current.generator = generator
    try:
        yield
    finally:
        _current.generator = None
