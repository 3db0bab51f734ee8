"""Coqui models other than VITS and XTTS, spoken through Coqui's synthesizer.

These keep state on the model while they speak and draw from torch's global generator, so one speaks at a
time, under a lock that all of them share.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from chorus_engine.engines.base import Model, ModelInfo, refuse_clip, refuse_options, refuse_pitch
from chorus_engine.engines.coqui_source import Source
from chorus_engine.engines.pcm import to_pcm
from chorus_engine.engines.tuning import Tuning
from chorus_engine.engines.vits import language_names, pick_language, pick_voice, speaker_names
from chorus_engine.errors import unspeakable, unsupported
from chorus_engine.requests import SynthesisRequest
from chorus_engine.speakable import Speller
from chorus_engine.take import Take

# Appended by the synthesizer to every sentence (`PAD_SILENCE_SAMPLES`).
PADDING_SAMPLES = 10_000
MAX_TEXT_CHARS = 1_000
WARM_UP_TEXT = "Hello."
_speaking = threading.Lock()
log = logging.getLogger(__name__)


@contextmanager
def speaking(seed: int | None, threads: int | None = None) -> Iterator[None]:
    """Within it, this thread alone speaks with models of this kind, on the noise of `seed` or fresh noise.

    Networks draw from torch; models without a vocoder (Griffin-Lim) from numpy, whose seeds have 32 bits.
    """
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    chosen = secrets.randbits(63) if seed is None else seed
    with _speaking, torch.random.fork_rng():
        before = np.random.get_state()
        torch.manual_seed(chosen)
        np.random.seed(chosen % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)


def synthesizer(source: Source, device: str) -> Any:
    """Coqui's synthesizer over a model, on a device."""
    from TTS.utils.synthesizer import Synthesizer

    return Synthesizer(
        tts_checkpoint=source.checkpoint,
        tts_config_path=source.config_path,
        vocoder_checkpoint=source.vocoder_checkpoint,
        vocoder_config=source.vocoder_config,
        use_cuda=device == "cuda",
    )


def one_lane(threads: int) -> Tuning:
    """How models are run that speak one sentence at a time."""
    return Tuning("torch", threads, 1, threads)


class SynthesizerModel(Model):
    """A model behind Coqui's synthesizer."""

    def __init__(self, loaded: Any, threads: int = 1) -> None:
        self._synthesizer = loaded
        self.tuning = one_lane(threads)
        model = loaded.tts_model
        voices = speaker_names(model)
        self._clones = bool(getattr(model.config, "supports_cloning", False))
        if self._clones:
            voices = sorted({*voices, *model.get_voices(loaded.voice_dir)})
        self.info = ModelInfo(int(loaded.output_sample_rate), voices, language_names(model), MAX_TEXT_CHARS)
        characters = getattr(getattr(model, "tokenizer", None), "characters", None)
        self._speller = None if characters is None else Speller(model.tokenizer)

    def warm_up(self) -> None:
        """Speaks a word: the first one costs imports and compiling, half a minute without a vocoder.

        Not with models that take on voices: those are large, and slow at every word.
        """
        if self._clones:
            return
        voice, language = next(iter(self.info.voices), None), next(iter(self.info.languages), None)
        try:
            with speaking(0, self.tuning.threads):
                self._synthesizer.tts(WARM_UP_TEXT, speaker_name=voice, language_name=language)
        except Exception as problem:
            # A model of another script may be unable to say it, in a way of its own.
            log.info("not warmed up: %s: %s", type(problem).__name__, problem)

    def synthesize(self, request: SynthesisRequest, take: Take) -> None:
        """The text as one sentence, less the padding behind it."""
        refuse_pitch(request)
        refuse_options(request)
        if request.speed not in (None, 1.0):
            raise unsupported("speed", f"model {request.model} has one speed")
        if not self._clones:
            refuse_clip(request)
        language = pick_language(request, self.info)
        voice = None if request.speaker_clip else pick_voice(request, self.info)
        self._check_text(request, language, take)
        with speaking(request.seed, self.tuning.threads):
            take.step()
            wave = self._synthesizer.tts(
                request.text,
                speaker_name=voice,
                language_name=language,
                speaker_wav=request.speaker_clip,
                split_sentences=False,
            )
        take.step()
        take.write(to_pcm(without_padding(torch.as_tensor(wave, dtype=torch.float32))))

    def _check_text(self, request: SynthesisRequest, language: str | None, take: Take) -> None:
        if self._speller is None:
            return
        tokens = self._speller.spell(request.text, language)
        if not tokens.speakable:
            raise unspeakable(f"model {request.model} can say nothing of this text")
        if tokens.dropped:
            take.warn_unspeakable(tokens.dropped)


def without_padding(wave: torch.Tensor) -> torch.Tensor:
    """The wave less the zeros that the synthesizer appended; a model's own silence stays."""
    if len(wave) > PADDING_SAMPLES and not bool(wave[-PADDING_SAMPLES:].any()):
        return wave[:-PADDING_SAMPLES]
    return wave
