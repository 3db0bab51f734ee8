"""XTTS, whose audio is sent while the rest of the sentence is still being made.

A language model makes a code for every 43 ms of speech, a decoder turns codes into samples; Coqui's
`inference_stream` decodes every so many codes and cross-fades the joints. Each such piece goes out at once.
Takes end at the next code when they are cancelled.

A voice is one that the model knows, or a clip of somebody's speech: what the model takes from a clip costs
seconds and is kept, by what is in the file.

These models keep state while they speak, so one sentence is spoken at a time (`other_models.speaking`).
"""

from __future__ import annotations

import logging
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from chorus_engine import cache_folder
from chorus_engine.engines.base import Model, ModelInfo, refuse_options, refuse_pitch
from chorus_engine.engines.other_models import one_lane, speaking
from chorus_engine.engines.pcm import to_pcm
from chorus_engine.engines.vits import pick_language, pick_voice
from chorus_engine.engines.vits_load import fold_weight_norm
from chorus_engine.errors import invalid_field, unspeakable
from chorus_engine.requests import SynthesisRequest
from chorus_engine.take import Take

# Coqui warns of audio cut short beyond this length in English. Other languages have less room: `parts`.
MAX_TEXT_CHARS = 250
_CLAUSE_MARKS = ".,;:!?\u2026\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f\u0964"
# Codes before the first piece, and between pieces.
STREAM_CODES = 20
# Samples of a cross-fade between pieces.
OVERLAP_SAMPLES = 1_024
# Held back of every piece, so that there is something left for the response to carry.
HELD_SAMPLES = 256
# What XTTS listens to, in samples a second.
CLIP_RATE = 22_050
MAX_CLIPS = 64
MAX_CLIP_BYTES = 64 << 20
log = logging.getLogger(__name__)

Latents = tuple[torch.Tensor, torch.Tensor]


def load(config_path: Path, checkpoint: Path, device: str, threads: int = 1) -> XttsModel:
    """An XTTS checkpoint with its vocabulary and speakers in the files beside it."""
    from TTS.config import load_config
    from TTS.tts.models.xtts import Xtts

    config = load_config(str(config_path))
    network = Xtts(config)
    network.load_checkpoint(
        config, checkpoint_dir=str(checkpoint.parent), checkpoint_path=str(checkpoint), eval=True
    )
    fold_weight_norm(network.hifigan_decoder)
    return XttsModel(network.to(device), threads)


class Clips:
    """What a model takes from clips of speech, kept by what is in them; those used last, up to a number."""

    def __init__(self, listen: Callable[[str], Latents], max_clips: int = MAX_CLIPS) -> None:
        self._listen = listen
        self._max_clips = max_clips
        self._kept: OrderedDict[str, Latents] = OrderedDict()
        self._lock = threading.Lock()

    def latents(self, path: str) -> Latents:
        """Those of a file; EngineError for one that is not there or no speech."""
        file = Path(path)
        try:
            if file.stat().st_size > MAX_CLIP_BYTES:
                raise invalid_field("speakerClip", f"a clip over {MAX_CLIP_BYTES} bytes")
            name = cache_folder.key(file)
        except OSError as error:
            raise invalid_field("speakerClip", f"no such clip: {error}") from error
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None:
                self._kept.move_to_end(name)
                return kept
        try:
            made = self._listen(path)
        except Exception as error:
            # The decoders of audio files fail in ways of their own.
            raise invalid_field("speakerClip", f"no use as a clip: {error}"[:500]) from error
        with self._lock:
            self._kept[name] = made
            while len(self._kept) > self._max_clips:
                self._kept.popitem(last=False)
        return made


