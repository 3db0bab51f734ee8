"""The parts of a VITS network in onnxruntime, from graphs that `vits_parts.export` made.

onnxruntime fixes the threads of a session when it is made, so each number of threads has sessions of its own;
one session serves any number of callers. A run that is cancelled ends at its next node.

On one thread a decoder rewritten by `planar` is fastest, if the folder has one. Several threads decode a
longer text best as that many windows side by side, each on one thread.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from chorus_engine.engines import tuning
from chorus_engine.engines.vits_parts import DECODER, FLOW, FRONT, WINDOW, Arrays, Steps

PLANAR = "planar"
_TRIAL_FRAMES = 96
log = logging.getLogger(__name__)


class OnnxParts:
    """Sessions over the graphs of a folder, each run with `threads` threads on the CPU."""

    shape_steps = (1, 1)

    def __init__(self, folder: Path, threads: int) -> None:
        has_planar = _graph(folder, PLANAR).is_file()
        self.at_once = threads if has_planar else 1
        self._sessions = {part: _session(_graph(folder, part), threads) for part in (FRONT, FLOW)}
        if has_planar:
            self._sessions[WINDOW] = _session(_graph(folder, PLANAR), 1)
        if not has_planar or threads > 1:
            self._sessions[DECODER] = _session(_graph(folder, DECODER), threads)
        self._sessions.setdefault(DECODER, self._sessions.get(WINDOW))
        self._inputs = {
            part: frozenset(entry.name for entry in session.get_inputs())
            for part, session in self._sessions.items()
        }

    def run(self, part: str, inputs: Arrays, steps: Steps) -> list[np.ndarray]:
        """One part; the noise of a model that draws none, for example, is no input of its graph."""
        known = self._inputs[part]
        fed = {name: values for name, values in inputs.items() if name in known}
        options = onnxruntime.RunOptions()

        def terminate() -> None:
            options.terminate = True

        with steps.on_cancel(terminate):
            try:
                return self._sessions[part].run(None, fed, options)
            except Exception:
                # If it was terminated, this says so as the one error of a cancelled take.
                steps.step()
                raise


def finish(folder: Path) -> None:
    """Makes the graphs of an export ready: does what every load would do again, and gives the decoder its
    other form where this machine is faster with it."""
    # It imports the package onnx, as exporting does: a load of what is kept needs neither.
    from chorus_engine.engines import planar

    plain, other = _graph(folder, DECODER), _graph(folder, PLANAR)
    try:
        planar.rewrite(plain, other)
    except planar.NotPlanar as reason:
        log.info("the decoder keeps its form: %s", reason)
    for graph in sorted(folder.glob("*.onnx")):
        _optimise(graph)
    if other.is_file() and _seconds(other) * tuning.GAIN > _seconds(plain):
        log.info("the decoder keeps its form: the other is no faster here")
        other.unlink()


def _seconds(graph: Path) -> float:
    """How long a decoder takes for a short piece on one thread."""
    session = _session(graph, 1)
    sizes = {"batch": 1, "time": _TRIAL_FRAMES}
    inputs = {
        entry.name: np.full([sizes.get(size, size) for size in entry.shape], 0.1, np.float32)
        for entry in session.get_inputs()
    }
    return tuning.Clock().seconds(lambda: session.run(None, inputs))


def _graph(folder: Path, part: str) -> Path:
    return folder / f"{part}.onnx"


def _options(threads: int) -> SessionOptions:
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin for the next node would take the core of the lane beside.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _session(graph: Path, threads: int) -> InferenceSession:
    return InferenceSession(str(graph), _options(threads), providers=["CPUExecutionProvider"])


def _optimise(graph: Path) -> None:
    """Replaces a graph by what onnxruntime makes of it on any machine; a load does the rest, quickly."""
    options = _options(1)
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    draft = graph.with_suffix(".draft")
    options.optimized_model_filepath = str(draft)
    InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    draft.replace(graph)
