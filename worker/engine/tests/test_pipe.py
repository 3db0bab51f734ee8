"""The pipe itself: framing, envelopes, negotiation, and how the process ends."""

from __future__ import annotations

import os
import sys
import types

import msgpack
import pytest
from support import EngineProcess


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.fixture
def engine(start) -> EngineProcess:
    """A null engine with a model loaded."""
    process = start("null")
    process.hello()
    assert process.load("m", {"builtin": "null"})["type"] == "response"
    return process


def refused(message: dict, code: str, reason: str) -> dict:
    assert message["type"] == "error", message
    payload = message["payload"]
    assert (payload["code"], payload["details"]["reason"]) == (code, reason)
    return payload


@pytest.mark.parametrize("stdio", [False, True])
def test_handshake_on_any_descriptors(start, stdio):
    hello = start("null", "--lanes", "3", stdio=stdio).hello()
    assert hello["version"] == "2.1.0"
    assert hello["supported"] == ["2.1.0"]
    assert hello["engine"]["name"] == "null"
    assert hello["device"]["kind"] == "cpu"
    assert hello["capabilities"]["lanes"] == 3


@pytest.mark.parametrize("accept", ["^1", ">=2.2.0", "<2.1.0", "=2.0", "~1.9", "^3.0.0, <4"])
def test_version_without_overlap_is_refused(start, accept):
    payload = refused(start("null").ask(method="hello", accept=accept), "INVALID_REQUEST", "version")
    assert payload["message"].startswith("Unsupported protocol version: ")
    assert payload["details"]["supported"] == ["2.1.0"]


@pytest.mark.parametrize(
    "accept", ["*", "2", "2.1.0", "=2.1", "~2.1.0", "^2.0", ">=2.0.0, <3.0.0", "<=2.1.0"]
)
def test_version_with_overlap_is_taken(start, accept):
    assert start("null").ask(method="hello", accept=accept)["payload"]["version"] == "2.1.0"


def test_accept_that_is_no_range_names_the_field(start):
    payload = refused(start("null").ask(method="hello", accept="new"), "INVALID_REQUEST", "invalid_field")
    assert payload["details"]["field"] == "accept"


def test_nothing_goes_before_hello(start):
    process = start("null")
    refused(process.load("m", {"builtin": "null"}), "INVALID_REQUEST", "version")
    assert process.ask(method="ping")["type"] == "response"
    assert process.hello()["version"] == "2.1.0"


def test_garbage_in_an_intact_frame_is_an_error_and_the_engine_goes_on(engine):
    deep = b"\x81\xa1a" * 5000 + b"\x01"
    bodies = [b"", b"\xc1", b"\x92\x01", b"\x01", b"\xa2\xff\xfe", msgpack.packb([1, 2]), deep]
    for body in bodies:
        engine.send_raw(frame(body))
        message = engine.receive()
        refused(message, "INVALID_REQUEST", "bad_frame")
        assert "metadata" not in message
    assert engine.ask(method="ping")["type"] == "response"


def test_maps_that_are_no_envelope_are_errors(engine):
    whole = {"version": "2.1.0", "messageId": "x", "timestamp": 1, "type": "request", "payload": {}}
    for field in ("version", "messageId", "type", "payload"):
        for value in (None, 7, [], b"x"):
            engine.send_raw(frame(msgpack.packb({**whole, field: value})))
            message = engine.receive()
            payload = refused(message, "INVALID_REQUEST", "bad_envelope")
            assert payload["details"]["field"] == field
            known = None if field == "messageId" else {"correlationId": "x"}
            assert message.get("metadata") == known


def test_nesting_has_a_limit(engine):
    value: dict = {}
    for _ in range(40):
        value = {"a": value}
    refused(engine.ask(method="ping", extra=value), "INVALID_REQUEST", "bad_frame")


def test_oversized_frame_is_an_error_and_ends_the_engine(engine):
    engine.send_raw((1_048_577).to_bytes(4, "big"))
    refused(engine.receive(), "INVALID_REQUEST", "oversized_frame")
    assert engine.receive() is None
    assert engine.wait() == 65


def test_largest_frame_is_taken(engine):
    padding = "x" * (1_048_576 - 300)
    assert engine.ask(method="ping", padding=padding)["type"] == "response"


@pytest.mark.parametrize("cut", [b"\x00", b"\x00\x00\x00\x10", b"\x00\x00\x00\x10half"])
def test_truncated_frame_is_the_end(engine, cut):
    engine.send_raw(cut)
    engine.close_input()
    assert engine.receive() is None
    assert engine.wait() == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 7),
        ("text", None),
        ("text", ""),
        ("text", b"bytes"),
        ("model", []),
        ("voice", 1),
        ("speed", "fast"),
        ("speed", True),
        ("speed", 0.1),
        ("speed", 4.5),
        ("speed", float("nan")),
        ("pitch", 13),
        ("pitch", "high"),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", 2**64 - 1 + 0.0),
        ("options", []),
        ("options", "x"),
        ("job", 3),
    ],
)
def test_wrong_types_name_the_field(engine, field, value):
    request = {"method": "synthesize", "model": "m", "text": "hello", field: value}
    payload = refused(engine.ask(**request), "INVALID_REQUEST", "invalid_field")
    assert payload["details"]["field"] == field


