"""The checkable engine: its audio to the sample, its lanes, and each of its directives."""

from __future__ import annotations

import array
import os
import signal
import sys
import zlib
from pathlib import Path

import pytest
from support import EngineProcess, Speech

from chorus_engine import directives
from chorus_engine.checkable_audio import MAX_SAMPLES, expected_samples
from chorus_engine.errors import EngineError

TEXT = "The sentence that is checked."


@pytest.fixture
def begin(start):
    """Starts a checkable engine with a model `m` of the given options."""

    def ready(*arguments: str, **options: object) -> EngineProcess:
        process = start("checkable", *arguments)
        process.hello()
        assert process.load("m", {"builtin": "checkable"}, **options)["type"] == "response"
        return process

    return ready


def job(segment: int = 7, attempt: int = 1) -> dict:
    return {"session": "s", "segment": segment, "attempt": attempt, "run": "r"}


def ask(engine: EngineProcess, text: str, **fields: object) -> str:
    return engine.send({"method": "synthesize", "model": "m", "text": text, "job": job(), **fields})


def failed(message: dict) -> tuple[str, str, bool]:
    assert message["type"] == "error", message
    payload = message["payload"]
    return payload["code"], payload["details"]["reason"], payload["retryable"]


def test_a_frame_holds_what_it_should():
    samples = expected_samples("abc", 40_000)
    assert len(samples) == 2_400
    frames = [samples[start : start + 8] for start in range(0, 2_400, 8)]
    for index, frame in enumerate(frames):
        values = [value + 16_384 for value in frame[1:7]]
        assert (frame[0], frame[7]) == (181, -181)
        assert values[0] << 15 | values[1] == 0x352441C2 & 0x3FFFFFFF
        assert values[2] == 40_000 & 0x7FFF
        assert values[3] << 15 | values[4] == index
        assert values[5] == sum(values[:5]) & 0x7FFF
    assert len(expected_samples("", 0)) == 1_600
    assert len(expected_samples("x" * 10_000, 0)) == MAX_SAMPLES
    assert expected_samples("abc", 1) != expected_samples("abd", 1) != expected_samples("abd", 2)


def test_a_clip_is_heard_in_every_frame(begin, tmp_path):
    engine = begin()
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a voice")
    two.write_bytes(b"another voice")
    for clip in (one, two):
        spoken = engine.speak("m", TEXT, job=job(), speakerClip=str(clip))
        assert spoken.samples == expected_samples(TEXT, 7, clip.read_bytes())
    plain = engine.speak("m", TEXT, job=job()).samples
    assert plain == expected_samples(TEXT, 7) != expected_samples(TEXT, 7, b"a voice")
    missing = engine.answer(ask(engine, TEXT, speakerClip=str(tmp_path / "none")))
    assert missing["payload"]["details"]["field"] == "speakerClip"
    assert failed(missing) == ("INVALID_REQUEST", "invalid_field", False)


@pytest.mark.parametrize("options", [{}, {"streaming": True}, {"computeMs": 50, "msPerChar": 1}])
@pytest.mark.parametrize("text", ["é", "Zwölf Boxkämpfer 🎉", "x" * 700])
def test_audio_is_the_expected(begin, options, text):
    engine = begin(**options)
    speech = engine.speak("m", f"  {text} ", job=job(segment=12))
    assert speech.result["sampleRate"] == 16_000
    assert speech.samples == expected_samples(text, 12)


def test_streaming_sends_chunks_while_it_computes(begin):
    engine = begin(streaming=True, computeMs=60_000)
    message_id = ask(engine, "x" * 600)
    message = engine.receive()
    while message["payload"]["event"] != "chunk":
        message = engine.receive()
    assert message["metadata"] == {"correlationId": message_id}
    assert len(message["payload"]["data"]) == 8_000
    engine.send({"method": "cancel", "messageId": message_id})
    assert failed(engine.answer(message_id))[1] == "cancelled"


def test_progress_is_told_between_steps(begin):
    speech = begin(computeMs=900).speak("m", TEXT, job=job())
    progress = [event for event in speech.events if event["event"] == "progress"]
    assert len(progress) >= 3
    assert all(event["stage"] == "synthesis" for event in progress)


def test_load_tells_its_stages(start):
    engine = start("checkable")
    engine.hello()
    model = {"name": "m", "source": {"builtin": "checkable"}, "options": {"loadMs": 1_200}}
    *events, last = engine.conversation(engine.send({"method": "load", "model": model}))
    assert last["payload"]["loadMs"] >= 1_200
    stages = [event["payload"]["stage"] for event in events]
    assert stages[0] == "import" and stages[-1] == "warmup"
    assert stages.count("load") >= 3


