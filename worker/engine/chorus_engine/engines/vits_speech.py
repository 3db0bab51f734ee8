"""From tokens to samples through the parts of a VITS network: what lies between the parts.

Several texts may be spoken in one call, each with its own pace, noise and voice: shorter ones are padded, and
trimmed by the frames that their tokens last. The noise of a text is drawn from its own seed, in the order in
which Coqui's `inference` draws it, so a seed is the same take alone, in a batch, and in either runtime.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from chorus_engine import host
from chorus_engine.engines import noise
from chorus_engine.engines.vits_parts import DECODER, FLOW, FRONT, WINDOW, Arrays, Parts, Steps

# The relative attention of a traced graph needs at least its window of tokens.
MIN_TOKENS = 8
# Frames that are decoded in one go, five seconds: progress is told and cancelling holds between windows, and
# memory does not grow with the text. A last window may be half as long again.
WINDOW_FRAMES = 420
# Windows side by side are worth their overlap while they are so many times as long as the decoder looks.
MIN_WINDOW_REACHES = 6
_PROBE_FRAMES = 129


@dataclass(frozen=True)
class Network:
    """What is fixed for a model: draws of noise, channels of a frame, frames the decoder looks to each side
    (None: no windows), frames that the flow makes of one."""

    stochastic_durations: bool
    channels: int
    reach: int | None = None
    interpolation: float = 1.0


@dataclass(frozen=True)
class Utterance:
    """One text as the network takes it. `conditions` are [1, C, 1] each: `speaker`, `language`."""

    tokens: list[int]
    seed: int | None
    pace: float
    noise_scale: float
    noise_scale_dp: float
    conditions: Arrays = field(default_factory=dict)


class NoSteps:
    """For samples that nobody waits for."""

    def step(self) -> None:
        """Nothing is told and nothing cancels."""

    def on_cancel(self, act: Any) -> Any:
        """Nothing cancels."""
        return nullcontext()


def speak(parts: Parts, network: Network, said: list[Utterance], steps: Steps) -> list[np.ndarray]:
    """Samples of each utterance, float32 and one-dimensional."""
    generators = [noise.generator(one.seed) for one in said]
    conditions = {name: np.concatenate([one.conditions[name] for one in said]) for name in said[0].conditions}
    speaker = {name: values for name, values in conditions.items() if name == "speaker"}
    steps.step()
    token_step, frame_step = parts.shape_steps
    inputs = {**_front_inputs(network, said, generators, token_step), **conditions}
    mean, log_scale, durations = parts.run(FRONT, inputs, steps)
    steps.step()
    drawn = [
        _draw(mean[index], log_scale[index], durations[index, 0], one.noise_scale, generators[index])
        for index, one in enumerate(said)
    ]
    lengths = np.array([frames.shape[1] for frames in drawn], np.int64)
    frames = _padded(drawn, frame_step)
    (flowed,) = parts.run(FLOW, {"frames": frames, "lengths": lengths, **speaker}, steps)
    steps.step()
    samples = _decode(parts, flowed, speaker, network.reach, steps)
    per_frame = samples.shape[1] / flowed.shape[2] * network.interpolation
    return [samples[index, : round(length * per_frame)] for index, length in enumerate(lengths.tolist())]


def _front_inputs(
    network: Network, said: list[Utterance], generators: list[torch.Generator], step: int
) -> Arrays:
    count, width = len(said), _stepped(max(MIN_TOKENS, *(len(one.tokens) for one in said)), step)
    tokens, noise_dp = np.zeros((count, width), np.int64), np.zeros((count, 2, width), np.float32)
    for index, one in enumerate(said):
        length = len(one.tokens)
        tokens[index, :length] = one.tokens
        if network.stochastic_durations:
            noise_dp[index, :, :length] = torch.randn(1, 2, length, generator=generators[index])[0].numpy()
    return {
        "tokens": tokens,
        "lengths": np.array([len(one.tokens) for one in said], np.int64),
        "noise_dp": noise_dp,
        "noise_scale_dp": _column([one.noise_scale_dp for one in said]),
        "pace": _column([one.pace for one in said]),
    }


def _column(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 1, 1)


def _draw(
    mean: np.ndarray, log_scale: np.ndarray, durations: np.ndarray, scale: float, generator: torch.Generator
) -> np.ndarray:
    """Frames [C, F] of one text: each token's distribution as often as it lasts, and noise in it."""
    counts = durations.astype(np.int64)
    mean, log_scale = np.repeat(mean, counts, axis=1), np.repeat(log_scale, counts, axis=1)
    if mean.shape[1] == 0:
        mean, log_scale = (np.zeros((values.shape[0], 1), np.float32) for values in (mean, log_scale))
    drawn = torch.randn(1, *mean.shape, generator=generator)[0].numpy()
    return mean + drawn * np.exp(log_scale) * np.float32(scale)


