"""The payloads of `load` and `synthesize` as typed values, checked field by field.

Only shape and range are judged here; what a given model can honour is the engine's to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chorus_engine.fields import Fields

MAX_NAME_CHARS = 256
MAX_PATH_CHARS = 4096
MAX_TEXT_CHARS = 262_144
MAX_SEED = 2**64 - 1
SPEED_RANGE = (0.25, 4.0)
PITCH_RANGE = (-12.0, 12.0)


@dataclass(frozen=True)
class ModelSpec:
    """A model to load: exactly one of `path`, `hub` and `builtin` says where it comes from.

    `sha256` is that of the file with the weights.
    """

    name: str
    path: str | None
    config_path: str | None
    hub: str | None
    builtin: str | None
    sha256: str | None
    options: Fields


@dataclass(frozen=True)
class JobContext:
    """Which run of which segment this is; engines that are no test engines do not look."""

    session: str
    segment: int
    attempt: int


@dataclass(frozen=True)
class SynthesisRequest:
    """One text to speak. `pitch` is in semitones; None means that the request does not say.

    `speaker_clip` is a file on this machine with somebody's speech, for models that can take on a voice.
    """

    model: str
    text: str
    voice: str | None
    language: str | None
    speed: float | None
    pitch: float | None
    seed: int | None
    options: Fields
    job: JobContext
    speaker_clip: str | None = None


def model_spec(payload: Fields) -> ModelSpec:
    """The `model` of a load request."""
    model = payload.fields("model")
    source = model.fields("source")
    path = source.optional_text("path", MAX_PATH_CHARS)
    hub = source.optional_text("hub", MAX_NAME_CHARS)
    builtin = source.optional_text("builtin", MAX_NAME_CHARS)
    if sum(bool(place) for place in (path, hub, builtin)) != 1:
        raise model.fail("source", "exactly one of path, hub and builtin is needed")
    return ModelSpec(
        name=model.text("name", MAX_NAME_CHARS),
        path=path,
        config_path=source.optional_text("configPath", MAX_PATH_CHARS),
        hub=hub,
        builtin=builtin,
        sha256=_sha256(model),
        options=model.optional_fields("options") or Fields({}, "model.options."),
    )


def _sha256(model: Fields) -> str | None:
    digest = model.optional_text("sha256", 64)
    if digest is not None and re.fullmatch(r"[0-9a-fA-F]{64}", digest) is None:
        raise model.fail("sha256", "64 hexadecimal digits are needed")
    return digest


def synthesis_request(payload: Fields) -> SynthesisRequest:
    """A synthesize request."""
    job = payload.optional_fields("job") or Fields({}, "job.")
    return SynthesisRequest(
        model=payload.text("model", MAX_NAME_CHARS),
        text=payload.text("text", MAX_TEXT_CHARS),
        voice=payload.optional_text("voice", MAX_NAME_CHARS),
        language=payload.optional_text("language", MAX_NAME_CHARS),
        speed=payload.optional_number("speed", *SPEED_RANGE),
        pitch=payload.optional_number("pitch", *PITCH_RANGE),
        seed=payload.optional_integer("seed", 0, MAX_SEED),
        options=payload.optional_fields("options") or Fields({}, "options."),
        job=JobContext(
            session=job.optional_text("session", MAX_NAME_CHARS) or "",
            segment=job.optional_integer("segment", 0, MAX_SEED) or 0,
            attempt=job.optional_integer("attempt", 0, 2**31) or 1,
        ),
        speaker_clip=payload.optional_text("speakerClip", MAX_PATH_CHARS),
    )