def test_lanes_run_side_by_side_and_keep_apart(begin):
    engine = begin("--lanes", "4", computeMs=2_000, streaming=True)
    ids = [ask(engine, f"{TEXT} {number}", job=job(number)) for number in range(4)]
    seen: dict[str, list] = {message_id: [] for message_id in ids}
    finished: list[str] = []
    while len(finished) < 4:
        message = engine.receive()
        seen[message["metadata"]["correlationId"]].append(message)
        if message["type"] == "response":
            assert finished or all(seen.values()), "one lane ended before another began"
            finished.append(message["metadata"]["correlationId"])
    for number, message_id in enumerate(ids):
        assert Speech(seen[message_id]).samples == expected_samples(f"{TEXT} {number}", number)


def test_queue_is_bounded(begin):
    engine = begin()
    ask(engine, f"{TEXT} [[slow ms=60000]]")
    assert engine.receive()["payload"]["stage"] == "synthesis"
    ids = [ask(engine, TEXT) for _ in range(70)]
    refusals = [failed(engine.answer(message_id)) for message_id in ids[64:]]
    assert set(refusals) == {("RESOURCE_EXHAUSTED", "queue_full", True)}
    assert engine.ask(method="ping")["type"] == "response"


def test_cancel_running_queued_and_unknown(begin):
    engine = begin()
    running, queued = ask(engine, f"{TEXT} [[slow ms=60000]]"), ask(engine, TEXT)
    cancel = engine.send({"method": "cancel", "messageId": queued})
    assert failed(engine.answer(queued)) == ("SYNTHESIS_FAILED", "cancelled", False)
    assert engine.answer(cancel)["payload"] == {"method": "cancel", "found": True}
    engine.send({"method": "cancel", "messageId": running})
    assert failed(engine.answer(running)) == ("SYNTHESIS_FAILED", "cancelled", False)
    assert engine.ask(method="cancel", messageId="nobody")["payload"]["found"] is False
    assert engine.speak("m", TEXT, job=job()).samples == expected_samples(TEXT, 7)


def test_message_id_in_use_is_refused(begin):
    engine = begin()
    first = ask(engine, f"{TEXT} [[slow ms=60000]]")
    payload = {"method": "synthesize", "model": "m", "text": TEXT}
    engine.send(payload, messageId=first)
    assert failed(engine.answer(first)) == ("INVALID_REQUEST", "duplicate", False)


def test_end_of_input_ends_a_busy_engine(begin):
    engine = begin()
    ask(engine, f"{TEXT} [[stall ms=60000]]")
    engine.close_input()
    assert engine.wait(10) == 0


@pytest.mark.parametrize(("name", "status"), [("crash", 70), ("exit code=9", 9), ("exit", 0)])
def test_directives_that_end_the_process(begin, name, status):
    engine = begin()
    ask(engine, f"{TEXT} [[{name}]]")
    assert engine.receive() is None
    assert engine.wait() == status


@pytest.mark.parametrize("options", [{}, {"streaming": True}])
def test_crash_after_chunks(begin, options):
    engine = begin(**options)
    ask(engine, "[[crash after=2]]" + "x" * 60)
    assert [engine.receive()["payload"]["seq"] for _ in range(2)] == [0, 1]
    assert engine.receive() is None
    assert engine.wait() == 70


def test_directives_of_other_attempts_are_asleep(begin):
    engine = begin()
    text = f"[[error attempts=1-2]] {TEXT} [[crash attempts=1]]"
    assert failed(engine.answer(ask(engine, text, job=job(attempt=2))))[1] == "engine_error"
    assert engine.speak("m", text, job=job(attempt=3)).samples == expected_samples(TEXT, 7)


def test_hang_stops_everything_and_stall_does_not(begin):
    engine = begin()
    stalled = ask(engine, f"{TEXT} [[stall ms=600]]")
    assert engine.ask(method="ping")["type"] == "response"
    assert engine.conversation(stalled)[-1]["type"] == "response"
    ask(engine, f"{TEXT} [[hang]]")
    engine.send({"method": "ping"})
    while not engine.silent(0.7):
        engine.receive()
    assert engine.process.poll() is None


def test_floods_of_logs_do_not_hurt_the_pipe(begin):
    engine = begin()
    speech = engine.speak("m", f"[[stdout bytes=300000]] {TEXT} [[stderr bytes=300000]]", job=job())
    assert speech.samples == expected_samples(TEXT, 7)
    assert engine.log.count(b"checkable noise") > 1_000


