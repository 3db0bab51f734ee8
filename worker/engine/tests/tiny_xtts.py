"""A small XTTS with random weights, made by Coqui's own classes: the real one's code paths, no speech."""

from __future__ import annotations

from pathlib import Path

SEED = 20_261_127
CHANNELS = 64
AUDIO_CODES = 20
LANGUAGES = ["en", "de"]


def make(folder: Path) -> None:
    """Writes model.pth, config.json, vocab.json and speakers_xtts.pth with the voices ann and bob."""
    import torch
    from TTS.tts.configs.xtts_config import XttsArgs, XttsConfig
    from TTS.tts.models.xtts import Xtts

    folder.mkdir(parents=True, exist_ok=True)
    _write_vocabulary(folder / "vocab.json")
    sizes = XttsArgs(
        gpt_layers=2,
        gpt_n_model_channels=CHANNELS,
        gpt_n_heads=4,
        gpt_max_audio_tokens=AUDIO_CODES + 6,
        gpt_max_text_tokens=402,
        gpt_num_audio_tokens=66,
        gpt_start_audio_token=64,
        gpt_stop_audio_token=65,
        gpt_use_perceiver_resampler=True,
        decoder_input_dim=CHANNELS,
        tokenizer_file=str(folder / "vocab.json"),
    )
    config = XttsConfig(model_args=sizes, languages=LANGUAGES)
    torch.manual_seed(SEED)
    model = Xtts(config)
    from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer

    model.tokenizer = VoiceBpeTokenizer(vocab_file=folder / "vocab.json")
    model.init_models()
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    config.save_json(str(folder / "config.json"))
    voices = {
        name: {
            "gpt_cond_latent": torch.randn(1, 32, CHANNELS),
            "speaker_embedding": torch.nn.functional.normalize(torch.randn(1, 512, 1), dim=1),
        }
        for name in ("ann", "bob")
    }
    torch.save(voices, folder / "speakers_xtts.pth")


def _write_vocabulary(file: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Whitespace

    special = ["[STOP]", "[UNK]", "[SPACE]", *(f"[{language}]" for language in LANGUAGES), "[START]"]
    names = [*special, *"abcdefghijklmnopqrstuvwxyzäöüß0123456789!'(),-.:;?"]
    tokenizer = Tokenizer(BPE({name: index for index, name in enumerate(names)}, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(file))
