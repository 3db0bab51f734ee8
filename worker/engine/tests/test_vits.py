"""The parts of VITS: torch and onnxruntime against Coqui's own `inference`, alone, in batches, in windows."""

from __future__ import annotations

import itertools
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from chorus_engine.cache_folder import CacheFolder
from chorus_engine.engines import noise, onnx_parts, planar, vits_load, vits_parts, vits_speech
from chorus_engine.engines.tuning import Asked
from chorus_engine.engines.vits import Voices
from chorus_engine.engines.vits_load import TORCH, Settings
from chorus_engine.engines.vits_parts import TorchParts
from chorus_engine.engines.vits_speech import Network, NoSteps, Utterance, speak
from chorus_engine.errors import EngineError, cancelled

TEXTS = ("Hello.", "Yes", "The quick brown fox jumps over the lazy dog near the river bank.")
# Between runtimes: half of the smallest step of 16 bits is 1.5e-5, but sums differ in their order.
NEAR = 2e-4


class Case:
    """One model: Coqui's own network, and its parts in both runtimes."""

    def __init__(self, folder, graphs) -> None:
        from chorus_engine import phonemes

        phonemes.install()
        noise.install()
        self.vits = vits_load._network(folder / "config.json", folder / "model.pth")
        vits_load.fold_weight_norm(self.vits)
        self.voices = Voices(self.vits)
        self.network = Network(bool(self.vits.args.use_sdp), self.vits.args.hidden_channels)
        self.torch = TorchParts(self.vits, threads=1)
        vits_parts.export(self.vits, graphs, self.said("Hello.").conditions)
        self.graphs = graphs
        self.onnx = vits_load._onnx_parts(graphs, 1)

    def said(self, text: str, **changes: object) -> Utterance:
        return Utterance(**{**vars(self.voices.sample(text)), **changes})

    def inference(self, said: Utterance) -> np.ndarray:
        """Coqui's way, on the noise of the same seed."""
        vits, info = self.vits, self.voices.info
        speaker_ids, d_vectors = vits._get_speaker_id_or_dvector(next(iter(info.voices), None))
        language = vits._get_language_id(next(iter(info.languages), None))
        conditions = {
            "x_lengths": None,
            "speaker_ids": speaker_ids,
            "d_vectors": d_vectors,
            "language_ids": None if language is None else torch.tensor([language]),
            "durations": None,
        }
        with noise.seeded(said.seed):
            return vits.inference(torch.tensor([said.tokens]), conditions)["model_outputs"][0, 0].numpy()


@pytest.fixture(scope="module", params=["tiny", "speakers", "languages", "demo"])
def case(request, tmp_path_factory, tiny_voice, tiny_speakers, tiny_languages, demo_voice) -> Case:
    folders = {
        "tiny": tiny_voice,
        "speakers": tiny_speakers,
        "languages": tiny_languages,
        "demo": demo_voice,
    }
    return Case(folders[request.param], tmp_path_factory.mktemp("graphs"))


@pytest.mark.parametrize("text", TEXTS)
def test_each_runtime_speaks_as_coqui_does(case, text):
    said = case.said(text)
    expected = case.inference(said)
    for parts in (case.torch, case.onnx):
        (samples,) = speak(parts, case.network, [said], NoSteps())
        assert samples.shape == expected.shape
        assert np.abs(samples - expected).max() < NEAR


def test_a_batch_is_its_texts_spoken_alone(case):
    said = [
        case.said(text, seed=seed, pace=pace)
        for text, seed, pace in zip(TEXTS, (1, 2, 3), (1, 0.5, 2), strict=True)
    ]
    for parts in (case.torch, case.onnx):
        together = speak(parts, case.network, said, NoSteps())
        for one, samples in zip(said, together, strict=True):
            (alone,) = speak(parts, case.network, [one], NoSteps())
            assert samples.shape == alone.shape
            # A shorter text is followed by padding, which the decoder's last frames see.
            inside = slice(0, max(0, len(alone) - 32 * 256))
            assert np.abs(samples[inside] - alone[inside]).max(initial=0.0) < NEAR


