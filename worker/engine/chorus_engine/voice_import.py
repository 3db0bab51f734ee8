"""Imports a Piper voice as a Coqui checkpoint: `python -m chorus_engine.voice_import FILE.onnx OUTDIR`.

Writes model.pth, config.json and origin.json. Standard output carries JSON lines: progress, and at the end
one line "done" or "error". The checkpoint is made in a folder beside OUTDIR and renamed when it has spoken
a word, so OUTDIR holds a whole voice or is not there. Exit status 0, or 3 when the voice is refused or
cannot be written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

EXIT_REFUSED = 3
SEED = 0
CHECK_TEXT = "Hello."


def import_voice(source: Path, description_path: Path, outdir: Path, prepare: bool = False) -> dict[str, Any]:
    """Imports a voice; what was made. With `prepare`, what its first load would make is made too.

    Raises `piper.Refused` or OSError, and leaves nothing behind then.
    """
    tell(event="progress", stage="import")
    from chorus_engine import phonemes, piper

    phonemes.install()
    if outdir.exists() and (not outdir.is_dir() or any(outdir.iterdir())):
        raise piper.Refused("exists", f"{outdir} is there already")
    tell(event="progress", stage="read")
    description = piper.describe(description_path)
    graph = piper.Graph(source)
    tell(event="progress", stage="convert")
    config, weights = convert(description, graph)
    origin = {"source": source.name, "sha256": _sha256(source), "description": description_path.name}
    outdir.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{outdir.name}-", dir=outdir.parent))
    try:
        tell(event="progress", stage="write")
        _write(draft, config, weights, origin)
        tell(event="progress", stage="check")
        samples = _check(draft, prepare)
        draft.chmod(0o755)
        draft.rename(outdir)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    parameters = sum(weight.numel() for weight in weights.values())
    return {
        "outdir": str(outdir),
        "sampleRate": description.sample_rate,
        "language": description.language,
        "parameters": parameters,
        "checkSamples": samples,
    }


def convert(description: Any, graph: Any) -> tuple[Any, dict[str, Any]]:
    """Coqui's config and weights for a voice that was read."""
    import torch
    from TTS.tts.models.vits import Vits

    from chorus_engine import piper

    config = coqui_config(description, piper.sizes(graph))
    torch.manual_seed(SEED)
    vits = Vits(config)
    symbols = vits.tokenizer.characters.vocab
    rows = [description.symbols[piper.PAD if symbol == piper.BLANK else symbol] for symbol in symbols]
    known = graph.shape("enc_p.emb.weight")[0]
    if max(rows) >= known:
        raise piper.Refused("unreadable", f"the description counts more symbols than the network's {known}")
    return config, piper.transfer(graph, rows, vits.state_dict())


def coqui_config(description: Any, sizes: Any) -> Any:
    """A Coqui config for a voice; the posterior encoder, of no use here, is as small as can be."""
    from TTS.config.shared_configs import BaseAudioConfig
    from TTS.tts.configs.shared_configs import CharactersConfig
    from TTS.tts.configs.vits_config import VitsArgs, VitsConfig

    from chorus_engine import piper

    characters, punctuation = piper.vocabulary(description)
    arguments = VitsArgs(
        hidden_channels=sizes.hidden_channels,
        hidden_channels_ffn_text_encoder=sizes.ffn_channels,
        num_heads_text_encoder=sizes.heads,
        num_layers_text_encoder=sizes.encoder_layers,
        kernel_size_text_encoder=sizes.encoder_kernel,
        num_layers_posterior_encoder=1,
        resblock_type_decoder=sizes.resblock_type,
        resblock_kernel_sizes_decoder=sizes.resblock_kernels,
        resblock_dilation_sizes_decoder=sizes.resblock_dilations,
        upsample_rates_decoder=sizes.upsample_rates,
        upsample_kernel_sizes_decoder=sizes.upsample_kernels,
        upsample_initial_channel_decoder=sizes.upsample_channels,
        inference_noise_scale=description.noise_scale,
        inference_noise_scale_dp=description.noise_scale_dp,
        length_scale=description.length_scale,
        init_discriminator=False,
    )
    hop = sizes.hop_length
    audio = BaseAudioConfig(
        sample_rate=description.sample_rate, hop_length=hop, win_length=4 * hop, fft_size=1024, num_mels=80
    )
    return VitsConfig(
        model_args=arguments,
        audio=audio,
        use_phonemes=True,
        phonemizer="espeak",
        phoneme_language=description.language,
        text_cleaner=None,
        add_blank=True,
        enable_eos_bos_chars=True,
        characters=CharactersConfig(
            characters_class="TTS.tts.utils.text.characters.IPAPhonemes",
            pad=piper.PAD,
            bos=piper.BOS,
            eos=piper.EOS,
            blank=piper.BLANK,
            characters=characters,
            punctuations=punctuation,
            is_unique=True,
            is_sorted=True,
        ),
    )


