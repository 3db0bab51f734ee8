"""Phonemes in process are those of Coqui's own phonemizer.

The reference is Coqui's `ESpeak` class over an `espeak-ng` command. A fresh machine has none, so the test
makes one: it prints the library's phoneme trace of a whole synthesis, which is what the real command does.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support import ENGINE_ROOT

from chorus_engine import phonemes

SENTENCES = [
    "Hello world.",
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "Wait... what? No! Yes; maybe: perhaps, never.",
    "“Quoted,” she said — and left…",
    "(In brackets) and - with - dashes, semi;colons",
    "Dr. Smith's dog cost $5.50, i.e. 50% more than 3.5 kg in 1999.",
    "A naïve café in São Paulo, Zürich & Łódź",
    "  leading and trailing space  ",
    "line one\nline two\n\nparagraph two",
    "...",
    "¿Qué? ¡Ay! «oui»",
    "ALL CAPS and MixedCase, e-mail@example.com http://example.com/a?b=c",
    "Под 日本語 한국어 हिन्दी 🎉",
    "one_two [[h@l'oU]] <tag> *star* #hash",
    "a",
    "the",
    "what",
    "word " * 400,
]

COMMAND = '''#!{python}
"""The parts of the espeak-ng command that Coqui uses."""
import ctypes, sys
import espeakng_loader

library = ctypes.CDLL(espeakng_loader.get_library_path())
libc = ctypes.CDLL(None)
if "--version" in sys.argv:
    print("eSpeak NG text-to-speech: 1.52.0  Data at: x")
    sys.exit()
library.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0x8000)
if "--voices" in sys.argv:
    print("Pty Language Age/Gender VoiceName File Other")
    for code in ("en-us", "de", "fr-fr"):
        print(" 5 ", code, " --/M ", code, " x")
    sys.exit()
option = {{sys.argv[i]: sys.argv[i + 1] for i in range(1, len(sys.argv) - 1)}}
assert "--ipa=1" in sys.argv and option["-b"] == "1"
assert library.espeak_SetVoiceByName(option["-v"].encode()) == 0
libc.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(lambda *_: 0)
library.espeak_SetSynthCallback(callback)
library.espeak_SetPhonemeTrace(0x02 | ord("_") << 8, stream)
text = open(option["-f"], "rb").read() + b"\\0"
library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, 1 | 0x100 | 0x1000, None, None)
library.espeak_Synchronize()
libc.fflush(stream)
'''

REFERENCE = """
import json, sys
from TTS.tts.utils.text.phonemizers.espeak_wrapper import ESpeak
language, sentences = json.load(sys.stdin)
phonemizer = ESpeak(language)
json.dump([phonemizer.phonemize(sentence, separator="") for sentence in sentences], sys.stdout)
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> Path:
    """A folder with an `espeak-ng` command over the library."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "espeak-ng"
    script.write_text(COMMAND.format(python=sys.executable), encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.mark.parametrize("language", ["en-us", "de"])
def test_same_as_coquis_own(command, language):
    import json

    from TTS.tts.utils.text import phonemizers

    result = subprocess.run(
        [sys.executable, "-c", REFERENCE],
        input=json.dumps([language, SENTENCES]),
        env={**os.environ, "PATH": f"{command}:{os.environ['PATH']}", "PYTHONPATH": str(ENGINE_ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = json.loads(result.stdout)
    assert phonemes.install()
    ours = phonemizers.get_phonemizer_by_name("espeak", language=language)
    for sentence, phoneme in zip(SENTENCES, expected, strict=True):
        assert ours.phonemize(sentence, separator="") == phoneme, sentence


def test_known_phonemes():
    assert phonemes.phonemize_piece("Hello world", "en-us") == "həlˈoʊ wˈɜːld"
    assert phonemes.phonemize_piece("Hallo Welt", "de") == "hˈaloː vˈɛlt"
    assert phonemes.phonemize_piece("हिन्दी", "en-us") == "hˈɪndi"


def test_nul_does_not_end_the_text():
    spaced = phonemes.phonemize_piece("Hello world", "en-us")
    assert phonemes.phonemize_piece("Hello\0world", "en-us") == spaced


def test_unknown_language_is_a_load_error():
    from chorus_engine.errors import EngineError

    with pytest.raises(EngineError) as refusal:
        phonemes.phonemize_piece("x", "no-such-language")
    assert refusal.value.code == "INIT_FAILED"
    assert phonemes.phonemize_piece("Hello world", "en-us") == "həlˈoʊ wˈɜːld"


def test_languages_of_the_library():
    assert {"en-us", "de", "fr-fr", "cmn"} <= phonemes.library().languages().keys()
