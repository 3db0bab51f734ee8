"""Measures a VITS voice in every way in which it could be run, in one process and turn by turn.

`python -m chorus_engine.bench FOLDER [--rounds N]` with model.pth and config.json in the folder. One JSON
object on the last line: milliseconds for 12 and 64 characters. What a machine is busy with besides falls on
all of them alike, so their ratios hold where the figures do not.

- `library`: Coqui's own way, `TTS.tts()`;
- `export`: Coqui's own ONNX export in onnxruntime, its noise drawn inside, no more than `run`;
- `torch`: the engine's parts in torch;
- `alone`: the engine, from characters to 16-bit samples, as a caller who is alone has it;
- `among`: the same for one caller of two, on sessions of one thread: what one text costs is half of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXTS = {12: "Good morning", 64: "The quick brown fox jumps over the lazy dog near the river bank."}
ROUNDS = 15

Say = Callable[[str], Any]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="chorus_engine.bench", description="Measures a VITS voice.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    print(json.dumps(measure(options.folder, options.rounds)))


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """The figures of a voice."""
    from chorus_engine.engines.base import EngineConfig
    from chorus_engine.engines.coqui import CoquiEngine
    from chorus_engine.requests import ModelSpec

    engine = CoquiEngine(EngineConfig())
    spec = ModelSpec("voice", str(folder / "model.pth"), str(folder / "config.json"), None, None, None, {})
    begun = time.perf_counter()
    model: Any = engine.load(spec, lambda stage: None)
    loaded = time.perf_counter() - begun
    library, plain, exported = _others(folder)
    narrow: Say = lambda text: _among(model, text)  # noqa: E731
    ways = {"library": library, "torch": plain, "export": exported, "alone": model.sample, "among": narrow}
    spent: dict[str, dict[int, list[float]]] = {way: {chars: [] for chars in TEXTS} for way in ways}
    for round_number in range(rounds + 1):
        for way, say in ways.items():
            for chars, text in TEXTS.items():
                begun = time.perf_counter()
                say(text)
                if round_number:
                    spent[way][chars].append((time.perf_counter() - begun) * 1000.0)
    found = {
        way: {f"{chars}": _figures(times) for chars, times in by_length.items()}
        for way, by_length in spent.items()
    }
    return {"loadMs": loaded * 1000.0, "tuning": model.tuning.payload(), **found}


def _figures(times: list[float]) -> dict[str, float]:
    return {"p50Ms": round(statistics.median(times), 1), "leastMs": round(min(times), 1)}


def _among(model: Any, text: str) -> None:
    """Two callers at once, each with a lane's share."""
    callers = [threading.Thread(target=model.sample, args=(text, True)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()


def _others(folder: Path) -> tuple[Say, Say, Say]:
    """What there is beside the engine's own way, over a model of its own."""
    import numpy as np
    import onnxruntime
    from TTS.api import TTS

    from chorus_engine import host
    from chorus_engine.engines import vits_load

    cores = host.usable_cores()
    files = {"model_path": str(folder / "model.pth"), "config_path": str(folder / "config.json")}
    coqui = TTS(**files, progress_bar=False)
    network = vits_load.load(folder / "config.json", folder / "model.pth", "cpu", vits_load.Settings(cores))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as place:
        graph = str(Path(place) / "coqui.onnx")
        vits = TTS(**files, progress_bar=False).synthesizer.tts_model
        vits_load.fold_weight_norm(vits)
        vits.export_onnx(graph, verbose=False)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    scales = np.array(
        [vits.inference_noise_scale, vits.length_scale, vits.inference_noise_scale_dp], np.float32
    )
    tokens = {text: np.array([vits.tokenizer.text_to_ids(text)], np.int64) for text in TEXTS.values()}

    def exported(text: str) -> Any:
        ids = tokens[text]
        lengths = np.array([ids.shape[1]], np.int64)
        return session.run(None, {"input": ids, "input_lengths": lengths, "scales": scales})

    return coqui.tts, network.sample, exported


if __name__ == "__main__":
    main()
