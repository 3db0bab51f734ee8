"""Loads a VITS checkpoint and finds out how this machine speaks it best.

On the CPU the network is exported to ONNX once per checkpoint, compared with torch on the same noise, and
measured against it; graphs and figures are kept (`cache_folder`), so a second start does neither. Whatever
goes wrong on that way is logged and leaves torch, which always works.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parametrize

from chorus_engine import cache_folder, host
from chorus_engine.cache_folder import CacheFolder
from chorus_engine.engines import noise, tuning, vits_parts, vits_speech
from chorus_engine.engines.tuning import Asked, Tuning
from chorus_engine.engines.vits import VitsModel, Voices
from chorus_engine.engines.vits_parts import Parts, TorchParts
from chorus_engine.engines.vits_speech import Network, NoSteps, Utterance

TORCH, TORCH_HALF, ONNX = "torch", "torch-half", "onnx"
# Part of the names of what is kept: raise it when graphs or figures of another making must not be used.
FORMAT = "2"
# Full scale is 1: a difference that no 16-bit sample can show twice over.
ONNX_TOLERANCE = 1e-3
# Half precision is correct while its error is this far below the signal.
HALF_MIN_SNR_DB = 30.0
MAX_GPU_BATCH = 16
log = logging.getLogger(__name__)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How a load may go about it. Without a cache nothing is exported, measured or kept."""

    cores: int = 1
    asked: Asked = field(default_factory=Asked)
    cache: CacheFolder | None = None
    progress: Progress = lambda stage: None


def load(config_path: Path, checkpoint: Path, device: str, settings: Settings | None = None) -> VitsModel:
    """A VITS checkpoint, ready for inference on a device."""
    vits = _network(config_path, checkpoint)
    identity = (FORMAT, *_versions(), config_path, checkpoint)
    return prepare(vits.to(device), settings or Settings(), identity)


def prepare(vits: Any, settings: Settings, identity: tuple[str | Path, ...] | None = None) -> VitsModel:
    """A loaded network as a model. `identity` is what its graphs depend on; without it there are none."""
    fold_weight_norm(vits)
    noise.install()
    voices = Voices(vits)
    samples = voices.samples()
    load = _Load(vits, voices, samples, settings, identity)
    return load.on_cpu() if vits.device.type == "cpu" else load.on_gpu()


