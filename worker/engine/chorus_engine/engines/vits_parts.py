"""The three parts of a VITS network, each a function of arrays: front, flow, decoder.

Coqui's `inference` is one call. Cut where its shapes are decided, the same network takes its noise as input,
speaks several texts at once, tells progress between parts, and can run elsewhere than in torch: each part
can be traced into an ONNX graph of its own. What lies between the parts is in `vits_speech`.

- front: tokens to mean and log-scale of each token's frames, and the frames each token lasts;
- flow: frames drawn from those to what the decoder reads;
- decoder: frames to samples. It only looks at frames nearby, so a long text can be decoded in windows.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from chorus_engine.engines import noise

Arrays = dict[str, np.ndarray]
FRONT, FLOW, DECODER = PARTS = ("front", "flow", "decoder")
# The decoder again, on one of several windows that are decoded side by side.
WINDOW = "window"
OPSET = 18
CPU_SHAPE_STEPS = (1, 1)
_exact_lock = threading.Lock()
# cuDNN plans every convolution anew for each size that it meets: up to a fifth of a sentence's time.
GPU_SHAPE_STEPS = (32, 64)


class Steps(Protocol):
    """What a take offers to those who work for it (see `take.Take`)."""

    def step(self) -> None:
        """Raises if the take was cancelled; tells progress if it is due."""

    def on_cancel(self, act: Any) -> Any:
        """A context within which `act` is called if the take is cancelled."""


class Parts(Protocol):
    """Something that computes the parts. `run` may be called by several threads.

    `at_once` is how many windows it decodes fastest side by side (1: it has no part `WINDOW`). Tokens and
    frames are padded to multiples of `shape_steps`, where a size not met before costs more than the padding.
    """

    at_once: int
    shape_steps: tuple[int, int]

    def run(self, part: str, inputs: Arrays, steps: Steps) -> list[np.ndarray]:
        """One part on its inputs; those that it has no use for are passed over."""


class Front(torch.nn.Module):
    """Text encoder and duration predictor."""

    def __init__(self, vits: Any) -> None:
        super().__init__()
        self.vits = vits

    def forward(
        self,
        tokens: torch.Tensor,
        lengths: torch.Tensor,
        noise_dp: torch.Tensor,
        noise_scale_dp: torch.Tensor,
        pace: torch.Tensor,
        speaker: torch.Tensor | None = None,
        language: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Shapes: tokens [B, T], lengths [B], noise_dp [B, 2, T], the scales [B, 1, 1], the conditions
        [B, C, 1]; to mean and log-scale [B, C, T] and durations in frames [B, 1, T]."""
        vits = self.vits
        hidden, mean, log_scale, mask = vits.text_encoder(tokens, lengths, lang_emb=language)
        conditions = {"g": speaker if vits.args.condition_dp_on_speaker else None, "lang_emb": language}
        if vits.args.use_sdp:
            with noise.supplied(noise_dp):
                log_durations = vits.duration_predictor(
                    hidden, mask, reverse=True, noise_scale=noise_scale_dp, **conditions
                )
        else:
            log_durations = vits.duration_predictor(hidden, mask, **conditions)
        return mean, log_scale, torch.ceil(torch.exp(log_durations) * mask * pace)