def test_nested_fields_are_named_in_full(engine):
    answer = engine.ask(method="synthesize", model="m", text="x", job={"attempt": "one"})
    assert refused(answer, "INVALID_REQUEST", "invalid_field")["details"]["field"] == "job.attempt"
    answer = engine.ask(method="load", model={"name": "m", "source": {"path": 4}})
    assert refused(answer, "INVALID_REQUEST", "invalid_field")["details"]["field"] == "model.source.path"
    for source in ({}, {"hub": "a", "path": "b"}):
        answer = engine.load("m", source)
        assert refused(answer, "INVALID_REQUEST", "invalid_field")["details"]["field"] == "model.source"
    answer = engine.ask(method="load", model={"name": "m", "source": {"builtin": "x"}, "sha256": "abc"})
    assert refused(answer, "INVALID_REQUEST", "invalid_field")["details"]["field"] == "model.sha256"


def test_unknown_methods_models_and_fields(engine):
    refused(engine.ask(method="sing"), "INVALID_REQUEST", "unknown_method")
    refused(engine.ask(), "INVALID_REQUEST", "invalid_field")
    answer = engine.ask(method="synthesize", model="other", text="x")
    assert refused(answer, "MODEL_NOT_FOUND", "not_loaded")["details"]["known"] == ["m"]
    refused(engine.ask(method="unload", model="other"), "MODEL_NOT_FOUND", "not_loaded")
    assert engine.ask(method="ping", novelty={"a": 1})["type"] == "response"
    assert engine.speak("m", "x", novelty=1).result["samples"] == 22_050


def test_answers_carry_the_trace(engine):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for payload in (
        {"method": "ping"},
        {"method": "synthesize", "model": "m", "text": "x"},
        {"method": "sing"},
    ):
        for message in engine.conversation(engine.send(payload, traceparent=trace)):
            assert message["traceparent"] == trace
            assert message["version"] == "2.1.0"


def test_null_engine_speaks_one_second(engine):
    speech = engine.speak("m", "anything", seed=3)
    assert speech.result["samples"] == speech.result["sampleRate"] == 22_050
    assert 0 < max(speech.samples) < 2_000
    assert 0 <= speech.result["engineMs"] < 1_000
    assert engine.speak("m", "else").pcm == speech.pcm


def test_null_engine_refuses_what_it_cannot(engine):
    for field, value in (("speed", 2.0), ("pitch", 1), ("voice", "v"), ("language", "en")):
        answer = engine.ask(method="synthesize", model="m", text="x", **{field: value})
        payload = refused(answer, "INVALID_REQUEST", "unsupported_option")
        assert payload["details"]["field"] == field
    assert engine.speak("m", "x", speed=1.0, pitch=0).result["samples"] == 22_050


def test_unload_and_load_again(engine):
    unloaded = engine.ask(method="unload", model="m")["payload"]
    assert unloaded["rssBytes"] > 0
    assert "gpuMemoryBytes" not in unloaded, "there is no torch in this engine"
    refused(engine.ask(method="synthesize", model="m", text="x"), "MODEL_NOT_FOUND", "not_loaded")
    assert engine.load("m", {"builtin": "null"})["payload"]["sampleRate"] == 22_050


def test_shutdown_answers_and_exits(engine):
    assert engine.ask(method="shutdown")["payload"] == {"method": "shutdown"}
    assert engine.wait() == 0


def test_gone_worker_ends_the_engine(engine):
    os.close(engine._out)
    engine._out = os.dup(engine._log_read)
    engine.send({"method": "ping"})
    assert engine.wait() == 0


def test_bad_command_lines(start):
    assert start("other").wait() == 2
    assert start("null", "--threads", "0").wait() == 2


def test_memory_limit_is_applied(start):
    process = start("null", "--max-memory-bytes", str(1 << 30))
    pid = process.hello()["pid"]
    with open(f"/proc/{pid}/limits", encoding="ascii") as limits:
        line = next(line for line in limits if line.startswith("Max data size"))
    assert line.split()[3] == str(1 << 30)
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        assert "NoNewPrivs:\t1\n" in list(status)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this platform has no affinity")
def test_it_keeps_to_its_processors(start):
    process = start("null", "--max-cpus", "1")
    assert len(os.sched_getaffinity(process.hello()["pid"])) == 1


def test_gpu_memory_is_what_torch_holds(monkeypatch):
    from chorus_engine import host

    reserved = {0: 300, 1: 20}
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 2, memory_reserved=lambda device: reserved[device]
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert host.memory()["gpuMemoryBytes"] == 320
    cuda.is_initialized = lambda: False
    assert "gpuMemoryBytes" not in host.memory()