class _Load:
    """One load under way."""

    def __init__(
        self,
        vits: Any,
        voices: Voices,
        samples: list[Utterance],
        settings: Settings,
        identity: tuple[str | Path, ...] | None,
    ) -> None:
        self._vits = vits
        self._voices = voices
        self._samples = samples
        self._settings = settings
        self._identity = identity if samples and settings.cache is not None else None
        self._network = Network(bool(vits.args.use_sdp), int(vits.args.hidden_channels))
        if vits.args.encoder_sample_rate:
            factor = float(vits.interpolate_factor)
            self._network = Network(self._network.stochastic_durations, self._network.channels, None, factor)
        self._speaker = {
            name: values
            for name, values in (samples[0].conditions if samples else {}).items()
            if name == "speaker"
        }
        self._parts: dict[tuple[str, int], Parts] = {}
        self._graphs: Path | None = None

    def on_cpu(self) -> VitsModel:
        """The model in the runtime, lanes and threads that measure best."""
        cores = self._settings.cores
        fallback = Tuning(TORCH, cores, 1, cores)
        self._graphs = self._exported()
        runtimes = [TORCH] if self._graphs is None else [ONNX, TORCH]
        self._network = self._windowed(self._cpu_parts(runtimes[0], cores))
        # Measured with everything open; what was asked for is put over the figures.
        found = self._tuned(lambda: tuning.calibrate(self._trial, runtimes, cores, tuning.Clock()), fallback)
        if found.runtime == ONNX and self._graphs is None:
            found = fallback
        chosen = self._settings.asked.over(found, cores)
        wide = self._cpu_parts(chosen.runtime, chosen.threads)
        narrow = self._cpu_parts(chosen.runtime, chosen.lane_threads) if chosen.lanes > 1 else wide
        self._parts.clear()
        model = VitsModel(self._voices, self._network, wide, narrow, chosen)
        if chosen.runtime == ONNX:
            _drop_weights(self._vits)
        return model

    def on_gpu(self) -> VitsModel:
        """The model in torch, in half precision where that is faster and correct, in the batches that
        measure best."""
        threads = self._settings.asked.threads or 1
        fallback = Tuning(TORCH, threads, 1, threads)
        self._network = self._windowed(TorchParts(self._vits))
        found = self._tuned(lambda: self._calibrated_gpu(threads), fallback)
        chosen = self._settings.asked.over(found, 1)
        parts = TorchParts(self._vits, half=chosen.runtime == TORCH_HALF)
        # What the largest batches of a calibration needed is not this model's memory.
        host.release_memory()
        return VitsModel(self._voices, self._network, parts, parts, chosen)

    def _tuned(self, measure: Callable[[], Tuning], fallback: Tuning) -> Tuning:
        """The figures kept for this model and machine, or measured now."""
        cache, identity = self._settings.cache, self._identity
        if cache is None or identity is None:
            return fallback
        machine = (self._vits.device.type, _device_name(self._vits), str(self._settings.cores))
        name = "tuning-" + cache_folder.key(*identity, *machine, ONNX if self._graphs else TORCH)

        def make(folder: Path) -> None:
            self._settings.progress("calibrate")
            tuning.write(folder, measure())

        try:
            return tuning.read(cache.provide(name, make))
        except ValueError as error:
            cache.forget(name)
            log.warning("measured figures are of no use: %s", error)
        except OSError as error:
            log.warning("figures cannot be kept: %s", error)
        return fallback

    def _exported(self) -> Path | None:
        """The folder with this model's graphs, made and compared with torch if it is new."""
        cache, identity = self._settings.cache, self._identity
        if cache is None or identity is None:
            return None

        def make(folder: Path) -> None:
            self._settings.progress("export")
            vits_parts.export(self._vits, folder, self._samples[0].conditions)
            from chorus_engine.engines import onnx_parts

            onnx_parts.finish(folder)
            self._compare(folder)

        if importlib.util.find_spec("onnxruntime") is None:
            log.warning("not run in onnxruntime but in torch: onnxruntime is not installed")
            return None
        name = "vits-" + cache_folder.key(*identity, host.cpu_name())
        try:
            folder = cache.provide(name, make)
            self._onnx(folder, self._settings.cores)
            return folder
        except Exception as error:
            # Exporters fail in as many ways as there are models; torch needs none of it.
            log.warning("not run in onnxruntime but in torch: %s: %s", type(error).__name__, error)
            cache.forget(name)
            self._parts.clear()
            return None

    def _compare(self, folder: Path) -> None:
        plain = TorchParts(self._vits, self._settings.cores)
        for said in self._samples:
            theirs = _spoken(plain, self._network, said)
            for threads in {1, self._settings.cores}:
                ours = _spoken(self._onnx(folder, threads), self._network, said)
                if ours.shape != theirs.shape:
                    raise ValueError(f"its graphs speak {len(ours)} samples where torch speaks {len(theirs)}")
                difference = float(np.abs(ours - theirs).max())
                if not difference <= ONNX_TOLERANCE:
                    raise ValueError(f"its graphs differ from torch by {difference:.2g} of full scale")

    def _trial(self, runtime: str, threads: int) -> Callable[[], Any]:
        parts, said = self._cpu_parts(runtime, threads), self._samples[-1]
        return lambda: _spoken(parts, self._network, said)

    def _cpu_parts(self, runtime: str, threads: int) -> Parts:
        known = self._parts.get((runtime, threads))
        if known is not None:
            return known
        if runtime == ONNX and self._graphs is not None:
            return self._onnx(self._graphs, threads)
        return self._parts.setdefault((runtime, threads), TorchParts(self._vits, threads))

    def _onnx(self, folder: Path, threads: int) -> Parts:
        if (ONNX, threads) not in self._parts:
            self._parts[ONNX, threads] = _onnx_parts(folder, threads)
        return self._parts[ONNX, threads]

    def _calibrated_gpu(self, threads: int) -> Tuning:
        clock, said = tuning.Clock(), self._samples[-1]
        plain, half = TorchParts(self._vits), TorchParts(self._vits, half=True)
        runtime, parts = TORCH, plain
        if is_correct(_spoken(plain, self._network, said), _spoken(half, self._network, said)):
            times = [clock.seconds(partial(_spoken, each, self._network, said)) for each in (plain, half)]
            if times[1] * tuning.GAIN < times[0]:
                runtime, parts = TORCH_HALF, half
        alone = _spoken(parts, self._network, said)

        def batch(count: int) -> list[np.ndarray]:
            return vits_speech.speak(parts, self._network, [said] * count, NoSteps())

        largest = 1
        while largest < MAX_GPU_BATCH and self._network.interpolation == 1.0:
            if not is_good_batch(partial(batch, largest * 2), alone):
                break
            largest *= 2
        return Tuning(runtime, threads, 1, threads, tuning.calibrate_batch(batch, largest, clock))

    def _windowed(self, parts: Parts) -> Network:
        """The network, and how far its decoder looks."""
        network = self._network
        reach = vits_speech.decoder_reach(parts, network.channels, self._speaker)
        return Network(network.stochastic_durations, network.channels, reach, network.interpolation)


