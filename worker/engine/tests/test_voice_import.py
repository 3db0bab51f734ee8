"""Import of the demo voice, and of everything that is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from support import ENGINE_ROOT

from chorus_engine import piper


def run(*arguments: object) -> tuple[int, list[dict]]:
    """Exit status and lines of the command."""
    result = subprocess.run(
        [sys.executable, "-m", "chorus_engine.voice_import", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ENGINE_ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def description(onnx_path: Path) -> dict:
    return json.loads(onnx_path.with_name(onnx_path.name + ".json").read_text(encoding="utf-8"))


@pytest.fixture
def altered(tmp_path, demo_onnx):
    """Writes a description with changes, and returns its path."""

    def write(**changes: object) -> Path:
        path = tmp_path / "voice.json"
        path.write_text(json.dumps({**description(demo_onnx), **changes}), encoding="utf-8")
        return path

    return write


def test_imported_voice_is_whole(demo_voice, demo_onnx):
    assert sorted(file.name for file in demo_voice.iterdir()) == ["config.json", "model.pth", "origin.json"]
    assert [entry.name for entry in demo_voice.parent.iterdir()] == ["joe"]
    origin = json.loads((demo_voice / "origin.json").read_text())
    assert origin["source"] == demo_onnx.name and len(origin["sha256"]) == 64
    weights = torch.load(demo_voice / "model.pth")["model"]
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    config = json.loads((demo_voice / "config.json").read_text())
    assert config["model_args"]["resblock_type_decoder"] == "2"
    assert config["model_args"]["upsample_rates_decoder"] == [8, 8, 4]


def test_every_weight_of_inference_is_the_voices(demo_voice, demo_onnx):
    """Weights with weight norm applied, against the ONNX file's, read independently."""
    from TTS.config import load_config
    from TTS.tts.models.vits import Vits

    config = load_config(str(demo_voice / "config.json"))
    model = Vits(config)
    model.load_checkpoint(config, str(demo_voice / "model.pth"), eval=True)
    graph = onnx.load(str(demo_onnx)).graph
    raw = {entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy()) for entry in graph.initializer}
    for ours, theirs in (
        ("flow.flows.0.post", "flow.flows.0.post"),
        ("flow.flows.3.pre", "flow.flows.6.pre"),
    ):
        assert torch.equal(model.get_submodule(ours).weight, raw[f"{theirs}.weight"])
    for index in range(9):
        ours = model.waveform_decoder.resblocks[index].convs[1].weight
        assert torch.allclose(ours, raw[f"dec.resblocks.{index}.convs.1.weight"], atol=1e-6)
    name = "/flow/flows.4/enc/in_layers.2/Conv"
    anonymous = next(node.input[1] for node in graph.node if node.name == name)
    assert torch.allclose(model.flow.flows[2].enc.in_layers[2].weight, raw[anonymous], atol=1e-6)
    ids = description(demo_onnx)["phoneme_id_map"]
    for symbol in "həlˈoʊ.,? ":
        row = model.text_encoder.emb.weight[model.tokenizer.characters.char_to_id(symbol)]
        assert torch.equal(row, raw["sid"][ids[symbol][0]])


def test_progress_comes_line_by_line(demo_onnx, tmp_path):
    status, lines = run(demo_onnx, tmp_path / "voice")
    assert status == 0
    stages = [line["stage"] for line in lines if line["event"] == "progress"]
    assert stages == ["import", "read", "convert", "write", "check"]
    assert lines[-1]["event"] == "done"
    assert (lines[-1]["sampleRate"], lines[-1]["language"]) == (22_050, "en-us")
    status, lines = run(demo_onnx, tmp_path / "voice")
    assert (status, lines[-1]["event"], lines[-1]["reason"]) == (3, "error", "exists")


