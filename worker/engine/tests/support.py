"""The worker's side of the pipe, as small as a test needs it."""

from __future__ import annotations

import array
import os
import select
import subprocess
import sys
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import msgpack

ENGINE_ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 120.0


class EngineProcess:
    """`python -m chorus_engine` on descriptors 4 and 5, or 0 and 1 with `stdio=True`."""

    def __init__(self, kind: str, *arguments: str, stdio: bool = False, env: dict[str, str] | None = None):
        child_in, self._in = os.pipe()
        self._out, child_out = os.pipe()
        self._log_read, log_write = os.pipe()
        command = _command(kind, child_in, child_out, list(arguments), stdio)
        self.process = subprocess.Popen(
            command,
            stdin=child_in if stdio else subprocess.DEVNULL,
            stdout=child_out if stdio else log_write,
            stderr=log_write,
            pass_fds=() if stdio else (child_in, child_out),
            env={**os.environ, "PYTHONPATH": str(ENGINE_ROOT), **(env or {})},
            cwd="/",
        )
        for fd in (child_in, child_out, log_write):
            os.close(fd)
        self._buffer = b""
        self.log = b""

    def send(self, payload: dict[str, Any], **envelope: Any) -> str:
        """Sends a request and returns its message id."""
        message_id = str(uuid.uuid4())
        message = {
            "version": "2.1.0",
            "messageId": message_id,
            "timestamp": time.time_ns() // 1_000_000,
            "type": "request",
            "payload": payload,
            **envelope,
        }
        body = msgpack.packb(message)
        self.send_raw(len(body).to_bytes(4, "big") + body)
        return message["messageId"]

    def send_raw(self, data: bytes) -> None:
        """Bytes as they are."""
        while data:
            data = data[os.write(self._in, data) :]

    def close_input(self) -> None:
        """Ends the stream that the engine reads."""
        if self._in >= 0:
            os.close(self._in)
            self._in = -1

    def receive(self, timeout_s: float = DEADLINE_S) -> dict[str, Any] | None:
        """The next message; None at the end of the stream."""
        head = self._exactly(4, timeout_s)
        if head is None:
            return None
        body = self._exactly(int.from_bytes(head, "big"), timeout_s)
        return None if body is None else msgpack.unpackb(body)

    def raw(self, count: int, timeout_s: float = DEADLINE_S) -> bytes | None:
        """The next `count` bytes as they came; None if the stream ends before."""
        return self._exactly(count, timeout_s)

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        return not self._buffer and not select.select([self._out], [], [], seconds)[0]

    def _exactly(self, count: int, timeout_s: float) -> bytes | None:
        deadline = time.monotonic() + timeout_s
        while len(self._buffer) < count:
            ready, _, _ = select.select(
                [self._out, self._log_read], [], [], max(0.0, deadline - time.monotonic())
            )
            if not ready:
                raise TimeoutError(f"no answer in {timeout_s} s; log: {self.log.decode(errors='replace')}")
            if self._log_read in ready:
                self.log += os.read(self._log_read, 65_536)
            if self._out in ready:
                data = os.read(self._out, 1 << 20)
                if not data:
                    return None
                self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def answer(self, message_id: str) -> dict[str, Any]:
        """The response or error that ends a request; its events are skipped."""
        return self.conversation(message_id)[-1]

    def conversation(self, message_id: str) -> list[dict[str, Any]]:
        """All messages about a request up to the one that ends it; messages about others are skipped."""
        seen = []
        while True:
            message = self.receive()
            if message is None:
                raise EOFError(f"the engine ended; log: {self.log.decode(errors='replace')}")
            if message.get("metadata", {}).get("correlationId") == message_id:
                seen.append(message)
                if message["type"] in ("response", "error"):
                    return seen

    def ask(self, **payload: Any) -> dict[str, Any]:
        """Sends a request and returns what ended it."""
        return self.answer(self.send(payload))

    def hello(self) -> dict[str, Any]:
        """The handshake."""
        return self.ask(method="hello", accept=">=2.0.0, <3.0.0", worker="test")["payload"]

    def load(self, name: str, source: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Loads a model."""
        model = {"name": name, "engine": "test", "source": source, "options": options}
        return self.ask(method="load", model=model)

    def speak(self, model: str, text: str, **fields: Any) -> Speech:
        """Speaks a text and checks that what comes back is whole."""
        return self.speech(self.send({"method": "synthesize", "model": model, "text": text, **fields}))

    def speech(self, message_id: str) -> Speech:
        """The audio of a synthesize request that was sent; an error fails the test."""
        return Speech(self.conversation(message_id))

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """The exit status, once the process has ended."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            if select.select([self._log_read], [], [], 0.02)[0]:
                data = os.read(self._log_read, 65_536)
                self.log += data
                if not data:
                    return self.process.wait(max(0.1, deadline - time.monotonic()))
            if time.monotonic() > deadline:
                raise TimeoutError("the engine is still running")
        return self.process.returncode

    def close(self) -> None:
        """Ends the process."""
        self.close_input()
        self.process.kill()
        self.process.wait()
        os.close(self._out)
        os.close(self._log_read)


class Speech:
    """A finished synthesis, checked for wholeness."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        *events, last = messages
        assert last["type"] == "response", last["payload"]
        self.result = last["payload"]
        self.events = [event["payload"] for event in events]
        chunks = [event for event in self.events if event["event"] == "chunk"]
        assert [chunk["seq"] for chunk in chunks] == list(range(self.result["seq"]))
        assert self.result["chunks"] == len(chunks) + 1
        self.pcm = b"".join([*(chunk["data"] for chunk in chunks), self.result["data"]])
        assert all(0 < len(chunk["data"]) <= 16_384 and len(chunk["data"]) % 2 == 0 for chunk in chunks)
        assert 0 < len(self.result["data"]) <= 16_384
        assert len(self.pcm) == 2 * self.result["samples"]
        assert zlib.crc32(self.pcm) == self.result["crc32"]

    @property
    def samples(self) -> array.array[int]:
        """The PCM as integers."""
        return array.array("h", self.pcm)


def _command(kind: str, child_in: int, child_out: int, arguments: list[str], stdio: bool) -> list[str]:
    in_fd, out_fd = (0, 1) if stdio else (child_in, child_out)
    places = ["--in-fd", str(in_fd), "--out-fd", str(out_fd)]
    return [sys.executable, "-m", "chorus_engine", "--kind", kind, *places, *arguments]