def test_windows_change_no_sample(case, monkeypatch):
    said = case.said(TEXTS[2])
    for parts in (case.torch, case.onnx):
        (whole,) = speak(parts, case.network, [said], NoSteps())
        reach = vits_speech.decoder_reach(parts, case.network.channels, case_speaker(said))
        assert reach is not None and 0 < reach < 40
        network = Network(case.network.stochastic_durations, case.network.channels, reach)
        monkeypatch.setattr(vits_speech, "WINDOW_FRAMES", 20)
        (cut,) = speak(parts, network, [said], NoSteps())
        monkeypatch.undo()
        assert cut.shape == whole.shape and np.abs(cut - whole).max() < NEAR


@pytest.mark.parametrize("threads", [1, 2])
def test_the_other_form_of_the_decoder_speaks_the_same(case, threads, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_parts, "_seconds", lambda graph: 1.0 if graph.stem == "planar" else 2.0)
    for graph in case.graphs.glob("*.onnx"):
        shutil.copy(graph, tmp_path)
    onnx_parts.finish(tmp_path)
    parts = onnx_parts.OnnxParts(tmp_path, threads)
    assert parts.at_once == threads
    said = case.said(TEXTS[2])
    (expected,) = speak(case.onnx, case.network, [said], NoSteps())
    reach = vits_speech.decoder_reach(parts, case.network.channels, case_speaker(said))
    network = replace(case.network, reach=reach)
    runs: list[str] = []
    watched = Watched(parts, runs)
    (samples,) = speak(watched, network, [said], NoSteps())
    assert samples.shape == expected.shape and np.abs(samples - expected).max() < NEAR
    assert runs.count("window") == (2 if threads == 2 else 0)
    together = speak(parts, network, [said, case.said("Hello.")], NoSteps())
    assert np.abs(together[0] - expected).max() < NEAR


def test_a_decoder_no_faster_in_its_other_form_keeps_its_own(case, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_parts, "_seconds", lambda graph: 1.0)
    for graph in case.graphs.glob("*.onnx"):
        shutil.copy(graph, tmp_path)
    onnx_parts.finish(tmp_path)
    parts = onnx_parts.OnnxParts(tmp_path, 2)
    assert parts.at_once == 1 and len(speak(parts, case.network, [case.said("Hello.")], NoSteps())[0])


def test_a_graph_of_another_kind_is_left_alone(case, tmp_path):
    with pytest.raises(planar.NotPlanar, match="a decoder with"):
        planar.rewrite(case.graphs / "flow.onnx", tmp_path / "planar.onnx")
    assert not list(tmp_path.iterdir())


def test_padding_to_steps_changes_no_sample_before_its_end(case):
    said = case.said(TEXTS[2])
    stepped = TorchParts(case.vits, threads=1)
    stepped.shape_steps = (32, 64)
    for parts in (case.torch, stepped):
        (samples,) = speak(parts, case.network, [said], NoSteps())
        if parts is case.torch:
            expected = samples
    assert samples.shape == expected.shape
    inside = slice(0, len(expected) - 32 * 256)
    assert np.abs(samples[inside] - expected[inside]).max() < NEAR


class Watched:
    """Parts that note which of them ran."""

    def __init__(self, parts, runs: list[str]) -> None:
        self._parts = parts
        self._runs = runs
        self.at_once, self.shape_steps = parts.at_once, parts.shape_steps

    def run(self, part, inputs, steps):
        self._runs.append(part)
        return self._parts.run(part, inputs, steps)


def case_speaker(said: Utterance) -> dict[str, np.ndarray]:
    return {name: values for name, values in said.conditions.items() if name == "speaker"}


@pytest.mark.parametrize(
    ("total", "size"), [(1, 420), (420, 420), (629, 420), (631, 420), (5000, 420), (7, 7)]
)
def test_windows_cover_all_frames_once(total, size):
    cut = vits_speech.windows(total, size)
    assert cut[0][0] == 0 and cut[-1][1] == total
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(cut))
    assert all(0 < end - start <= 1.5 * size + 1 for start, end in cut)


def test_a_load_exports_and_measures_once(tiny_voice, tmp_path):
    stages: list[str] = []
    settings = Settings(2, cache=CacheFolder(tmp_path), progress=stages.append)
    files = tiny_voice / "config.json", tiny_voice / "model.pth"
    first = vits_load.load(*files, "cpu", settings)
    assert stages == ["export", "calibrate"]
    again = vits_load.load(*files, "cpu", settings)
    assert stages == ["export", "calibrate"] and again.tuning == first.tuning
    assert first.sample("Hello.") == again.sample("Hello.")
    plain = vits_load.load(*files, "cpu")
    assert plain.tuning.runtime == TORCH
    ours, theirs = (np.frombuffer(model.sample("Hello."), "<i2") for model in (again, plain))
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 8


