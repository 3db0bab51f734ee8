"""The Coqui engine on tiny random voices (every path) and the demo voice (what it needs to be real for)."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import EngineProcess, Speech

from chorus_engine.engines import other_models, pcm, vits, vits_load
from chorus_engine.errors import EngineError

TEXT = "Hello world, this is a test."


@pytest.fixture(scope="module")
def engine(tiny_voice, tiny_speakers, demo_voice):
    """One Coqui process with two lanes and three models, for all tests that leave it as it was."""
    process = EngineProcess("coqui", "--threads", "1", "--lanes", "2")
    try:
        process.hello()
        for name, folder in (("tiny", tiny_voice), ("two", tiny_speakers), ("joe", demo_voice)):
            answer = process.load(name, {"path": str(folder)})
            assert answer["type"] == "response", answer
        yield process
    finally:
        process.close()


def failed(message: dict) -> tuple[str, str]:
    assert message["type"] == "error", message
    return message["payload"]["code"], message["payload"]["details"]["reason"]


def ask(engine: EngineProcess, model: str, text: str, **fields: object) -> dict:
    return engine.ask(method="synthesize", model=model, text=text, **fields)


def test_handshake_before_any_import(start):
    hello = start("coqui").hello()
    assert hello["engine"]["library"] == "coqui-tts 0.28.0"
    assert hello["capabilities"]["speed"] and not hello["capabilities"]["pitch"]
    assert hello["capabilities"]["speakerClip"]


def test_load_tells_what_the_model_is(start, tiny_voice):
    engine = start("coqui", "--threads", "1")
    engine.hello()
    digest = hashlib.sha256((tiny_voice / "model.pth").read_bytes()).hexdigest()
    paths = {"path": str(tiny_voice / "model.pth"), "configPath": str(tiny_voice / "config.json")}
    model = {"name": "m", "source": paths, "sha256": digest}
    *events, last = engine.conversation(engine.send({"method": "load", "model": model}))
    stages = {event["payload"]["stage"] for event in events}
    assert {"import", "load", "export", "calibrate", "warmup"} >= stages >= {"import", "load", "warmup"}
    loaded = last["payload"]
    assert (loaded["sampleRate"], loaded["voices"], loaded["languages"]) == (22_050, [], [])
    assert loaded["rssBytes"] > 100_000_000 and loaded["maxTextChars"] == vits.MAX_TEXT_CHARS
    assert failed(ask(engine, "m", "x" * (vits.MAX_TEXT_CHARS + 1))) == ("INVALID_REQUEST", "too_large")
    answer = engine.ask(method="load", model={**model, "sha256": "0" * 64})
    assert failed(answer) == ("INIT_FAILED", "load_failed")


def test_what_cannot_be_loaded(engine, tmp_path, tiny_voice):
    assert failed(engine.load("x", {"path": str(tmp_path / "none")})) == ("INIT_FAILED", "load_failed")
    assert failed(engine.load("x", {"path": str(tmp_path)})) == ("INIT_FAILED", "load_failed")
    assert failed(engine.load("x", {"builtin": "x"})) == ("INIT_FAILED", "load_failed")
    shutil.copy(tiny_voice / "config.json", tmp_path / "config.json")
    (tmp_path / "model.pth").write_bytes(b"no checkpoint")
    assert failed(engine.load("x", {"path": str(tmp_path)})) == ("INIT_FAILED", "load_failed")
    weights = torch.load(tiny_voice / "model.pth")
    del weights["model"]["waveform_decoder.conv_pre.weight"]
    torch.save(weights, tmp_path / "model.pth")
    answer = engine.load("x", {"path": str(tmp_path)})
    assert failed(answer) == ("INIT_FAILED", "load_failed")
    assert "waveform_decoder.conv_pre.weight" in answer["payload"]["message"]


def test_hub_names(start, tmp_path):
    engine = start("coqui", env={"TTS_HOME": str(tmp_path), "COQUI_TOS_AGREED": ""})
    engine.hello()
    assert failed(engine.load("x", {"hub": "tts_models/xx/none/none"})) == ("MODEL_NOT_FOUND", "hub")
    answer = engine.load("x", {"hub": "tts_models/multilingual/multi-dataset/xtts_v2"})
    assert failed(answer) == ("INIT_FAILED", "load_failed")
    assert answer["payload"]["details"]["variable"] == "COQUI_TOS_AGREED"
    assert "COQUI_TOS_AGREED=1" in answer["payload"]["message"]


@pytest.mark.parametrize("model", ["tiny", "joe"])
def test_a_seed_is_a_take(engine, model):
    takes = [engine.speak(model, TEXT, seed=seed).pcm for seed in (5, 5, 6, 2**64 - 1)]
    assert takes[0] == takes[1]
    assert len(set(takes)) == 3
    assert engine.speak(model, TEXT).pcm != engine.speak(model, TEXT).pcm


def test_lanes_do_not_disturb_a_take(engine):
    request = {"method": "synthesize", "model": "joe", "text": TEXT, "seed": 9, "speed": 0.8}
    alone = engine.speech(engine.send(request)).pcm
    ids = [engine.send({**request, "speed": 2.0, "seed": seed}) for seed in (1, 2)]
    wanted = engine.send(request)
    seen: dict[str, list] = {message_id: [] for message_id in (*ids, wanted)}
    while not seen[wanted] or seen[wanted][-1]["type"] == "event":
        message = engine.receive()
        seen[message["metadata"]["correlationId"]].append(message)
    assert Speech(seen[wanted]).pcm == alone


def test_speed_changes_length_and_noise_is_an_option(engine):
    still = {"noiseScale": 0, "noiseScaleDp": 0}
    lengths = [
        engine.speak("joe", TEXT, speed=speed, options=still).result["samples"] for speed in (0.5, 1.0, 2.0)
    ]
    assert 1.6 * lengths[1] < lengths[0] < 2.4 * lengths[1]
    assert lengths[2] < 0.75 * lengths[1]
    assert engine.speak("joe", TEXT, options=still).pcm == engine.speak("joe", TEXT, options=still).pcm


def test_what_a_voice_cannot_do_is_refused(engine):
    for field, value in (("pitch", 2), ("voice", "ann"), ("language", "de")):
        answer = ask(engine, "tiny", TEXT, **{field: value})
        assert failed(answer) == ("INVALID_REQUEST", "unsupported_option")
        assert answer["payload"]["details"]["field"] == field
    answer = ask(engine, "tiny", TEXT, options={"reverb": 1})
    assert answer["payload"]["details"] == {"reason": "unsupported_option", "field": "options.reverb"}


def test_voices_by_name(engine):
    choices: list[dict[str, str]] = [{}, {"voice": "ann"}, {"voice": "bob"}]
    takes = [engine.speak("two", TEXT, seed=1, **choice).pcm for choice in choices]
    assert takes[0] == takes[1] != takes[2]
    answer = ask(engine, "two", TEXT, voice="eve")
    assert failed(answer) == ("INVALID_REQUEST", "invalid_field")
    assert answer["payload"]["message"].endswith("it has ann, bob")


@pytest.mark.parametrize("model", ["tiny", "joe", "two"])
@pytest.mark.parametrize("text", [" ", "...", "日本語", "— ?!", "\0\n\t", "仝仟"])
def test_texts_that_cannot_be_spoken(engine, model, text):
    assert failed(ask(engine, model, text)) == ("INVALID_REQUEST", "unspeakable")


def test_what_is_left_out_is_told(engine):
    (warning,) = engine.speak("joe", "Hello 日本語 world 日.").result["warnings"]
    assert (warning["reason"], warning["characters"]) == ("unspeakable", "日本語")
    (warning,) = engine.speak("tiny", "Hello 🎉 wörld").result["warnings"]
    assert warning["characters"] == "🎉ö"
    for text in ("Plain words.", "It's 5 o'clock: café, naïve — “yes”… 50% & more!", "a\0b"):
        assert engine.speak("joe", text).result["warnings"] == []


def test_left_out_characters_change_nothing_else(engine):
    plain, mixed = "Hello world.", "Hello 日 world."
    assert engine.speak("joe", plain, seed=1).pcm == engine.speak("joe", mixed, seed=1).pcm


def test_cancel_takes_hold_inside_an_inference(engine):
    long = " ".join([TEXT] * 50)
    message_id = engine.send({"method": "synthesize", "model": "joe", "text": long})
    seen = []
    while not seen:
        message = engine.receive()
        if message.get("metadata", {}).get("correlationId") == message_id:
            seen.append(message)
    assert seen[0]["payload"] == {"event": "progress", "stage": "synthesis"}
    engine.send({"method": "cancel", "messageId": message_id})
    assert failed(engine.answer(message_id)) == ("SYNTHESIS_FAILED", "cancelled")


def test_unload_frees_the_model(engine, demo_voice):
    engine.load("again", {"path": str(demo_voice)})
    before = engine.speak("again", TEXT).result["samples"]
    freed = engine.ask(method="unload", model="again")["payload"]
    assert before > 0 and freed["rssBytes"] > 0
    assert failed(ask(engine, "again", TEXT)) == ("MODEL_NOT_FOUND", "not_loaded")


def test_folding_weight_norm_changes_no_bit(tiny_voice):
    from TTS.config import load_config
    from TTS.tts.models.vits import Vits

    config = load_config(str(tiny_voice / "config.json"))
    model = Vits(config)
    model.load_checkpoint(config, str(tiny_voice / "model.pth"), eval=True)
    ids = torch.tensor([model.tokenizer.text_to_ids(TEXT)])

    def speak() -> torch.Tensor:
        torch.manual_seed(3)
        return model.inference(ids)["model_outputs"]

    before = speak()
    assert vits_load.fold_weight_norm(model) > 10
    assert torch.equal(before, speak())
    assert vits_load.fold_weight_norm(model) == 0


def test_other_models_through_the_synthesizer(tiny_voice):
    """A VITS serves as the other model here: the synthesizer treats all alike."""
    source = other_models.Source(tiny_voice / "model.pth", tiny_voice / "config.json")
    model = other_models.SynthesizerModel(other_models.synthesizer(source, "cpu"))
    request, take = _request("Hello."), _Take()
    model.synthesize(request, take)
    first = b"".join(take.written)
    assert first and len(first) // 2 % 256 == 0
    again = _Take()
    model.synthesize(request, again)
    assert b"".join(again.written) == first
    with pytest.raises(EngineError) as refusal:
        model.synthesize(_request("Hello.", speed=2.0), take)
    assert refusal.value.details["field"] == "speed"


@pytest.fixture(scope="module")
def glow(tmp_path_factory):
    """A small Glow-TTS with random weights and no vocoder."""
    from TTS.config.shared_configs import BaseAudioConfig
    from TTS.tts.configs.glow_tts_config import GlowTTSConfig
    from TTS.tts.configs.shared_configs import CharactersConfig
    from TTS.tts.models.glow_tts import GlowTTS

    from chorus_engine.tiny_voice import GRAPHEMES, PUNCTUATION

    characters = CharactersConfig(
        characters_class="TTS.tts.utils.text.characters.Graphemes",
        pad="<PAD>",
        eos="<EOS>",
        bos="<BOS>",
        blank="<BLNK>",
        characters=GRAPHEMES,
        punctuations=PUNCTUATION,
        is_unique=False,
        is_sorted=True,
    )
    config = GlowTTSConfig(
        use_phonemes=False,
        phonemizer=None,
        text_cleaner=None,
        characters=characters,
        audio=BaseAudioConfig(griffin_lim_iters=10),
        hidden_channels_dec=32,
        hidden_channels_dp=32,
        num_flow_blocks_dec=2,
        num_block_layers=1,
        encoder_type="gated_conv",
        encoder_params={"kernel_size": 5, "dropout_p": 0.1, "num_layers": 2},
    )
    folder = tmp_path_factory.mktemp("glow")
    torch.manual_seed(1)
    torch.save({"model": GlowTTS(config).state_dict()}, folder / "model.pth")
    config.save_json(str(folder / "config.json"))
    source = other_models.Source(folder / "model.pth", folder / "config.json")
    model = other_models.SynthesizerModel(other_models.synthesizer(source, "cpu"))
    model.warm_up()
    return model


def test_a_seed_is_a_take_of_a_model_without_vocoder_too(glow):
    def spoken(seed: int) -> bytes:
        take = _Take()
        glow.synthesize(_request("Hello there.", seed=seed), take)
        return b"".join(take.written)

    state = np.random.get_state()[1].tolist()
    assert spoken(4) == spoken(4) != spoken(2**63)
    assert np.random.get_state()[1].tolist() == state


def test_other_models_speak_one_at_a_time(glow):
    with ThreadPoolExecutor(4) as callers:
        takes = [_Take() for _ in range(8)]
        list(callers.map(lambda take: glow.synthesize(_request("Hello there."), take), takes))
    assert len({b"".join(take.written) for take in takes}) == 1


def test_what_other_models_cannot_do_is_refused(glow):
    for field, value in {"speaker_clip": "x.wav", "voice": "ann", "language": "en", "pitch": 1.0}.items():
        request = replace(_request("Hello."), **{field: value})
        with pytest.raises(EngineError) as refusal:
            glow.synthesize(request, _Take())
        assert refusal.value.reason == "unsupported_option"


def test_only_the_padding_is_trimmed():
    padding = torch.zeros(other_models.PADDING_SAMPLES)
    speech = torch.cat([torch.zeros(50), torch.ones(100), torch.zeros(200)])
    assert torch.equal(other_models.without_padding(torch.cat([speech, padding])), speech)
    loud = torch.cat([speech, padding])
    loud[-1] = 0.5
    assert torch.equal(other_models.without_padding(loud), loud)


def test_pcm_clips_and_never_normalises():
    samples = memoryview(pcm.to_pcm(torch.tensor([0.0, 0.5, 1.0, 1.5, -1.5, -0.25]))).cast("h")
    assert list(samples) == [0, 16_384, 32_767, 32_767, -32_767, -8_192]
    with pytest.raises(EngineError) as refusal:
        pcm.to_pcm(torch.tensor([0.0, float("nan")]))
    assert refusal.value.reason == "bad_audio"


def test_tiny_voice_is_the_same_every_time(tiny_voice, tmp_path):
    from chorus_engine import tiny_voice as maker

    count = maker.make(tmp_path / "again")
    assert 300_000 < count < 500_000
    first, second = (torch.load(folder / "model.pth")["model"] for folder in (tiny_voice, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads((tiny_voice / "config.json").read_text())["model"] == "vits"


class _Take:
    """A take that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def step(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written.append(data)


def _request(text: str, speed: float | None = None, seed: int = 4):
    from chorus_engine.fields import Fields
    from chorus_engine.requests import synthesis_request

    return synthesis_request(Fields({"model": "m", "text": text, "speed": speed, "seed": seed}))
