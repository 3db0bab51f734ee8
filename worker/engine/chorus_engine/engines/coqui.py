"""The Coqui engine: any model of Coqui TTS, from a path on this machine or from Coqui's hub.

This module is imported before the handshake, so it imports nothing heavy: torch and Coqui cost seconds and
come on the loader's thread, right after the handshake is answered. VITS models, which most voices are, are
spoken directly (`vits`), XTTS as a stream (`xtts`), all others through Coqui's synthesizer (`other_models`).
"""

from __future__ import annotations

import logging
import os
from typing import Any

from chorus_engine import cache_folder, host
from chorus_engine.cache_folder import CacheFolder
from chorus_engine.engines import coqui_source
from chorus_engine.engines.base import Capabilities, Engine, EngineConfig, Model, Progress
from chorus_engine.engines.coqui_source import Source
from chorus_engine.engines.tuning import Asked
from chorus_engine.requests import ModelSpec

log = logging.getLogger(__name__)


class CoquiEngine(Engine):
    """Loads Coqui models onto the GPU where torch can use one, else the CPU."""

    name = "coqui"

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.library = host.library_version("coqui-tts")
        self._cores = host.usable_cores()
        self._lanes = config.lanes or 1
        self._threads = config.threads or max(1, self._cores // self._lanes)
        self._prepared = False

    def device(self) -> dict[str, Any]:
        """The GPU if the driver tells of one, else the CPU."""
        return host.cuda_device(self._threads) or host.cpu_device(self._threads)

    @property
    def capabilities(self) -> Capabilities:
        """VITS and XTTS change speed, XTTS streams and takes on voices; no Coqui model changes pitch."""
        return Capabilities(streaming=True, speed=True, speaker_clip=True, lanes=self._lanes)

    def prepare(self) -> None:
        """Imports torch and Coqui and puts the in-process phonemizer in place."""
        if self._prepared:
            return
        logging.getLogger("TTS").setLevel(logging.WARNING)
        # OpenMP reads it as torch comes in. Its threads would spin while they wait for each other: that
        # makes a sentence a fifth faster on an idle host, and up to ten times slower on a busy one.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch
        import TTS.tts.models.vits  # noqa: F401 (the import is the work)

        from chorus_engine import phonemes

        torch.set_num_threads(self._threads)
        phonemes.install()
        self._prepared = True

    def load(self, spec: ModelSpec, progress: Progress) -> Model:
        """Loads a model by path or hub name."""
        progress("import")
        self.prepare()
        progress("load")
        from chorus_engine.engines.vits_load import Settings

        source = coqui_source.resolve(spec)
        device = _device()
        settings = Settings(
            cores=self._cores,
            asked=Asked(self.config.threads, self.config.lanes, self.config.max_batch),
            cache=CacheFolder(cache_folder.default_place()),
            progress=progress,
        )
        model = _load(source, device, settings, self.config.threads or self._cores)
        model.files = source.files
        log.info("loaded model %s on %s: %s", spec.name, device, model.tuning or "as it comes")
        return model


def _load(source: Source, device: str, settings: Any, threads: int) -> Model:
    from TTS.config import load_config
    from TTS.tts.models.vits import Vits

    from chorus_engine.engines import other_models, vits_load, xtts

    kind = None if "fairseq" in str(source.checkpoint) else load_config(str(source.config_path)).model
    if kind == "vits":
        return vits_load.load(source.config_path, source.checkpoint_file, device, settings)
    if kind == "xtts":
        return xtts.load(source.config_path, source.checkpoint_file, device, threads)
    loaded = other_models.synthesizer(source, device)
    if isinstance(loaded.tts_model, Vits):
        return vits_load.prepare(loaded.tts_model, settings)
    return other_models.SynthesizerModel(loaded, threads)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
