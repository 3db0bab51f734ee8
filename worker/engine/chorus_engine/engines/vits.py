"""VITS models: what a request means to one, and which runtime speaks it.

Coqui's own way around the network splits, pads and normalises, which a fleet does elsewhere or not at all.
Loaded weights are shared by all lanes. On the CPU the network runs in torch or in onnxruntime, whichever
measures best here (`vits_load`); on a GPU in torch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from chorus_engine.engines.base import Model, ModelInfo, refuse_clip, refuse_options, refuse_pitch
from chorus_engine.engines.pcm import to_pcm
from chorus_engine.engines.tuning import Tuning
from chorus_engine.engines.vits_parts import Arrays, Parts
from chorus_engine.engines.vits_speech import Network, NoSteps, Utterance, speak
from chorus_engine.errors import EngineError, invalid_field, unspeakable, unsupported
from chorus_engine.requests import SynthesisRequest
from chorus_engine.speakable import Speller
from chorus_engine.take import Take

# About four minutes of speech.
MAX_TEXT_CHARS = 2_000
NOISE_SCALE_RANGE = (0.0, 2.0)
WARM_UP_TEXTS = ("Hello.", "The quick brown fox jumps over the lazy dog near the river bank.")
_OPTIONS = frozenset({"noiseScale", "noiseScaleDp"})
log = logging.getLogger(__name__)


class Voices:
    """The text side of a model: its names, its speller, and what a voice is to the network."""

    def __init__(self, vits: Any) -> None:
        self._vits = vits
        self._speller = Speller(vits.tokenizer)
        config = vits.config
        rate = config.audio.get("output_sample_rate") or config.audio["sample_rate"]
        self.info = ModelInfo(int(rate), speaker_names(vits), language_names(vits), MAX_TEXT_CHARS)
        self._pace = float(vits.length_scale)
        self._noise_scales = float(vits.inference_noise_scale), float(vits.inference_noise_scale_dp)
        self.conditions = lru_cache(maxsize=256)(self._conditions)

    def utterance(self, request: SynthesisRequest, take: Take) -> Utterance:
        """A request as the network takes it; EngineError for what this model cannot do."""
        refuse_pitch(request)
        refuse_clip(request)
        refuse_options(request, _OPTIONS)
        voice, language = pick_voice(request, self.info), pick_language(request, self.info)
        tokens = self._speller.spell(request.text, language)
        if not tokens.speakable:
            raise unspeakable(f"model {request.model} can say nothing of this text")
        if tokens.dropped:
            take.warn_unspeakable(tokens.dropped)
        scale = request.options.optional_number("noiseScale", *NOISE_SCALE_RANGE)
        scale_dp = request.options.optional_number("noiseScaleDp", *NOISE_SCALE_RANGE)
        usual, usual_dp = self._noise_scales
        return Utterance(
            tokens=tokens.ids,
            seed=request.seed,
            pace=self._pace / (request.speed or 1.0),
            noise_scale=usual if scale is None else scale,
            noise_scale_dp=usual_dp if scale_dp is None else scale_dp,
            conditions=self.conditions(voice, language),
        )

    def sample(self, text: str) -> Utterance:
        """A text in the first voice and language, the same take every time."""
        voice, language = next(iter(self.info.voices), None), next(iter(self.info.languages), None)
        tokens = self._speller.spell(text, language)
        if not tokens.speakable:
            raise unspeakable(f"nothing of the text can be said: {text}")
        return Utterance(tokens.ids, 0, self._pace, *self._noise_scales, self.conditions(voice, language))

    def samples(self) -> list[Utterance]:
        """The texts to warm up and to measure with, as far as this model can say them."""
        said = []
        for text in WARM_UP_TEXTS:
            try:
                said.append(self.sample(text))
            except EngineError as error:
                log.info("cannot be warmed up with %r: %s", text, error)
        return said

    @torch.no_grad()
    def _conditions(self, voice: str | None, language: str | None) -> Arrays:
        """Speaker and language as Coqui's `synthesize` passes them, embedded: [1, C, 1] each."""
        vits = self._vits
        speaker_ids, d_vectors = vits._get_speaker_id_or_dvector(voice)
        inputs = {"speaker_ids": speaker_ids, "d_vectors": d_vectors}
        speaker = vits._get_speaker_conditioning(inputs, "emb_g", normalize_embedding=False)
        found: Arrays = {} if speaker is None else {"speaker": speaker.float().cpu().numpy()}
        language_id = vits._get_language_id(language)
        if vits.args.use_language_embedding and language_id is not None:
            ids = torch.tensor([language_id], device=vits.device)
            found["language"] = vits.emb_l(ids).unsqueeze(-1).float().cpu().numpy()
        return found


class VitsModel(Model):
    """A loaded VITS model of any number of speakers and languages.

    `wide` speaks what is alone, `narrow` what is one of several; they may be the same.
    """

    def __init__(self, voices: Voices, network: Network, wide: Parts, narrow: Parts, tuning: Tuning) -> None:
        self._voices = voices
        self._network = network
        self._wide = wide
        self._narrow = narrow
        self.info = voices.info
        self.tuning = tuning

    def warm_up(self) -> None:
        """Speaks a short and a longer sentence both ways, so that threads and buffers are there."""
        for said in self._voices.samples():
            for parts in {id(parts): parts for parts in (self._wide, self._narrow)}.values():
                speak(parts, self._network, [said], NoSteps())

    def sample(self, text: str, among_others: bool = False) -> bytes:
        """A text in the first voice and language, as s16le; the same take every time."""
        parts = self._narrow if among_others else self._wide
        (samples,) = speak(parts, self._network, [self._voices.sample(text)], NoSteps())
        return _pcm(samples)

    def synthesize(self, request: SynthesisRequest, take: Take) -> None:
        """One text."""
        self.synthesize_batch([request], [take])

    def synthesize_batch(self, requests: Sequence[SynthesisRequest], takes: Sequence[Take]) -> None:
        """Several texts in one pass of the network; alone with all cores if nothing else is to be spoken."""
        said = [self._voices.utterance(*each) for each in zip(requests, takes, strict=True)]
        parts = self._wide if all(take.is_alone for take in takes) else self._narrow
        steps = takes[0] if len(takes) == 1 else _Together(takes)
        spoken = [_pcm(samples) for samples in speak(parts, self._network, said, steps)]
        # Only once all of them are good: a batch that fails is spoken again, into the same takes.
        for take, audio in zip(takes, spoken, strict=True):
            take.write(audio)


class _Together:
    """Steps of several takes: they end together, when all of them are cancelled."""

    def __init__(self, takes: Sequence[Take]) -> None:
        self._takes = takes

    def step(self) -> None:
        """Tells progress of those that are still wanted; raises when none is."""
        refusals = []
        for take in self._takes:
            try:
                take.step()
            except EngineError as error:
                refusals.append(error)
        if len(refusals) == len(self._takes):
            raise refusals[0]

    def on_cancel(self, act: Any) -> Any:
        """A batch ends at its steps."""
        return NoSteps().on_cancel(act)


def _pcm(samples: np.ndarray) -> bytes:
    return to_pcm(torch.from_numpy(samples))


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