def _write(draft: Path, config: Any, weights: dict[str, Any], origin: dict[str, str]) -> None:
    """Writes the files and waits until they are on disk."""
    import torch

    torch.save({"model": weights}, draft / "model.pth")
    config.save_json(str(draft / "config.json"))
    (draft / "origin.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    for file in draft.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _check(draft: Path, prepare: bool) -> int:
    """Loads the voice as the engine does and speaks a word; its number of samples."""
    from chorus_engine import piper
    from chorus_engine.errors import EngineError

    try:
        samples = _load(draft, prepare).sample(CHECK_TEXT)
    except EngineError as error:
        raise piper.Refused("unspeakable", f"the imported voice does not speak: {error}") from error
    return len(samples) // 2


def _load(folder: Path, prepare: bool) -> Any:
    """The voice; with `prepare` by the whole of the engine's way, which exports, measures and keeps."""
    from chorus_engine.engines import vits_load
    from chorus_engine.engines.base import EngineConfig
    from chorus_engine.engines.coqui import CoquiEngine
    from chorus_engine.fields import Fields
    from chorus_engine.requests import ModelSpec

    model, config = folder / "model.pth", folder / "config.json"
    if not prepare:
        return vits_load.load(config, model, "cpu")
    spec = ModelSpec(folder.name, str(model), str(config), None, None, None, Fields({}, ""))
    return CoquiEngine(EngineConfig()).load(spec, lambda stage: tell(event="progress", stage=stage))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tell(**line: Any) -> None:
    """One JSON line on the descriptor that was standard output."""
    os.write(_out, (json.dumps(line, ensure_ascii=False) + "\n").encode())


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(prog="chorus_engine.voice_import", description="Imports a Piper voice.")
    parser.add_argument("voice", type=Path, help="the voice's .onnx file")
    parser.add_argument("outdir", type=Path, help="the folder to make")
    parser.add_argument("--config", type=Path, help="its .onnx.json file, if not beside it")
    parser.add_argument("--prepare", action="store_true", help="make what the first load would make, too")
    options = parser.parse_args()
    description_path = options.config or options.voice.with_name(options.voice.name + ".json")
    # Imported late: torch, whose import the first line of progress should precede.
    try:
        done = import_voice(options.voice, description_path, options.outdir.absolute(), options.prepare)
    except OSError as error:
        tell(event="error", reason="io", message=str(error))
        return EXIT_REFUSED
    except Exception as error:
        reason = getattr(error, "reason", None)
        if reason is None:
            raise
        tell(event="error", reason=reason, message=str(error))
        return EXIT_REFUSED
    tell(event="done", **done)
    return 0


_out = 1
if __name__ == "__main__":
    # Libraries print to stdout; the JSON lines get it for themselves.
    _out = os.dup(1)
    os.dup2(2, 1)
    sys.exit(main())