def test_stdout_noise_does_not_hurt_a_pipe_on_stdout(start):
    engine = start("checkable", stdio=True)
    engine.hello()
    engine.load("m", {"builtin": "checkable"})
    assert engine.speak("m", f"{TEXT} [[stdout bytes=100000]]", job=job()).samples == expected_samples(
        TEXT, 7
    )


def test_broken_streams(begin):
    engine = begin()
    ask(engine, f"{TEXT} [[garbage bytes=64]]")
    assert engine.raw(1)[0] >= 0x80
    engine = begin()
    ask(engine, f"{TEXT} [[oversize]]")
    assert engine.raw(4) == (2**31).to_bytes(4, "big")
    engine = begin()
    ask(engine, f"{TEXT} [[truncate]]")
    assert engine.receive() is None
    assert engine.wait() == 70


def test_bad_audio(begin):
    engine = begin()
    count = len(expected_samples(TEXT, 7))
    assert engine.speak("m", f"{TEXT} [[silence]]", job=job()).samples == array.array("h", [0] * count)
    clipped = engine.speak("m", f"{TEXT} [[clip]]", job=job()).samples
    assert len(clipped) == count and set(clipped) == {32_767, -32_767}
    assert engine.speak("m", f"{TEXT} [[short]]", job=job()).samples == expected_samples(TEXT, 7)[:10]


def test_bad_checksum(begin):
    engine = begin()
    *events, last = engine.conversation(ask(engine, f"{TEXT} [[badcrc]]"))
    pcm = b"".join(event["payload"]["data"] for event in events) + last["payload"]["data"]
    assert zlib.crc32(pcm) != last["payload"]["crc32"]


@pytest.mark.parametrize(("chars", "lost"), [(2, 0), (15, 0), (60, 1)])
@pytest.mark.parametrize("options", [{}, {"streaming": True}])
def test_dropped_chunk(begin, chars, lost, options):
    engine = begin(**options)
    *events, last = engine.conversation(ask(engine, "[[dropchunk]]" + "x" * chars))
    seqs = [event["payload"]["seq"] for event in events if event["payload"]["event"] == "chunk"]
    assert seqs == [seq for seq in range(last["payload"]["seq"]) if seq != lost]
    assert last["payload"]["chunks"] == last["payload"]["seq"] + 1 == len(seqs) + 2
    assert last["payload"]["samples"] == len(expected_samples("x" * chars, 7))


def test_asked_for_error(begin):
    text = "[[error code=RESOURCE_EXHAUSTED reason=tired retryable=false]] x"
    engine = begin()
    assert failed(engine.answer(ask(engine, text))) == ("RESOURCE_EXHAUSTED", "tired", False)
    assert failed(engine.answer(ask(engine, "[[error]] x"))) == ("SYNTHESIS_FAILED", "engine_error", True)


def test_an_engine_that_falls_ill_lives_and_fails_every_text(begin):
    engine = begin()
    assert engine.speak("m", TEXT, job=job()).samples == expected_samples(TEXT, 7)
    engine.process.send_signal(signal.SIGUSR1)
    assert failed(engine.answer(ask(engine, TEXT))) == ("SYNTHESIS_FAILED", "engine_error", True)
    assert engine.answer(engine.send({"method": "ping"}))["type"] == "response"
    assert engine.process.poll() is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sizes are read from /proc")
def test_a_leak_is_not_given_back(begin):
    engine = begin()
    sizes = []
    for _ in range(3):
        engine.speak("m", f"[[leak mb=30]]{TEXT}", job=job())
        pages = int(Path(f"/proc/{engine.process.pid}/statm").read_text().split()[1])
        sizes.append(pages * os.sysconf("SC_PAGE_SIZE"))
    assert sizes[2] - sizes[0] >= 55_000_000


def test_texts_without_words_and_bad_directives(begin):
    engine = begin()
    assert failed(engine.answer(ask(engine, " [[silence]] "))) == ("INVALID_REQUEST", "unspeakable", False)
    for text in ("[[fly]] x", "[[]] x", "[[stall ms=soon]] x", "[[crash ms=1]] x", "[[exit attempts=a]] x"):
        assert failed(engine.answer(ask(engine, text))) == ("INVALID_REQUEST", "directive", False)


def test_parse_takes_directives_out():
    text, found = directives.parse(" [[slow ms=5]]a [[crash attempts=2]] b ")
    assert text == "a  b"
    assert [directive.name for directive in found] == ["slow", "crash"]
    assert found[0].number("ms", 1) == 5 and found[0].number("after", 3) == 3
    assert [found[1].active(attempt) for attempt in (1, 2, 3)] == [False, True, False]
    with pytest.raises(EngineError):
        directives.parse("[[unheard of]]")
