"""Where a Coqui model comes from: a checkpoint on this machine, or a name of Coqui's hub.

Hub models go through Coqui's own manager, so that what a user has downloaded already is found. Its licence
question would wait on stdin for ever; here it is an error that says which variable answers it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from chorus_engine.errors import MODEL_NOT_FOUND, EngineError, load_failed
from chorus_engine.requests import ModelSpec

TERMS_VARIABLE = "COQUI_TOS_AGREED"
_CHECKPOINT_NAMES = ("model.pth", "model_file.pth", "best_model.pth")
_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """Files of a model. `checkpoint` may be a directory, for models that load themselves from one."""

    checkpoint: Path
    config: Path | None
    vocoder_checkpoint: Path | None = None
    vocoder_config: Path | None = None

    @property
    def config_path(self) -> Path:
        """The config file, told or beside the checkpoint."""
        if self.config is not None:
            return self.config
        folder = self.checkpoint if self.checkpoint.is_dir() else self.checkpoint.parent
        return folder / "config.json"

    @property
    def files(self) -> tuple[str, ...]:
        """All files that the voice is made of: a directory's own, or those that are named."""
        if self.checkpoint.is_dir():
            within = sorted(file for file in self.checkpoint.iterdir() if file.is_file())
            return tuple(str(file) for file in within)
        named = (self.checkpoint, self.config_path, self.vocoder_checkpoint, self.vocoder_config)
        return tuple(str(file) for file in named if file is not None and file.is_file())

    @property
    def checkpoint_file(self) -> Path:
        """The file with the weights."""
        if not self.checkpoint.is_dir():
            return self.checkpoint
        for name in _CHECKPOINT_NAMES:
            if (self.checkpoint / name).is_file():
                return self.checkpoint / name
        raise load_failed(f"no {' or '.join(_CHECKPOINT_NAMES)} in {self.checkpoint}")


def resolve(spec: ModelSpec) -> Source:
    """Files of the model that a load request names; downloads what the hub has and this machine has not."""
    if spec.path is not None:
        source = _local(spec.path, spec.config_path)
    elif spec.hub is not None:
        source = _from_hub(spec.hub)
    else:
        raise load_failed(f"the coqui engine has no builtin model {spec.builtin}")
    if spec.sha256 is not None:
        _verify(source.checkpoint_file, spec.sha256)
    return source


def _local(path: str, config_path: str | None) -> Source:
    checkpoint = Path(path)
    if not checkpoint.exists():
        raise load_failed(f"no such file or directory: {path}")
    source = Source(checkpoint, Path(config_path) if config_path else None)
    if not source.config_path.is_file():
        raise load_failed(f"no config at {source.config_path}")
    return source


def _verify(file: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() != expected.lower():
        raise load_failed(f"{file} has SHA-256 {digest.hexdigest()}, expected {expected}")


def _from_hub(name: str) -> Source:
    from TTS.utils.manage import ModelManager

    class UnattendedManager(ModelManager):
        """Coqui's manager without the question."""

        @staticmethod
        def ask_tos(model_full_path: str | os.PathLike[str]) -> bool:
            raise load_failed(
                f"model {name} asks for consent to its licence: set {TERMS_VARIABLE}=1 to give it",
                variable=TERMS_VARIABLE,
            )

    manager = UnattendedManager(progress_bar=False)
    try:
        checkpoint, config, item = manager.download_model(name)
    except (KeyError, ValueError) as error:
        message = f"Coqui's hub has no model {name}"
        raise EngineError(MODEL_NOT_FOUND, "hub", message) from error
    vocoder_name = item.get("default_vocoder")
    if vocoder_name is None:
        return Source(Path(checkpoint), _path(config))
    vocoder, vocoder_config, _ = manager.download_model(vocoder_name)
    return Source(Path(checkpoint), _path(config), Path(vocoder), _path(vocoder_config))


def _path(path: str | os.PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)