def test_a_prepared_voice_loads_without_exporting_or_measuring(demo_onnx, tmp_path, monkeypatch, start):
    monkeypatch.setenv("CHORUS_HOME", str(tmp_path / "home"))
    status, lines = run(demo_onnx, tmp_path / "joe", "--prepare")
    stages = [line["stage"] for line in lines if line["event"] == "progress"]
    assert status == 0 and {"export", "calibrate"} < set(stages)
    engine = start("coqui")
    engine.hello()
    model = {"name": "joe", "engine": "coqui", "source": {"path": str(tmp_path / "joe")}, "options": {}}
    events = engine.conversation(engine.send({"method": "load", "model": model}))
    assert events[-1]["payload"]["tuning"]["runtime"]
    assert {event["payload"]["stage"] for event in events[:-1]} <= {"import", "load", "warmup"}


def test_unreadable_files(tmp_path, demo_onnx):
    status, lines = run(tmp_path / "none.onnx", tmp_path / "out")
    assert (status, lines[-1]["reason"]) == (3, "unreadable")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 1000)
    config = demo_onnx.with_name(demo_onnx.name + ".json")
    status, lines = run(broken, tmp_path / "out", "--config", config)
    assert (status, lines[-1]["reason"]) == (3, "unreadable")
    assert not (tmp_path / "out").exists()
    assert sorted(tmp_path.iterdir()) == [broken]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_speakers": 4}, "multi_speaker"),
        ({"phoneme_type": "text"}, "phonemizer"),
        ({"phoneme_id_map": {"a": [1]}}, "unreadable"),
        ({"espeak": {}}, "unreadable"),
        ({"audio": 5}, "unreadable"),
    ],
)
def test_descriptions_that_are_refused(altered, changes, reason):
    with pytest.raises(piper.Refused) as refusal:
        piper.describe(altered(**changes))
    assert refusal.value.reason == reason


def test_composed_symbols_give_way_to_their_parts(altered, demo_onnx):
    characters, punctuation = piper.vocabulary(piper.describe(altered()))
    assert "ç" not in characters and "c" in characters and "\u0327" in characters
    assert set("!'(),-.:;? ") <= set(punctuation) and "ˈ" in characters


@pytest.fixture(scope="module")
def graph(demo_onnx):
    """The demo voice's graph, for tests that copy and alter it."""
    return piper.Graph(demo_onnx)


def with_weights(graph: piper.Graph, **changes: torch.Tensor) -> piper.Graph:
    copy = piper.Graph.__new__(piper.Graph)
    copy.weights, copy.convolutions = {**graph.weights, **changes}, graph.convolutions
    return copy


def test_sizes_come_from_the_weights(graph):
    found = piper.sizes(graph)
    assert (found.hidden_channels, found.ffn_channels, found.heads, found.encoder_layers) == (192, 768, 2, 6)
    assert (found.resblock_kernels, found.resblock_dilations) == ([3, 5, 7], [[1, 2], [2, 6], [3, 12]])
    assert (found.upsample_kernels, found.upsample_channels, found.hop_length) == ([16, 16, 8], 256, 256)


def test_networks_that_are_refused(graph):
    def reason(changed: piper.Graph) -> str:
        with pytest.raises(piper.Refused) as refusal:
            piper.sizes(changed)
        return refusal.value.reason

    kernel = {"flow.flows.0.enc.in_layers.0.weight": torch.zeros(384, 192, 3)}
    assert reason(with_weights(graph, **kernel)) == "unknown_size"
    empty = with_weights(graph)
    empty.weights = {}
    assert reason(empty) == "unknown_network"


def test_transfer_refuses_what_does_not_fit(graph):
    wanted = {"duration_predictor.pre.weight": torch.zeros(192, 192, 1)}
    with pytest.raises(piper.Refused) as refusal:
        piper.transfer(graph, [], wanted)
    assert (refusal.value.reason, "no place" in str(refusal.value)) == ("unknown_network", True)
    with pytest.raises(piper.Refused) as refusal:
        piper.transfer(graph, [], {"duration_predictor.pre.weight": torch.zeros(96, 96, 1)})
    assert refusal.value.reason == "unknown_size"
    with pytest.raises(piper.Refused) as refusal:
        piper.transfer(graph, [], {"text_encoder.new": torch.zeros(1)})
    assert refusal.value.reason == "unknown_network"
