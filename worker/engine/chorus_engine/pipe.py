"""The engine pipe: frames, envelopes and their limits (protocol 2.1).

A frame is a big-endian u32 and that many bytes of body; the body is one MessagePack map, the envelope. The
reader yields an `Envelope`, or a `PipeError` for a body that is not one: the frame boundary is intact then
and the stream goes on. A frame over the limit raises `StreamBroken`, because what follows it cannot be
trusted. The writer may be used from any thread; frames that belong together leave in one system call.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from chorus_engine.errors import INVALID_REQUEST, EngineError

VERSION = "2.1.0"
SUPPORTED = (VERSION,)
HEADER_BYTES = 4
MAX_BODY_BYTES = 1_048_576
MAX_DEPTH = 32


class StreamBroken(Exception):
    """The frame boundary is lost; only ending the process helps."""


@dataclass(frozen=True)
class Envelope:
    """One message read from the pipe. `received` is `time.perf_counter()` when its last byte was in."""

    message_id: str
    kind: str
    payload: dict[str, Any]
    traceparent: str | None
    received: float


@dataclass(frozen=True)
class PipeError:
    """A body that is no envelope, and whom to answer where that much could be read."""

    error: EngineError
    message_id: str | None = None


class FrameReader:
    """Cuts the byte stream of a descriptor into frames."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, True)
        self._stream = os.fdopen(fd, "rb", buffering=65_536)

    def messages(self) -> Iterator[Envelope | PipeError]:
        """Messages until the stream ends; a frame cut short by the end counts as the end."""
        while True:
            header = self._stream.read(HEADER_BYTES)
            if len(header) < HEADER_BYTES:
                return
            length = int.from_bytes(header, "big")
            if length > MAX_BODY_BYTES:
                raise StreamBroken(f"frame of {length} bytes is over the limit of {MAX_BODY_BYTES}")
            body = self._stream.read(length)
            if len(body) < length:
                return
            yield decode(body)


def decode(body: bytes) -> Envelope | PipeError:
    """Body of a frame to envelope. Every way in which it can be wrong is an answer, never an exception."""
    received = time.perf_counter()
    try:
        message = msgpack.unpackb(body, raw=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        return PipeError(_bad_frame(f"body is not one MessagePack value: {type(error).__name__}"))
    if not isinstance(message, dict):
        return PipeError(_bad_frame("body is not a map"))
    message_id = message.get("messageId")
    if not isinstance(message_id, str) or not 0 < len(message_id) <= 128:
        return PipeError(_bad_envelope("messageId", "a string of 1 to 128 characters is needed"))
    problem = _envelope_problem(message)
    if problem is not None:
        return PipeError(problem, message_id)
    traceparent = message.get("traceparent")
    return Envelope(
        message_id=message_id,
        kind=message["type"],
        payload=message["payload"],
        traceparent=traceparent if isinstance(traceparent, str) else None,
        received=received,
    )


def _envelope_problem(message: dict[Any, Any]) -> EngineError | None:
    if not isinstance(message.get("version"), str):
        return _bad_envelope("version", "a string is needed")
    if not isinstance(message.get("type"), str):
        return _bad_envelope("type", "a string is needed")
    if not isinstance(message.get("payload"), dict):
        return _bad_envelope("payload", "a map is needed")
    if not _within_depth(message, MAX_DEPTH):
        return _bad_frame(f"body is nested more than {MAX_DEPTH} levels deep")
    return None


def _within_depth(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_within_depth(item, depth - 1) for item in value.values())
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_within_depth(item, depth - 1) for item in value)
    return True


def _bad_frame(message: str) -> EngineError:
    return EngineError(INVALID_REQUEST, "bad_frame", message)


def _bad_envelope(field: str, message: str) -> EngineError:
    return EngineError(INVALID_REQUEST, "bad_envelope", f"{field}: {message}", field=field)


def frame(
    kind: str, payload: dict[str, Any], correlation_id: str | None = None, traceparent: str | None = None
) -> bytes:
    """One frame, header included, ready to write."""
    message: dict[str, Any] = {
        "version": VERSION,
        "messageId": str(uuid.uuid4()),
        "timestamp": time.time_ns() // 1_000_000,
        "type": kind,
        "payload": payload,
    }
    if correlation_id is not None:
        message["metadata"] = {"correlationId": correlation_id}
    if traceparent is not None:
        message["traceparent"] = traceparent
    body = msgpack.packb(message, use_bin_type=True)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a body of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class FrameWriter:
    """Writes frames from any thread, whole and in order. A worker that is gone ends the process."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, True)
        self._fd = fd
        self._lock = threading.Lock()

    def write(self, frames: Sequence[bytes]) -> None:
        """Frames that belong together, one system call where the kernel takes them at once."""
        self.write_raw(b"".join(frames))

    def write_raw(self, data: bytes) -> None:
        """Bytes as they are; apart from frames only the checkable engine's faults come this way."""
        rest = memoryview(data)
        with self._lock:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except OSError:
                    os._exit(0)
