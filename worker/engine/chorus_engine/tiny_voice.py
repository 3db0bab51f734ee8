"""A tiny VITS voice with random weights, for tests that need a model and no intelligible speech.

`python -m chorus_engine.tiny_voice OUTDIR [--phonemes] [--speakers A,B] [--languages en,de]` writes
model.pth and config.json, made by Coqui's own classes: about 0.4 million parameters, the same ones every
time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SEED = 20_261_122
SAMPLE_RATE = 22_050
HIDDEN = 32
GRAPHEMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PUNCTUATION = "!'(),-.:;? "


def make(
    folder: Path,
    use_phonemes: bool = False,
    speakers: tuple[str, ...] = (),
    languages: tuple[str, ...] = (),
) -> int:
    """Writes the voice into a folder (made if it is not there); its number of parameters."""
    import torch
    from TTS.tts.models.vits import Vits

    from chorus_engine import phonemes

    phonemes.install()
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(use_phonemes)
    if speakers:
        _add_speakers(config, folder, speakers)
    if languages:
        _add_languages(config, folder, languages)
    torch.manual_seed(SEED)
    vits = Vits(config)
    torch.save({"model": vits.state_dict()}, folder / "model.pth")
    config.save_json(str(folder / "config.json"))
    return sum(parameter.numel() for parameter in vits.parameters())


def _config(use_phonemes: bool) -> Any:
    from TTS.config.shared_configs import BaseAudioConfig
    from TTS.tts.configs.shared_configs import CharactersConfig
    from TTS.tts.configs.vits_config import VitsArgs, VitsConfig
    from TTS.tts.utils.text.characters import IPAPhonemes

    characters = CharactersConfig(
        characters_class="TTS.tts.utils.text.characters.Graphemes",
        pad="<PAD>",
        eos="<EOS>",
        bos="<BOS>",
        blank="<BLNK>",
        characters=GRAPHEMES,
        punctuations=PUNCTUATION,
        is_unique=False,
        is_sorted=True,
    )
    return VitsConfig(
        model_args=VitsArgs(**_sizes()),
        audio=BaseAudioConfig(
            sample_rate=SAMPLE_RATE, fft_size=1024, hop_length=256, win_length=1024, num_mels=80
        ),
        use_phonemes=use_phonemes,
        phonemizer="espeak" if use_phonemes else None,
        phoneme_language="en-us" if use_phonemes else None,
        text_cleaner=None,
        add_blank=True,
        characters=IPAPhonemes().to_config() if use_phonemes else characters,
    )


def _sizes() -> dict[str, Any]:
    """The network, as small as its classes allow (the duration predictor's 192 filters are fixed)."""
    return {
        "hidden_channels": HIDDEN,
        "hidden_channels_ffn_text_encoder": HIDDEN,
        "num_heads_text_encoder": 2,
        "num_layers_text_encoder": 1,
        "num_layers_posterior_encoder": 1,
        "num_layers_flow": 1,
        "resblock_type_decoder": "2",
        "resblock_kernel_sizes_decoder": [3],
        "resblock_dilation_sizes_decoder": [[1, 2]],
        "upsample_rates_decoder": [8, 8, 4],
        "upsample_initial_channel_decoder": 32,
        "upsample_kernel_sizes_decoder": [16, 16, 8],
        "use_sdp": False,
        "init_discriminator": False,
    }


def _add_speakers(config: Any, folder: Path, speakers: tuple[str, ...]) -> None:
    """Gives the model an embedding per speaker and the file with their names."""
    file = folder / "speakers.json"
    file.write_text(json.dumps({name: index for index, name in enumerate(speakers)}), encoding="utf-8")
    config.model_args.use_speaker_embedding = True
    config.model_args.speaker_embedding_channels = HIDDEN
    config.model_args.num_speakers = len(speakers)
    config.model_args.speakers_file = str(file.resolve())
    config.use_speaker_embedding = True
    config.num_speakers = len(speakers)
    config.speakers_file = str(file.resolve())


def _add_languages(config: Any, folder: Path, languages: tuple[str, ...]) -> None:
    """Gives the model an embedding per language and the file with their names."""
    file = folder / "languages.json"
    file.write_text(json.dumps({name: index for index, name in enumerate(languages)}), encoding="utf-8")
    config.model_args.use_language_embedding = True
    config.model_args.embedded_language_dim = 4
    config.model_args.num_languages = len(languages)
    config.model_args.language_ids_file = str(file.resolve())
    config.use_language_embedding = True
    config.language_ids_file = str(file.resolve())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="chorus_engine.tiny_voice", description="Makes a tiny random voice."
    )
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--phonemes", action="store_true", help="espeak phonemes instead of letters")
    parser.add_argument("--speakers", default="", help="names, with commas between")
    parser.add_argument("--languages", default="", help="codes, with commas between")
    options = parser.parse_args()
    speakers, languages = (
        tuple(name for name in names.split(",") if name) for names in (options.speakers, options.languages)
    )
    count = make(options.outdir, options.phonemes, speakers, languages)
    print(json.dumps({"outdir": str(options.outdir), "parameters": count}))


if __name__ == "__main__":
    main()
