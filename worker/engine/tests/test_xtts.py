"""XTTS as a stream, with a small one of random weights: pieces, seeds, cancelling, voices and clips."""

from __future__ import annotations

import wave

import numpy as np
import pytest
import tiny_xtts
import torch

from chorus_engine.engines import xtts
from chorus_engine.errors import EngineError
from chorus_engine.fields import Fields
from chorus_engine.requests import synthesis_request

TEXT = "Hello to all of you."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    # Threads that spin beside other tests make each other slow.
    torch.set_num_threads(1)
    made = tmp_path_factory.mktemp("xtts")
    tiny_xtts.make(made)
    return made


@pytest.fixture(scope="module")
def model(folder):
    return xtts.load(folder / "config.json", folder / "model.pth", "cpu")


@pytest.fixture(autouse=True)
def pieces_of_few_codes(monkeypatch):
    monkeypatch.setattr(xtts, "STREAM_CODES", 8)


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.wav", 220.0)


def write_clip(path, pitch: float):
    times = np.arange(22_050) / 22_050
    samples = (np.sin(2 * np.pi * pitch * times) * 12_000).astype("<i2")
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(22_050)
        stream.writeframes(samples.tobytes())
    return path


class Take:
    """Notes what is written and flushed; cancelled after so many steps."""

    def __init__(self, steps: int = 1_000_000) -> None:
        self.written: list[bytes] = []
        self.flushed = 0
        self.steps_left = steps

    def step(self) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise EngineError("SYNTHESIS_FAILED", "cancelled", "cancelled")

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def flush(self) -> None:
        self.flushed += 1

    @property
    def pcm(self) -> bytes:
        return b"".join(self.written)


def spoken(model, take=None, **fields) -> Take:
    take = take or Take()
    request = synthesis_request(Fields({"model": "m", "text": TEXT, "seed": 7, **fields}))
    model.synthesize(request, take)
    return take


def test_what_the_model_is(model):
    assert model.info.voices == ["ann", "bob"] and model.info.languages == ["en", "de"]
    assert (model.info.sample_rate, model.info.max_text_chars) == (24_000, 250)


def test_pieces_leave_one_by_one_and_make_the_whole(model, monkeypatch):
    take = spoken(model)
    assert take.flushed >= 2 and len(take.written) == take.flushed + 1
    assert len(take.written[-1]) == 2 * xtts.HELD_SAMPLES
    assert take.pcm == spoken(model).pcm
    monkeypatch.setattr(xtts, "STREAM_CODES", 0)
    whole = spoken(model)
    assert whole.flushed == 1 and len(whole.pcm) == len(take.pcm)


def test_a_seed_is_a_take(model):
    assert spoken(model).pcm == spoken(model).pcm
    assert spoken(model, seed=8).pcm != spoken(model).pcm
    state = torch.random.get_rng_state()
    spoken(model, seed=None)
    assert torch.equal(state, torch.random.get_rng_state())


def test_voice_language_and_speed_are_heard(model):
    plain = spoken(model).pcm
    assert spoken(model, voice="ann").pcm == plain != spoken(model, voice="bob").pcm
    assert spoken(model, language="de").pcm != plain
    assert len(spoken(model, speed=2.0).pcm) < 0.7 * len(plain)


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"voice": "eve"}, "invalid_field", "voice"),
        ({"language": "xx"}, "invalid_field", "language"),
        ({"pitch": 2.0}, "unsupported_option", "pitch"),
        ({"options": {"x": 1}}, "unsupported_option", "options.x"),
        ({"text": "?! …"}, "unspeakable", None),
        ({"speakerClip": "/nowhere.wav"}, "invalid_field", "speakerClip"),
        ({"speakerClip": __file__}, "invalid_field", "speakerClip"),
        ({"speakerClip": __file__, "voice": "ann"}, "invalid_field", "speakerClip"),
    ],
)
def test_what_cannot_be_is_refused(model, fields, reason, field):
    with pytest.raises(EngineError) as refusal:
        spoken(model, **fields)
    assert (refusal.value.reason, refusal.value.details.get("field")) == (reason, field)


def test_a_text_is_cut_where_a_language_has_less_room(model):
    assert xtts.parts("One, two. three", 10) == ["One, two.", "three"]
    assert xtts.parts("some words more", 12) == ["some words", "more"]
    assert xtts.parts("\u4e00" * 25 + "\u3002", 10) == ["\u4e00" * 10, "\u4e00" * 10, "\u4e00" * 5 + "\u3002"]
    assert xtts.parts("short.", 10) == ["short."] and xtts.parts("12345 .....", 6) == ["12345"]
    model._network.tokenizer.char_limits["de"] = 12
    assert len(spoken(model, language="de").pcm) > 1.5 * len(spoken(model).pcm)


def test_more_than_the_model_can_take_is_an_error(model, monkeypatch):
    monkeypatch.setattr(model._network.args, "gpt_max_text_tokens", 5)
    with pytest.raises(EngineError) as refusal:
        spoken(model)
    assert refusal.value.details["field"] == "text"


def test_a_take_ends_between_two_codes(model):
    take = Take(steps=5)
    with pytest.raises(EngineError, match="cancelled"):
        spoken(model, take)
    assert not take.written
    assert spoken(model).written


def test_a_clip_is_a_voice_and_is_listened_to_once(model, clip, tmp_path, monkeypatch):
    taken = spoken(model, speakerClip=str(clip)).pcm
    assert taken and taken != spoken(model).pcm
    heard: list[str] = []
    monkeypatch.setattr(model._clips, "_listen", lambda path: heard.append(path))
    copy = write_clip(tmp_path / "copy.wav", 220.0)
    assert spoken(model, speakerClip=str(copy)).pcm == taken and not heard


def test_few_clips_are_kept(tmp_path):
    heard: list[str] = []

    def listen(path):
        heard.append(path)
        return torch.zeros(1), torch.zeros(1)

    clips = xtts.Clips(listen, max_clips=2)
    paths = [str(write_clip(tmp_path / f"{pitch}.wav", pitch)) for pitch in (200.0, 300.0, 400.0)]
    for path in (*paths, paths[2], paths[0]):
        clips.latents(path)
    assert heard == [*paths, paths[0]]


def test_it_streams_through_the_pipe(start, folder, clip):
    engine = start("coqui")
    assert engine.hello()["capabilities"]["streaming"]
    loaded = engine.load("x", {"path": str(folder / "model.pth")})["payload"]
    assert loaded["voices"] == ["ann", "bob"] and loaded["sampleRate"] == 24_000
    # One sentence at a time: a worker should not have the engine hold a second one back.
    assert (loaded["tuning"]["lanes"], loaded["tuning"]["maxBatch"]) == (1, 1)
    message_id = engine.send({"method": "synthesize", "model": "x", "text": TEXT, "seed": 7})
    first = engine.receive()
    assert first["payload"]["event"] in ("chunk", "progress")
    speech = engine.speech(message_id) if first["payload"]["event"] == "progress" else None
    assert speech is None or speech.result["chunks"] > 1
    assert engine.speak("x", TEXT, speakerClip=str(clip), seed=7).result["samples"] > 0
