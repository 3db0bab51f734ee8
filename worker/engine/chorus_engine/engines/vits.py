"""VITS models, spoken by calling their `inference`.

Coqui's own way around that call splits, pads and normalises, which a fleet does elsewhere or not at all.
Loaded weights are shared by all lanes; what a request may change (pace and noise scales) is set on a
shallow copy of the model, whose submodules are the same. Hooks on the submodules are the steps between
which progress is told and cancelling holds.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import parametrize

from chorus_engine.engines import noise
from chorus_engine.engines.base import Model, ModelInfo, refuse_options, refuse_pitch
from chorus_engine.engines.pcm import to_pcm
from chorus_engine.errors import EngineError, invalid_field, unspeakable, unsupported
from chorus_engine.requests import SynthesisRequest
from chorus_engine.speakable import Speller
from chorus_engine.take import Take

# About four minutes of speech, and a gigabyte of memory while it is made.
MAX_TEXT_CHARS = 2_000
NOISE_SCALE_RANGE = (0.0, 2.0)
_OPTIONS = frozenset({"noiseScale", "noiseScaleDp"})
log = logging.getLogger(__name__)
_WARM_UP_TEXTS = ("Hello.", "The quick brown fox jumps over the lazy dog near the river bank.")


def load(config_path: Path, checkpoint: Path, device: str) -> VitsModel:
    """A VITS checkpoint, ready for inference on a device."""
    from TTS.config import load_config
    from TTS.tts.models.vits import Vits

    config = load_config(str(config_path))
    # The discriminator serves training alone, and is the larger part of many checkpoints.
    config.model_args.init_discriminator = False
    with _no_training_audio():
        vits = Vits(config)
    vits.register_load_state_dict_pre_hook(_without_discriminator)
    vits.load_checkpoint(config, str(checkpoint), eval=True, strict=True)
    return VitsModel(vits.to(device))


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


def fold_weight_norm(module: torch.nn.Module) -> int:
    """Replaces weights that are computed at every call by their value; how many there were."""
    folded = 0
    for part in list(module.modules()):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
            folded += 1
    return folded


class VitsModel(Model):
    """A loaded VITS model of any number of speakers and languages."""

    def __init__(self, vits: Any) -> None:
        fold_weight_norm(vits)
        noise.install()
        self._vits = vits
        self._speller = Speller(vits.tokenizer)
        self._taking = threading.local()
        config = vits.config
        rate = config.audio.get("output_sample_rate") or config.audio["sample_rate"]
        voices, languages = speaker_names(vits), language_names(vits)
        self.info = ModelInfo(int(rate), voices, languages, MAX_TEXT_CHARS)
        self._watch_steps()

    def warm_up(self) -> None:
        """Speaks a short and a longer sentence, so that threads and buffers are there."""
        for text in _WARM_UP_TEXTS:
            try:
                self.sample(text)
            except EngineError as error:
                log.info("warm-up skipped: %s", error)

    def sample(self, text: str) -> bytes:
        """A text in the first voice and language, as s16le; the same take every time."""
        language = next(iter(self.info.languages), None)
        tokens = self._speller.spell(text, language)
        if not tokens.speakable:
            raise unspeakable(f"nothing of the text can be said: {text}")
        with noise.seeded(0):
            voice = next(iter(self.info.voices), None)
            outputs = self._vits.inference(self._tensor(tokens.ids), self._conditions(voice, language))
        return to_pcm(outputs["model_outputs"])

    def synthesize(self, request: SynthesisRequest, take: Take) -> None:
        """One inference call for the whole text."""
        refuse_pitch(request)
        refuse_options(request, _OPTIONS)
        voice, language = pick_voice(request, self.info), pick_language(request, self.info)
        tokens = self._speller.spell(request.text, language)
        if not tokens.speakable:
            raise unspeakable(f"model {request.model} can say nothing of this text")
        if tokens.dropped:
            take.warn_unspeakable(tokens.dropped)
        take.step()
        with self._steps_of(take), noise.seeded(request.seed):
            paced = self._paced(request)
            outputs = paced.inference(self._tensor(tokens.ids), self._conditions(voice, language))
        take.write(to_pcm(outputs["model_outputs"]))

    def _paced(self, request: SynthesisRequest) -> Any:
        """The model with the request's pace and noise scales, sharing all its weights."""
        view = copy.copy(self._vits)
        view.length_scale = self._vits.length_scale / (request.speed or 1.0)
        scale = request.options.optional_number("noiseScale", *NOISE_SCALE_RANGE)
        scale_dp = request.options.optional_number("noiseScaleDp", *NOISE_SCALE_RANGE)
        if scale is not None:
            view.inference_noise_scale = scale
        if scale_dp is not None:
            view.inference_noise_scale_dp = scale_dp
        return view

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], dtype=torch.long, device=self._vits.device)

    def _conditions(self, voice: str | None, language: str | None) -> dict[str, Any]:
        """The second argument of `inference`: speaker and language as Coqui's `synthesize` passes them."""
        vits = self._vits
        speaker_ids, d_vectors = vits._get_speaker_id_or_dvector(voice)
        language_id = vits._get_language_id(language)
        return {
            "x_lengths": None,
            "speaker_ids": speaker_ids,
            "d_vectors": d_vectors,
            "language_ids": None if language_id is None else torch.tensor([language_id], device=vits.device),
            "durations": None,
        }

    @contextmanager
    def _steps_of(self, take: Take) -> Iterator[None]:
        """Within it, the network's steps on this thread are the take's."""
        self._taking.take = take
        try:
            yield
        finally:
            self._taking.take = None

    def _watch_steps(self) -> None:
        """Lets the take step after each part of the network and each stage of the decoder."""

        def step(*_: Any) -> None:
            take = getattr(self._taking, "take", None)
            if take is not None:
                take.step()

        decoder = self._vits.waveform_decoder
        parts = [self._vits.text_encoder, self._vits.duration_predictor, *self._vits.flow.flows]
        for part in [*parts, *decoder.ups, *decoder.resblocks]:
            part.register_forward_hook(step)


def speaker_names(model: Any) -> list[str]:
    """Names of a model's speakers; empty if it has but one."""
    manager = getattr(model, "speaker_manager", None)
    names = [] if manager is None else list(manager.speaker_names)
    return names if len(names) > 1 else []


def language_names(model: Any) -> list[str]:
    """Names of a model's languages; empty if it has but one."""
    manager = getattr(model, "language_manager", None)
    names = [] if manager is None else list(manager.language_names)
    return names if len(names) > 1 else []


def pick_voice(request: SynthesisRequest, info: ModelInfo) -> str | None:
    """The speaker to use: the one asked for, or the first; the error for an unknown one lists them."""
    return _pick("voice", request.voice, info.voices, request.model)


def pick_language(request: SynthesisRequest, info: ModelInfo) -> str | None:
    """The language to use, as `pick_voice`."""
    return _pick("language", request.language, info.languages, request.model)


def _pick(field: str, asked: str | None, known: list[str], model: str) -> str | None:
    if not known:
        if asked is not None:
            raise unsupported(field, f"model {model} has one {field}")
        return None
    if asked is None:
        return known[0]
    if asked not in known:
        listed = ", ".join(known[:50])
        raise invalid_field(field, f"model {model} has no {field} {asked}; it has {listed}")
    return asked