def _padded(frames: list[np.ndarray], step: int) -> np.ndarray:
    width = _stepped(max(each.shape[1] for each in frames), step)
    if len(frames) == 1 and frames[0].shape[1] == width:
        return frames[0][np.newaxis]
    padded = np.zeros((len(frames), frames[0].shape[0], width), np.float32)
    for index, each in enumerate(frames):
        padded[index, :, : each.shape[1]] = each
    return padded


def _stepped(size: int, step: int) -> int:
    return -(-size // step) * step


def _decode(parts: Parts, frames: np.ndarray, speaker: Arrays, reach: int | None, steps: Steps) -> np.ndarray:
    """Samples [B, N]. Windows overlap by what the decoder looks at: their samples are those of the whole."""
    total = frames.shape[2]
    if reach is None:
        return parts.run(DECODER, {"frames": frames, **speaker}, steps)[0][:, 0]
    side_by_side = min(parts.at_once, total // (MIN_WINDOW_REACHES * reach))
    part = WINDOW if side_by_side > 1 else DECODER

    def decode(window: tuple[int, int]) -> np.ndarray:
        start, end = window
        left, right = max(0, start - reach), min(total, end + reach)
        inputs = {"frames": np.ascontiguousarray(frames[:, :, left:right]), **speaker}
        samples = parts.run(part, inputs, steps)[0][:, 0]
        per_frame = samples.shape[1] // (right - left)
        return samples[:, (start - left) * per_frame : (end - left) * per_frame]

    pieces: list[np.ndarray] = []
    for together in _grouped(total, max(1, side_by_side)):
        steps.step()
        pieces += _side_by_side(decode, together)
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)


def _grouped(total: int, size: int) -> list[list[tuple[int, int]]]:
    """Windows over `total` frames, in groups of `size` that are decoded side by side."""
    return [
        [(start + first, start + last) for first, last in _evenly(end - start, size)]
        for start, end in windows(total, WINDOW_FRAMES * size)
    ]


def _side_by_side(decode: Callable[[Any], np.ndarray], together: list[tuple[int, int]]) -> list[np.ndarray]:
    """Each window on a thread; the last on the caller's own."""
    others = [_decoders().submit(decode, window) for window in together[:-1]]
    try:
        last = decode(together[-1])
    finally:
        # Nothing may go on behind a take that has ended: one that is cancelled ends in all of its windows.
        wait(others)
    return [*(each.result() for each in others), last]


@lru_cache(maxsize=1)
def _decoders() -> ThreadPoolExecutor:
    """Threads for windows, of all models together: no more than cores could use."""
    return ThreadPoolExecutor(host.usable_cores(), thread_name_prefix="decoder")


def windows(total: int, size: int) -> list[tuple[int, int]]:
    """Cuts `total` frames into even windows of about `size`, none longer than one and a half times that."""
    return _evenly(total, max(1, round(total / max(1, size))))


def _evenly(total: int, count: int) -> list[tuple[int, int]]:
    edges = [total * index // count for index in range(count + 1)]
    return list(itertools.pairwise(edges))


def decoder_reach(parts: Parts, channels: int, speaker: Arrays) -> int | None:
    """How many frames to each side a sample depends on; None if it is too many to cut windows.

    Measured with a frame of what is not a number: everything that depends on it is not a number either.
    """
    frames = np.zeros((1, channels, _PROBE_FRAMES), np.float32)
    middle = _PROBE_FRAMES // 2
    frames[:, :, middle] = np.nan
    samples = parts.run(DECODER, {"frames": frames, **speaker}, NoSteps())[0][0, 0]
    per_frame = len(samples) // _PROBE_FRAMES
    (touched,) = np.nonzero(np.isnan(samples))
    if per_frame == 0 or len(samples) % _PROBE_FRAMES or not len(touched):
        return None
    first, last = touched[0] // per_frame, touched[-1] // per_frame
    if first == 0 or last == _PROBE_FRAMES - 1:
        return None
    return int(max(middle - first, last - middle)) + 1
