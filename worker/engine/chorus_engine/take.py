"""One synthesis under way: where samples go, how progress is told and where cancelling takes hold.

A lane makes a `Take` for a request and hands it to the model. The model calls `step` between any two steps
of its work and `write` with samples. Pieces of 16 KiB are framed as they fill; they leave the process all
together with the response (a model that makes a sentence in one burst costs one system call) or, for a
model that streams, at each `flush`. The last piece always travels in the response.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from chorus_engine import pipe
from chorus_engine.errors import cancelled
from chorus_engine.pipe import Envelope, FrameWriter

PIECE_BYTES = 16_384
STREAM_PIECE_BYTES = 4_096
SAMPLE_BYTES = 2
PROGRESS_INTERVAL_S = 0.1


class Take:
    """The output side of one synthesize request, used by one lane; only `cancel` may come from elsewhere.

    `is_alone` says whether it began with no other beside or behind it, so that all cores are its own.
    """

    def __init__(
        self, request: Envelope, writer: FrameWriter, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.message_id = request.message_id
        self.traceparent = request.traceparent
        self._request = request
        self._writer = writer
        self._clock = clock
        self._cancelled = threading.Event()
        self._cancelling = threading.Lock()
        self._acts: list[Callable[[], None]] = []
        self.is_alone = True
        self._pending: list[bytes] = []
        self._buffer = bytearray()
        self._last_frame = clock()
        self._seq = 0
        self._pcm_bytes = 0
        self._crc32 = 0
        self._crc32_fault = 0
        self._warnings: list[dict[str, str]] = []

    def cancel(self) -> None:
        """Ends this take at its next step, which `on_cancel` may bring about."""
        with self._cancelling:
            self._cancelled.set()
            acts = list(self._acts)
        for act in acts:
            act()

    @contextmanager
    def on_cancel(self, act: Callable[[], None]) -> Iterator[None]:
        """Within it, cancelling calls `act` (from another thread): it should end what has no steps."""
        with self._cancelling:
            self._acts.append(act)
            late = self._cancelled.is_set()
        if late:
            act()
        try:
            yield
        finally:
            with self._cancelling:
                self._acts.remove(act)

    def step(self) -> None:
        """Called by the working thread between two steps: raises if cancelled, tells progress if due."""
        if self._cancelled.is_set():
            raise cancelled()
        if self._clock() - self._last_frame >= PROGRESS_INTERVAL_S:
            self._send([self._event({"event": "progress", "stage": "synthesis"})])

    def warn_unspeakable(self, characters: str) -> None:
        """Notes characters that the model leaves out; the audio is made without them."""
        message = f"characters that the model cannot say were left out: {characters}"
        self._warnings.append({"reason": "unspeakable", "message": message, "characters": characters})

    def write(self, pcm: bytes | bytearray | memoryview) -> None:
        """Takes s16le mono samples, of any number, and frames those pieces that are full and not the last."""
        self._crc32 = zlib.crc32(pcm, self._crc32)
        self._pcm_bytes += len(pcm)
        self._buffer += pcm
        self._frame_full_pieces(keep=1)

    def flush(self) -> None:
        """Sends what is framed, and what is not yet full if it is long enough for a chunk of its own."""
        if len(self._buffer) >= STREAM_PIECE_BYTES:
            self.cut()
        if self._pending:
            pending, self._pending = self._pending, []
            self._send(pending)

    def cut(self) -> None:
        """Frames all that was written, full or not. More must follow, for the response to carry."""
        self._frame_full_pieces(keep=0)
        self._push(bytes(self._buffer))
        self._buffer.clear()

    def lose_chunk(self) -> None:
        """Forgets the newest framed chunk as if it had been sent: a fault for the checkable engine."""
        self._pending.pop()

    def spoil_checksum(self) -> None:
        """Makes the response carry a wrong CRC: a fault for the checkable engine."""
        self._crc32_fault = 0xFFFF_FFFF

    def finish(self, sample_rate: int) -> None:
        """Sends what is left and the response that ends the request."""
        engine_ms = (self._clock() - self._request.received) * 1000.0
        payload = self._result(sample_rate, engine_ms)
        response = pipe.frame("response", payload, self.message_id, self.traceparent)
        self._send([*self._pending, response])

    def _result(self, sample_rate: int, engine_ms: float) -> dict[str, Any]:
        return {
            "method": "synthesize",
            "seq": self._seq,
            "data": bytes(self._buffer),
            "chunks": self._seq + 1,
            "samples": self._pcm_bytes // SAMPLE_BYTES,
            "sampleRate": sample_rate,
            "crc32": self._crc32 ^ self._crc32_fault,
            "engineMs": engine_ms,
            "warnings": self._warnings,
        }

    def _frame_full_pieces(self, keep: int) -> None:
        """Frames full pieces, as long as at least `keep` bytes stay behind for the response."""
        start = 0
        with memoryview(self._buffer) as view:
            while len(view) - start >= PIECE_BYTES + keep:
                self._push(bytes(view[start : start + PIECE_BYTES]))
                start += PIECE_BYTES
        del self._buffer[:start]

    def _push(self, piece: bytes) -> None:
        if piece:
            self._pending.append(self._event({"event": "chunk", "seq": self._seq, "data": piece}))
            self._seq += 1

    def _event(self, payload: dict[str, Any]) -> bytes:
        return pipe.frame("event", payload, self.message_id, self.traceparent)

    def _send(self, frames: list[bytes]) -> None:
        self._last_frame = self._clock()
        self._writer.write(frames)