def is_correct(exact: np.ndarray, other: np.ndarray) -> bool:
    """Whether audio made in half precision is that made in full, less a noise that nobody hears."""
    if exact.shape != other.shape or not np.isfinite(other).all():
        return False
    error = float(np.square(exact - other).mean())
    signal = float(np.square(exact).mean())
    return error <= signal / 10 ** (HALF_MIN_SNR_DB / 10)


def is_good_batch(speak: Callable[[], list[np.ndarray]], alone: np.ndarray) -> bool:
    """Whether a batch of one text is that text, every time: libraries have been seen to fail at a size."""
    try:
        return all(is_correct(alone, spoken) for spoken in speak())
    except torch.cuda.OutOfMemoryError as error:
        log.info("a batch is too large: %s", error)
        return False


def fold_weight_norm(module: torch.nn.Module) -> int:
    """Replaces weights that are computed at every call by their value; how many there were."""
    folded = 0
    for part in list(module.modules()):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
            folded += 1
    return folded


def _spoken(parts: Parts, network: Network, said: Utterance) -> np.ndarray:
    return vits_speech.speak(parts, network, [said], NoSteps())[0]


def _onnx_parts(folder: Path, threads: int) -> Parts:
    from chorus_engine.engines.onnx_parts import OnnxParts

    return OnnxParts(folder, threads)


def _versions() -> tuple[str, ...]:
    return tuple(host.library_version(package) for package in ("coqui-tts", "torch", "onnx", "onnxruntime"))


def _device_name(vits: Any) -> str:
    return host.cpu_name() if vits.device.type == "cpu" else torch.cuda.get_device_name(vits.device)


def _network(config_path: Path, checkpoint: Path) -> Any:
    from TTS.config import load_config
    from TTS.tts.models.vits import Vits

    config = load_config(str(config_path))
    # The discriminator serves training alone, and is the larger part of many checkpoints.
    config.model_args.init_discriminator = False
    with _no_training_audio():
        vits = Vits(config)
    vits.register_load_state_dict_pre_hook(_without_discriminator)
    vits.load_checkpoint(config, str(checkpoint), eval=True, strict=True)
    return vits


@contextmanager
def _no_training_audio() -> Iterator[None]:
    """Keeps Coqui's base class from making mel filters, which VITS needs for training alone.

    They would drag in librosa, scipy and numba: two seconds and 80 MB of every start.
    """
    from TTS.tts.models import base_tts

    processor = base_tts.AudioProcessor
    base_tts.AudioProcessor = lambda config: None
    try:
        yield
    finally:
        base_tts.AudioProcessor = processor


def _without_discriminator(module: torch.nn.Module, weights: dict[str, Any], *_: Any) -> None:
    for name in [name for name in weights if name.startswith("disc.")]:
        del weights[name]


def _drop_weights(vits: Any) -> None:
    """Frees what onnxruntime has a copy of; tables of speakers and languages stay."""
    # The model asks its first parameter for its device.
    vits.device_anchor = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    for part in ("text_encoder", "duration_predictor", "flow", "waveform_decoder", "posterior_encoder"):
        setattr(vits, part, None)
    host.release_memory()