def test_what_was_asked_for_is_not_measured_away(tiny_voice, tmp_path):
    asked = Asked(threads=1, lanes=3, max_batch=4)
    model = vits_load.load(
        tiny_voice / "config.json",
        tiny_voice / "model.pth",
        "cpu",
        Settings(2, asked=asked, cache=CacheFolder(tmp_path)),
    )
    chosen = model.tuning
    assert (chosen.threads, chosen.lanes, chosen.lane_threads, chosen.max_batch) == (1, 3, 1, 4)


def test_a_model_that_cannot_be_exported_speaks_in_torch(tiny_voice, tmp_path, monkeypatch, caplog):
    def fails(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(vits_parts, "export", fails)
    model = vits_load.load(
        tiny_voice / "config.json", tiny_voice / "model.pth", "cpu", Settings(2, cache=CacheFolder(tmp_path))
    )
    assert model.tuning.runtime == TORCH and len(model.sample("Hello.")) > 1_000
    assert "no such operator" in caplog.text


def test_graphs_that_differ_are_not_used(tiny_voice, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(vits_load, "ONNX_TOLERANCE", -1.0)
    model = vits_load.load(
        tiny_voice / "config.json", tiny_voice / "model.pth", "cpu", Settings(2, cache=CacheFolder(tmp_path))
    )
    assert model.tuning.runtime == TORCH and "differ from torch" in caplog.text


def test_spoilt_graphs_are_forgotten_and_made_anew(tiny_voice, tmp_path):
    settings = Settings(1, cache=CacheFolder(tmp_path))
    files = tiny_voice / "config.json", tiny_voice / "model.pth"
    vits_load.load(*files, "cpu", settings)
    (graph,) = tmp_path.glob("vits-*/flow.onnx")
    graph.write_bytes(b"no graph")
    assert vits_load.load(*files, "cpu", settings).tuning.runtime == TORCH
    vits_load.load(*files, "cpu", settings)
    assert graph.read_bytes() != b"no graph"


def test_a_run_is_terminated_when_it_is_cancelled(case):
    class Impatient(NoSteps):
        """Cancelled while the second part runs."""

        def __init__(self) -> None:
            self.runs = 0
            self.is_cancelled = threading.Event()

        def step(self) -> None:
            if self.is_cancelled.is_set():
                raise cancelled()

        def on_cancel(self, act):
            self.runs += 1
            if self.runs == 2:
                self.is_cancelled.set()
                act()
            return super().on_cancel(act)

    steps = Impatient()
    with pytest.raises(EngineError, match="cancelled"):
        speak(case.onnx, case.network, [case.said(TEXTS[0])], steps)
    assert steps.runs == 2


def test_half_precision_is_judged_by_what_is_heard():
    wave = np.sin(np.arange(1000) / 10).astype(np.float32)
    assert vits_load.is_correct(wave, wave + 1e-3)
    assert not vits_load.is_correct(wave, wave * 0.5)
    assert not vits_load.is_correct(wave, wave[:-1])
    assert not vits_load.is_correct(wave, np.full_like(wave, np.nan))


def test_a_batch_is_judged_by_each_of_its_texts():
    wave = np.sin(np.arange(1000) / 10).astype(np.float32)
    assert vits_load.is_good_batch(lambda: [wave, wave + 1e-3], wave)
    assert not vits_load.is_good_batch(lambda: [wave, wave[:-1]], wave)

    def out_of_memory():
        raise torch.cuda.OutOfMemoryError("none left")

    assert not vits_load.is_good_batch(out_of_memory, wave)


def test_half_precision_runs(case):
    """On the CPU autocast is bfloat16: the same code as on a GPU."""
    half = TorchParts(case.vits, threads=1, half=True)
    said = case.said("Hello.")
    (exact,), (rough,) = (speak(parts, case.network, [said], NoSteps()) for parts in (case.torch, half))
    assert exact.shape == rough.shape and np.isfinite(rough).all()
    assert not np.array_equal(exact, rough)
