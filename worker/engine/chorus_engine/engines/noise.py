"""Noise of a take, drawn from a generator of its own.

VITS draws twice per sentence from torch's one global generator. For takes that can be repeated from their
seed while other lanes draw too, the two Coqui modules that draw get a stand-in for the name `torch`: it is
torch, but for the two drawing functions, which use the generator of the calling thread if there is one.
Noise is drawn on the CPU and then moved, so that a seed means the same take on any device. A part of the
network that is called on its own is given its noise (`supplied`); while a graph is traced, it is so that
noise becomes an input of the graph.
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
        """The noise supplied, or `torch.randn` from the thread's generator."""
        supplied = getattr(_current, "supplied", None)
        if supplied is not None:
            return supplied
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
def supplied(values: torch.Tensor) -> Iterator[None]:
    """Within it, `randn` on this thread gives these values."""
    _current.supplied = values
    try:
        yield
    finally:
        _current.supplied = None


def generator(seed: int | None) -> torch.Generator:
    """A generator for the noise of `seed` (any u64), or of fresh noise for None."""
    made = torch.Generator()
    made.manual_seed(secrets.randbits(64) if seed is None else seed)
    return made


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Within it, this thread draws the noise of `seed` (any u64), or fresh noise for None."""
    _current.generator = generator(seed)
    try:
        yield
    finally:
        _current.generator = None
