"""The checkable engine: audio that can be verified to the sample, and every way to fail, on demand.

It is the engine of chorus's own failure tests. `checkable_audio` makes the samples; `directives` reads from
the text what is to go wrong; this module does it. Computing is imitated by waiting, in steps of 20 ms
between which progress is told and cancelling takes hold. A speaker clip is heard in every frame of the audio.
After SIGUSR1 the engine is ill: it answers pings and fails every text, until it is started again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from chorus_engine import checkable_audio as audio
from chorus_engine import directives
from chorus_engine.directives import Directive
from chorus_engine.engines.base import (
    Capabilities,
    Engine,
    EngineConfig,
    Model,
    ModelInfo,
    Progress,
    refuse_options,
    refuse_voice_changes,
)
from chorus_engine.errors import SYNTHESIS_FAILED, EngineError, invalid_field, unspeakable
from chorus_engine.pipe import MAX_BODY_BYTES, FrameWriter
from chorus_engine.requests import ModelSpec, SynthesisRequest
from chorus_engine.take import PIECE_BYTES, Take

CRASH_CODE = 70
STEP_S = 0.02
# An engine with directives in this variable heeds them in every text.
ALWAYS = "CHORUS_CHECKABLE_ALWAYS"
STREAM_BYTES = 8_000
MAX_DELAY_MS = 600_000
OVERSIZE_BYTES = 2**31
_DEFERRABLE = frozenset({"crash", "exit", "hang", "stall", "truncate"})


@dataclass(frozen=True)
class Pace:
    """How fast a model pretends to be, and whether it streams."""

    compute_ms: float = 0.0
    ms_per_char: float = 0.0
    streaming: bool = False

    def seconds(self, chars: int) -> float:
        """Compute time of a text."""
        return (self.compute_ms + self.ms_per_char * chars) / 1000.0


class CheckableModel(Model):
    """Speaks `checkable_audio`, and misbehaves as the text says."""

    def __init__(self, pace: Pace, faults: Faults, always: list[Directive]) -> None:
        self.info = ModelInfo(audio.SAMPLE_RATE)
        self._pace = pace
        self._faults = faults
        self._always = always

    def synthesize(self, request: SynthesisRequest, take: Take) -> None:
        """Directives first (but for those that wait for chunks), then the compute time, then the audio."""
        refuse_voice_changes(replace(request, speaker_clip=None))
        refuse_options(request)
        clip = _heard(request.speaker_clip)
        text, found = directives.parse(request.text)
        found = self._always + found
        active = [directive for directive in found if directive.active(request.job.attempt)]
        deferred = [directive for directive in active if "after" in directive.arguments]
        for directive in active:
            if directive not in deferred:
                self._faults.act(directive, take)
        if not text:
            raise unspeakable("nothing is left of the text without its directives")
        names = {directive.name for directive in active}
        pcm = audio.to_pcm(_samples(text, request.job.segment, names, clip))
        if any(directive.name == "dropchunk" for directive in active):
            pcm = _lose_a_chunk(pcm, take)
        self._deliver(pcm, self._pace.seconds(len(text)), deferred, take)

    def _deliver(self, pcm: bytes, seconds: float, deferred: list[Directive], take: Take) -> None:
        """Audio in the pieces in which it is "made", with deferred directives acting between chunks."""
        size = STREAM_BYTES if self._pace.streaming else PIECE_BYTES
        pieces = [pcm[start : start + size] for start in range(0, len(pcm), size)]
        if not self._pace.streaming:
            _compute(seconds, take)
        for index, piece in enumerate(pieces):
            if self._pace.streaming:
                _compute(seconds / len(pieces), take)
            last = index + 1 == len(pieces)
            for directive in deferred:
                if directive.number("after", 0) == index or (last and directive.number("after", 0) > index):
                    self._faults.act(directive, take)
            take.write(piece)
            if not last and (self._pace.streaming or deferred):
                take.cut()
                take.flush()


class Faults:
    """Does what directives say; it holds the raw out descriptor, because some faults are not frames."""

    def __init__(self, writer: FrameWriter) -> None:
        self._writer = writer
        self._leaked: list[bytes] = []

    def act(self, directive: Directive, take: Take) -> None:
        """One directive; those that only change the audio do nothing here."""
        action = getattr(self, f"_{directive.name}", None)
        if action is not None:
            action(directive, take)

    def _crash(self, directive: Directive, take: Take) -> None:
        os._exit(CRASH_CODE)

    def _exit(self, directive: Directive, take: Take) -> None:
        os._exit(directive.number("code", 0) & 0xFF)

    def _hang(self, directive: Directive, take: Take) -> None:
        """Holds the interpreter lock for good (PyDLL never releases it): no thread here moves again."""
        libc = ctypes.PyDLL(None)
        while True:
            libc.pause()

    def _stall(self, directive: Directive, take: Take) -> None:
        time.sleep(min(directive.number("ms", 1000), MAX_DELAY_MS) / 1000.0)

    def _slow(self, directive: Directive, take: Take) -> None:
        _compute(min(directive.number("ms", 1000), MAX_DELAY_MS) / 1000.0, take)

    def _allocate(self, directive: Directive, take: Take) -> None:
        """Takes memory and gives it back; over the limit there is no way on, as for real engines."""
        try:
            bytearray(directive.number("mb", 1_000) * 1_000_000)
        except MemoryError:
            os._exit(CRASH_CODE)

    def _leak(self, directive: Directive, take: Take) -> None:
        """Takes memory, page by page, for good."""
        try:
            self._leaked.append(b"x" * (directive.number("mb", 1) * 1_000_000))
        except MemoryError:
            os._exit(CRASH_CODE)

    def _stderr(self, directive: Directive, take: Take) -> None:
        _flood(2, directive.number("bytes", MAX_BODY_BYTES))

    def _stdout(self, directive: Directive, take: Take) -> None:
        sys.stdout.flush()
        _flood(1, directive.number("bytes", MAX_BODY_BYTES))

    def _garbage(self, directive: Directive, take: Take) -> None:
        """Random bytes; the first one is set so that they never pass for a frame within the limit."""
        noise = bytearray(os.urandom(max(8, directive.number("bytes", 64))))
        noise[0] |= 0x80
        self._writer.write_raw(bytes(noise))

    def _truncate(self, directive: Directive, take: Take) -> None:
        self._writer.write_raw((1_000).to_bytes(4, "big") + bytes(500))
        os._exit(CRASH_CODE)

    def _oversize(self, directive: Directive, take: Take) -> None:
        self._writer.write_raw(OVERSIZE_BYTES.to_bytes(4, "big"))

    def _badcrc(self, directive: Directive, take: Take) -> None:
        take.spoil_checksum()

    def _error(self, directive: Directive, take: Take) -> None:
        code = directive.word("code", SYNTHESIS_FAILED)
        reason = directive.word("reason", "engine_error")
        retryable = directive.word("retryable", "true") == "true"
        raise EngineError(code, reason, "the error that the text asked for", retryable)


def _heard(path: str | None) -> bytes:
    """What is in a speaker clip."""
    try:
        return b"" if path is None else Path(path).read_bytes()
    except OSError as error:
        raise invalid_field("speakerClip", f"no such clip: {error}") from error


def _samples(text: str, segment: int, names: set[str], clip: bytes = b"") -> Sequence[int]:
    """The audio of a text, as the directives change it."""
    count = audio.sample_count(text)
    if "silence" in names:
        return [0] * count
    if "clip" in names:
        return audio.square_wave(count)
    samples = audio.expected_samples(text, segment, clip)
    return samples[:10] if "short" in names else samples


def _lose_a_chunk(pcm: bytes, take: Take) -> bytes:
    """Writes the beginning without sending chunk 1 (or 0, if there is no 1), and returns the rest."""
    start = PIECE_BYTES if len(pcm) > 2 * PIECE_BYTES else 0
    end = start + min(PIECE_BYTES, (len(pcm) - start) // 4 * 2)
    take.write(pcm[:end])
    take.cut()
    take.lose_chunk()
    return pcm[end:]


def _compute(seconds: float, take: Take) -> None:
    """Waits in steps, as an engine that computes would move."""
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        time.sleep(min(STEP_S, rest))
        take.step()


def _flood(fd: int, count: int) -> None:
    line = b"checkable noise " * 63 + b"checkable noise\n"
    while count > 0:
        count -= os.write(fd, line[: min(len(line), count)])


class CheckableEngine(Engine):
    """Makes checkable models; options `computeMs`, `msPerChar`, `loadMs`, `streaming` set their pace."""

    name = "checkable"
    library = "none"

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        if config.writer is None:
            raise ValueError("the checkable engine needs the out descriptor")
        self._faults = Faults(config.writer)
        always = os.environ.get(ALWAYS)
        self._always = directives.parse(f"[[{always}]]")[1] if always else []
        signal.signal(signal.SIGUSR1, self._fall_ill)

    def _fall_ill(self, _signal: int, _frame: FrameType | None) -> None:
        self._always.extend(directives.parse("[[error]]")[1])

    @property
    def capabilities(self) -> Capabilities:
        """It streams where the model's options say so."""
        return Capabilities(streaming=True, speaker_clip=True, lanes=self.config.lanes or 1)

    def load(self, spec: ModelSpec, progress: Progress) -> Model:
        """Waits `loadMs`, then there is a model."""
        options = spec.options
        load_ms = options.optional_number("loadMs", 0, MAX_DELAY_MS) or 0.0
        pace = Pace(
            compute_ms=options.optional_number("computeMs", 0, MAX_DELAY_MS) or 0.0,
            ms_per_char=options.optional_number("msPerChar", 0, MAX_DELAY_MS) or 0.0,
            streaming=options.optional_flag("streaming") or False,
        )
        progress("load")
        time.sleep(load_ms / 1000.0)
        return CheckableModel(pace, self._faults, self._always)
