"""The parts of a VITS network in onnxruntime, from graphs that `vits_parts.export` made.

onnxruntime fixes the threads of a session when it is made, so each number of threads has sessions of its own;
one session serves any number of callers. A run that is cancelled ends at its next node.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from chorus_engine.engines.vits_parts import PARTS, Arrays, Steps


class OnnxParts:
    """Sessions over the graphs of a folder, each run with `threads` threads on the CPU."""

    def __init__(self, folder: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin for the next node would take the core of the lane beside.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._sessions = {
            part: onnxruntime.InferenceSession(
                str(folder / f"{part}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for part in PARTS
        }
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