class Flow(torch.nn.Module):
    """The normalising flow, backwards."""

    def __init__(self, vits: Any) -> None:
        super().__init__()
        self.vits = vits

    def forward(
        self, frames: torch.Tensor, lengths: torch.Tensor, speaker: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Frames [B, C, F] of which `lengths` [B] count, to the decoder's [B, C, F x interpolation]."""
        from TTS.tts.utils.helpers import sequence_mask

        mask = sequence_mask(lengths, frames.shape[2]).to(frames.dtype).unsqueeze(1)
        flowed = self.vits.flow(frames, mask, g=speaker, reverse=True)
        flowed, _, _, mask = self.vits.upsampling_z(flowed, y_lengths=lengths, y_mask=mask)
        return flowed * mask


class Decoder(torch.nn.Module):
    """The waveform decoder."""

    def __init__(self, vits: Any) -> None:
        super().__init__()
        self.vits = vits

    def forward(self, frames: torch.Tensor, speaker: torch.Tensor | None = None) -> torch.Tensor:
        """Frames [B, C, F] to samples [B, 1, F x hop]."""
        return self.vits.waveform_decoder(frames, g=speaker)


def modules(vits: Any) -> dict[str, torch.nn.Module]:
    """The parts of a model, in evaluation mode: a module that is not passes its mode on when it is traced."""
    made = {FRONT: Front(vits), FLOW: Flow(vits), DECODER: Decoder(vits)}
    return {name: module.eval() for name, module in made.items()}


class TorchParts:
    """The parts in torch, on the model's device, with a number of threads where that is the CPU.

    `half` computes flow and decoder in half precision; the front decides lengths and stays exact.
    """

    at_once = 1

    def __init__(self, vits: Any, threads: int | None = None, half: bool = False) -> None:
        self._modules = modules(vits)
        self._device = vits.device
        self.shape_steps = CPU_SHAPE_STEPS if vits.device.type == "cpu" else GPU_SHAPE_STEPS
        self._threads = threads
        self._half = half
        self._current = threading.local()
        _watch_steps(vits, self._current)

    @torch.inference_mode()
    def run(self, part: str, inputs: Arrays, steps: Steps) -> list[np.ndarray]:
        """One part; the network's own layers are further steps."""
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        tensors = {name: torch.from_numpy(values).to(self._device) for name, values in inputs.items()}
        half = self._half and part != FRONT
        exact = _without_cudnn() if part == FRONT and self._device.type != "cpu" else nullcontext()
        with self._steps_of(steps), exact, torch.autocast(self._device.type) if half else nullcontext():
            outputs = self._modules[part](**tensors)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [output.float().cpu().numpy() for output in outputs]

    @contextmanager
    def _steps_of(self, steps: Steps) -> Iterator[None]:
        self._current.steps = steps
        try:
            yield
        finally:
            self._current.steps = None


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Within it, convolutions are products of matrices in full precision; one thread at a time is.

    cuDNN would round to ten bits of mantissa, which changes how many frames a token lasts: a seed would not
    be the same take in a batch. Told not to, it computed wrongly (cuDNN 9.19 on an H100, a convolution of
    [32, 192, 162] by [768, 192, 3], with 75 GiB of workspace). Another lane's convolutions may take this way
    meanwhile: slower, and right.
    """
    with _exact_lock:
        torch.backends.cudnn.enabled = False
        try:
            yield
        finally:
            torch.backends.cudnn.enabled = True


def _watch_steps(vits: Any, current: threading.local) -> None:
    """Lets the take step after each part of the network and each stage of the decoder."""

    def step(*_: Any) -> None:
        steps = getattr(current, "steps", None)
        if steps is not None:
            steps.step()

    decoder = vits.waveform_decoder
    for layer in [
        vits.text_encoder,
        vits.duration_predictor,
        *vits.flow.flows,
        *decoder.ups,
        *decoder.resblocks,
    ]:
        layer.register_forward_hook(step)


def export(vits: Any, folder: Path, conditions: Arrays) -> None:
    """Traces the parts of a model on the CPU into `front.onnx`, `flow.onnx`, `decoder.onnx`.

    `conditions` are the speaker and language of one text, as far as the model has them.
    """
    parts = modules(vits)
    for part, (inputs, outputs) in _examples(vits, conditions).items():
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                parts[part],
                (),
                str(folder / f"{part}.onnx"),
                kwargs=inputs,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_axes={name: _dynamic(values) for name, values in inputs.items()},
                dynamo=False,
            )


def _examples(vits: Any, conditions: Arrays) -> dict[str, tuple[dict[str, torch.Tensor], list[str]]]:
    tokens, frames, channels = 50, 80, vits.args.hidden_channels
    speaker = {name: torch.from_numpy(values) for name, values in conditions.items() if name == "speaker"}
    both = {name: torch.from_numpy(values) for name, values in conditions.items()}
    front = {
        "tokens": torch.ones(1, tokens, dtype=torch.long),
        "lengths": torch.tensor([tokens]),
        "noise_dp": torch.zeros(1, 2, tokens),
        "noise_scale_dp": torch.ones(1, 1, 1),
        "pace": torch.ones(1, 1, 1),
        **both,
    }
    flow = {"frames": torch.zeros(1, channels, frames), "lengths": torch.tensor([frames]), **speaker}
    decoder = {"frames": torch.zeros(1, channels, frames), **speaker}
    return {
        FRONT: (front, ["mean", "log_scale", "durations"]),
        FLOW: (flow, ["frames_out"]),
        DECODER: (decoder, ["samples"]),
    }


def _dynamic(values: torch.Tensor) -> dict[int, str]:
    """The first axis is the batch; the last of those longer than one is time."""
    axes = {0: "batch"}
    last = values.dim() - 1
    if last > 0 and values.shape[last] > 1:
        axes[last] = "time"
    return axes
