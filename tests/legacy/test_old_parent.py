"""What parents of the old single-process service rely on, written against that service.

The file knows nothing of chorus: it starts the command in `TTS_COMMAND` (a JSON list) and speaks 1.0
lines with it. The test run gives it the old script first and `chorus stdio` second. As parents do, it keeps
a service that has not ended for what comes next: starting one takes a real voice many seconds.
"""

from __future__ import annotations

import json
import os
import pathlib
import queue
import signal
import subprocess
import threading
import time
import wave
from collections.abc import Iterator
from typing import Any

import pytest

COMMAND = json.loads(os.environ.get("TTS_COMMAND", "[]"))
PATIENCE_S = 120.0


class Parent:
    """A parent as they were: writes lines, reads lines, skips what is no JSON object."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self.answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.due = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.child.stdout
        for line in self.child.stdout:
            if line.startswith(b"{"):
                self.answers.put(json.loads(line))
        self.answers.put(None)

    def send(self, *requests: dict[str, Any] | str) -> None:
        """Writes requests; a string goes as it is."""
        assert self.child.stdin
        for request in requests:
            text = request if isinstance(request, str) else json.dumps(request)
            self.due += bool(text)
            self.child.stdin.write(text.encode() + b"\n")
        self.child.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The next answer."""
        answer = self.answers.get(timeout=PATIENCE_S)
        assert answer is not None, "it ended where an answer was due"
        self.due -= 1
        return answer

    def ask(self, request: dict[str, Any] | str) -> dict[str, Any]:
        """One request and its answer."""
        self.send(request)
        return self.receive()

    def wait(self) -> int:
        """Its exit code."""
        return self.child.wait(timeout=PATIENCE_S)

    def serves(self) -> bool:
        """Whether the next test can have it: it runs, and has answered all and no more."""
        return self.due == 0 and self.answers.empty() and self.child.poll() is None

    def kill(self) -> None:
        """Ends it, where it has not ended by itself."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


@pytest.fixture(scope="session")
def kept() -> Iterator[list[Parent]]:
    parents: list[Parent] = []
    yield parents
    for parent in parents:
        parent.kill()


@pytest.fixture
def parent(kept: list[Parent]) -> Iterator[Parent]:
    parent = kept.pop() if kept else Parent()
    yield parent
    if parent.serves():
        kept.append(parent)
    else:
        parent.kill()


def seconds(path: str | pathlib.Path) -> float:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getnframes() / file.getframerate()


def test_a_text_becomes_a_file(parent: Parent, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "hello.wav")
    answer = parent.ask({"type": "request", "text": "Hello there.", "outputPath": path})
    assert answer["type"] == "response" and answer["success"] is True
    assert answer["outputPath"] == path and answer["latencyMs"] > 0
    assert seconds(path) > 0.1


def test_without_a_path_the_answer_names_one(parent: Parent) -> None:
    answer = parent.ask({"type": "request", "text": "Hello there."})
    assert answer["success"] is True
    assert seconds(answer["outputPath"]) > 0.1
    os.unlink(answer["outputPath"])


def test_ping_and_status(parent: Parent) -> None:
    assert parent.ask({"type": "request", "method": "ping"})["success"] is True
    status = parent.ask({"type": "request", "method": "status"})
    assert status["type"] == "response" and isinstance(status["status"], str)


def test_answers_come_in_order(parent: Parent, tmp_path: pathlib.Path) -> None:
    texts = ["One long sentence that takes its time to be spoken.", "Two.", "", "Three is here.", "Four."]
    paths = [str(tmp_path / f"{index}.wav") for index in range(len(texts))]
    for text, path in zip(texts, paths, strict=True):
        parent.send({"type": "request", "text": text, "outputPath": path})
    parent.send({"type": "request", "method": "ping"})
    for text, path in zip(texts, paths, strict=True):
        answer = parent.receive()
        assert answer["success"] is bool(text)
        if text:
            assert answer["outputPath"] == path and seconds(path) > 0.1
    assert parent.receive()["type"] == "response"


def test_the_last_writer_of_a_path_wins(parent: Parent, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "same.wav")
    for text in ["A sentence that is very much longer than the other one.", "Short."]:
        parent.send({"type": "request", "text": text, "outputPath": path})
    assert parent.receive()["success"] and parent.receive()["success"]
    same = seconds(path)
    assert parent.ask({"type": "request", "text": "Short.", "outputPath": path})["success"]
    assert seconds(path) == pytest.approx(same, rel=0.5)


@pytest.mark.parametrize("line", ["{", "[1]", '"text"', '{"text": 5}', '{"type":"request"}', '{"method":"fly"}'])
def test_a_bad_line_is_an_error_and_no_end(parent: Parent, line: str) -> None:
    answer = parent.ask(line)
    assert answer["type"] == "error" and answer["success"] is False
    assert isinstance(answer["error"], str) and answer["error"]
    assert parent.ask({"type": "request", "method": "ping"})["success"] is True


def test_a_folder_that_is_missing_is_made(parent: Parent, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a" / "folder" / "a.wav"
    assert parent.ask({"type": "request", "text": "Hello.", "outputPath": str(path)})["success"] is True
    assert seconds(path) > 0


def test_a_path_that_cannot_be_written_is_an_error(parent: Parent, tmp_path: pathlib.Path) -> None:
    # Not a folder that is missing: Coqui makes that.
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "a.wav")
    assert parent.ask({"type": "request", "text": "Hello.", "outputPath": path})["success"] is False


def test_unknown_fields_and_empty_lines_are_left_alone(parent: Parent, tmp_path: pathlib.Path) -> None:
    parent.send("", "")
    path = str(tmp_path / "a.wav")
    answer = parent.ask({"type": "request", "text": "Grüße.", "outputPath": path, "novel": {"a": [1]}})
    assert answer["success"] is True and seconds(path) > 0.1


def test_shutdown_is_answered_and_ends_it(parent: Parent) -> None:
    assert parent.ask({"type": "request", "method": "shutdown"})["success"] is True
    assert parent.wait() == 0


def test_the_end_of_the_input_ends_it_after_the_answers(parent: Parent, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a.wav")
    parent.send({"type": "request", "text": "Hello there.", "outputPath": path})
    assert parent.child.stdin
    parent.child.stdin.close()
    assert parent.receive()["outputPath"] == path
    assert parent.wait() == 0


def test_sigterm_ends_it_soon(parent: Parent) -> None:
    assert parent.ask({"type": "request", "method": "ping"})["success"] is True
    began = time.monotonic()
    parent.child.send_signal(signal.SIGTERM)
    assert parent.wait() != 0
    assert time.monotonic() - began < 20
