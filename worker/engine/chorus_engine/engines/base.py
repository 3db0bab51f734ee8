"""What a kind of engine is to the server: an `Engine` that loads, and a `Model` that speaks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chorus_engine import host
from chorus_engine.engines.tuning import Tuning
from chorus_engine.errors import unsupported
from chorus_engine.pipe import FrameWriter
from chorus_engine.requests import ModelSpec, SynthesisRequest
from chorus_engine.take import Take

Progress = Callable[[str], None]


@dataclass(frozen=True)
class EngineConfig:
    """How this process was started. `threads` and `lanes` are None where the command line says nothing."""

    threads: int | None = None
    lanes: int | None = None
    max_batch: int | None = None
    writer: FrameWriter | None = None


@dataclass(frozen=True)
class Capabilities:
    """What the models of an engine can do; a model may be able to do less."""

    streaming: bool = False
    speed: bool = False
    pitch: bool = False
    seed: bool = True
    cancel: bool = True
    speaker_clip: bool = False
    lanes: int = 1
    max_batch: int = 1

    def payload(self) -> dict[str, Any]:
        """As the handshake says it."""
        return {
            "streaming": self.streaming,
            "speed": self.speed,
            "pitch": self.pitch,
            "seed": self.seed,
            "cancel": self.cancel,
            "speakerClip": self.speaker_clip,
            "lanes": self.lanes,
            "maxBatch": self.max_batch,
        }


@dataclass
class ModelInfo:
    """What a loaded model is: the sample rate in Hz, and the names it takes for voice and language."""

    sample_rate: int
    voices: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    max_text_chars: int | None = None


class Model(ABC):
    """A loaded model. `synthesize` is called by several lanes at once.

    `files` are what the voice is made of, in an order that is always the same; a model that does not tell has
    no takes stored.
    """

    info: ModelInfo
    files: tuple[str, ...] = ()
    # How it is run here; None where there is nothing to choose.
    tuning: Tuning | None = None

    def warm_up(self) -> None:  # noqa: B027 (most models have nothing to warm)
        """Speaks once into the void, so that no listener pays for what the first call allocates."""

    @abstractmethod
    def synthesize(self, request: SynthesisRequest, take: Take) -> None:
        """Speaks the request into the take (`step`, `write`, `flush`), which the caller then finishes."""

    def synthesize_batch(self, requests: Sequence[SynthesisRequest], takes: Sequence[Take]) -> None:
        """Speaks several requests at once; called only for models whose tuning has batches."""
        for request, take in zip(requests, takes, strict=True):
            self.synthesize(request, take)


class Engine(ABC):
    """A kind of engine, made before the handshake: nothing heavy may be imported by its constructor."""

    name: str
    library: str

    def __init__(self, config: EngineConfig) -> None:
        self.config = config

    def device(self) -> dict[str, Any]:
        """The device of the handshake."""
        return host.cpu_device(self.config.threads or 1)

    @property
    def capabilities(self) -> Capabilities:
        """What the models of this engine can do at best."""
        return Capabilities(lanes=self.config.lanes or 1)

    def prepare(self) -> None:  # noqa: B027 (only engines with heavy imports have something to do)
        """Called after the handshake on the loading thread: imports what the first load will need."""

    @abstractmethod
    def load(self, spec: ModelSpec, progress: Progress) -> Model:
        """Loads a model; `progress` takes the name of each stage as it begins."""


def refuse_voice_changes(request: SynthesisRequest) -> None:
    """For models with one fixed voice: whatever would change it is refused rather than left out silently."""
    if request.voice is not None:
        raise unsupported("voice", f"model {request.model} has one voice")
    if request.language is not None:
        raise unsupported("language", f"model {request.model} has one language")
    if request.speed not in (None, 1.0):
        raise unsupported("speed", f"model {request.model} has one speed")
    refuse_clip(request)
    refuse_pitch(request)


def refuse_clip(request: SynthesisRequest) -> None:
    """For models that speak in the voices they have learnt."""
    if request.speaker_clip is not None:
        raise unsupported("speakerClip", f"model {request.model} cannot take on a voice")


def refuse_pitch(request: SynthesisRequest) -> None:
    """For models that cannot change pitch; zero semitones is no change."""
    if request.pitch not in (None, 0.0):
        raise unsupported("pitch", f"model {request.model} cannot change pitch")


def refuse_options(request: SynthesisRequest, known: frozenset[str] = frozenset()) -> None:
    """Refuses options that the model does not know."""
    for key in sorted(request.options.keys() - known):
        raise unsupported(request.options.name(key), f"model {request.model} has no such option")