class XttsModel(Model):
    """A loaded XTTS model."""

    def __init__(self, network: Any, threads: int) -> None:
        self._network = network
        self.tuning = one_lane(threads)
        speakers = getattr(network.speaker_manager, "speakers", None) or {}
        self._speakers = {name: tuple(latents.values()) for name, latents in speakers.items()}
        config = network.config
        rate = int(network.args.output_sample_rate)
        self.info = ModelInfo(rate, sorted(self._speakers), list(config.languages), MAX_TEXT_CHARS)
        self._clips = Clips(self._listen)
        # The take that is being spoken, for the hook between codes.
        self._take: Take | None = None
        network.gpt.gpt_inference.register_forward_hook(self._step)

    def warm_up(self) -> None:
        """The first piece of a word in the first voice, if there is one."""
        for voice in self.info.voices[:1]:
            with speaking(0, self.tuning.threads):
                pieces = self._pieces("Hello.", self.info.languages[0], self._speakers[voice], 1.0)
                next(pieces, None)

    def synthesize(self, request: SynthesisRequest, take: Take) -> None:
        """One text, piece by piece."""
        refuse_pitch(request)
        refuse_options(request)
        if not any(unicodedata.category(char)[0] in "LN" for char in request.text):
            raise unspeakable(f"model {request.model} can say nothing of this text")
        language = pick_language(request, self.info) or "en"
        with speaking(request.seed, self.tuning.threads):
            take.step()
            latents = self._latents(request)
            self._take = take
            try:
                self._stream(request, language, latents, take)
            except AssertionError as problem:
                raise invalid_field("text", f"more than the model can say at once: {problem}") from problem
            finally:
                self._take = None

    def _stream(self, request: SynthesisRequest, language: str, latents: Latents, take: Take) -> None:
        limit = self._network.tokenizer.char_limits.get(language.split("-")[0], MAX_TEXT_CHARS)
        held = torch.zeros(0)
        for text in parts(request.text, limit):
            for piece in self._pieces(text, language, latents, request.speed or 1.0):
                samples = torch.cat([held, piece.detach().float().cpu()])
                count = max(0, len(samples) - HELD_SAMPLES)
                held = samples[count:]
                if count:
                    take.write(to_pcm(samples[:count]))
                    take.flush()
                take.step()
        if not len(held):
            raise unspeakable(f"model {request.model} said nothing of this text")
        take.write(to_pcm(held))

    def _pieces(self, text: str, language: str, latents: Latents, speed: float) -> Iterator[torch.Tensor]:
        """Samples of a text as they come."""
        return self._network.inference_stream(
            text,
            language,
            *latents,
            stream_chunk_size=STREAM_CODES,
            overlap_wav_len=OVERLAP_SAMPLES,
            speed=speed,
            **self._settings(),
        )

    def _settings(self) -> dict[str, Any]:
        config = self._network.config
        names = ("temperature", "length_penalty", "repetition_penalty", "top_k", "top_p")
        return {name: getattr(config, name) for name in names}

    def _latents(self, request: SynthesisRequest) -> Latents:
        if request.speaker_clip is not None:
            if request.voice is not None:
                raise invalid_field("speakerClip", "a voice and a clip exclude one another")
            return self._clips.latents(request.speaker_clip)
        voice = pick_voice(request, self.info)
        if voice is None:
            raise invalid_field(
                "speakerClip", f"model {request.model} has no voice of its own: a clip is needed"
            )
        return self._speakers[voice]

    def _listen(self, path: str) -> Latents:
        """As Coqui's `get_conditioning_latents`, which needs FFmpeg to read the simplest of files."""
        network, config = self._network, self._network.config
        with torch.inference_mode():
            audio = _read(path)[:, : CLIP_RATE * config.max_ref_len].to(network.device)
            if config.sound_norm_refs:
                audio = audio / audio.abs().max() * 0.75
            speaker = network.get_speaker_embedding(audio, CLIP_RATE)
            length, chunk_length = config.gpt_cond_len, config.gpt_cond_chunk_len
            return network.get_gpt_cond_latents(audio, CLIP_RATE, length, chunk_length), speaker

    def _step(self, *_: Any) -> None:
        if self._take is not None:
            self._take.step()


def _read(path: str) -> torch.Tensor:
    """Samples [1, N] of an audio file at `CLIP_RATE`, its channels as one."""
    import soundfile
    import torchaudio

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples).mean(dim=1)[None]
    return torchaudio.functional.resample(mono, rate, CLIP_RATE).clip(-1.0, 1.0)


def parts(text: str, limit: int) -> list[str]:
    """A text in parts of at most `limit` characters, cut behind a clause or between words if it can be."""
    found, rest = [], text.strip()
    while len(rest) > limit:
        room = rest[:limit]
        behind_clause = max(room.rfind(mark) for mark in _CLAUSE_MARKS) + 1
        cut = behind_clause or room.rfind(" ") + 1 or limit
        found.append(rest[:cut].strip())
        rest = rest[cut:].strip()
    return [part for part in [*found, rest] if any(char.isalnum() for char in part)]
