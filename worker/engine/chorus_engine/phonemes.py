"""Text to phonemes with eSpeak NG inside this process.

Coqui runs an `espeak-ng` command for every piece of a sentence: 14 to 18 ms each, and a command that a
fresh machine does not have. The same library, loaded from the package `espeakng-loader`, needs 1 to 3 ms a
sentence. It is asked as the command asks it: by a whole synthesis, of which only the phoneme trace is kept
(so at the library's fastest pace: less audio is made, and the phonemes are the same).
Its function for phonemes alone is faster still, but knows nothing of the sentence's melody and stresses
some words otherwise ("what", "a"). What Coqui does around the command (cutting at punctuation, dropping
language marks, joining) is kept, so the phonemes are the same to the character.

`install` puts it in the place of Coqui's own class; a model whose phonemizer is another one never notices.
"""

from __future__ import annotations

import ctypes
import logging
import re
import threading
from functools import lru_cache

from chorus_engine.errors import load_failed

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_RATE = 1
# Words a minute. Above 450 the library makes audio at its usual pace and shortens it: slower.
_FASTEST = 449
_INITIALIZE_DONT_EXIT = 0x8000
_POSITION_CHARACTER = 1
_PHONEMES_IPA = 0x02
# UTF-8, phoneme codes in double brackets, pause at the end: the flags of the command.
_SYNTHESIS_FLAGS = 0x01 | 0x100 | 0x1000
# The command's `--ipa=1` puts a mark between phonemes, which Coqui then replaces by its separator.
_MARK = "_"
_LANGUAGE_SWITCH = re.compile(r"\(.+?\)")
# Coqui's own names for two languages.
_ALIASES = {"en": "en-us", "zh-cn": "cmn"}

# Takes the audio, which nobody wants; 0 means "go on".
_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

log = logging.getLogger(__name__)


class _Voice(ctypes.Structure):
    """`espeak_VOICE`; `languages` is a priority byte and a name, NUL-terminated, repeated."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


class Espeak:
    """The library, with one voice set at a time. It keeps global state, so every call holds a lock."""

    def __init__(self) -> None:
        import espeakng_loader

        self._lock = threading.Lock()
        self._voice = ""
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._libc = ctypes.CDLL(None)
        self._declare()
        # The library writes the trace to a C stream; this one is memory. It lives as long as the process.
        self._text, self._text_bytes = ctypes.c_void_p(), ctypes.c_size_t()
        self._trace = self._libc.open_memstream(ctypes.byref(self._text), ctypes.byref(self._text_bytes))
        self._callback = _SynthCallback(lambda samples, count, events: 0)
        data = espeakng_loader.get_data_path().encode()
        rate = self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, _INITIALIZE_DONT_EXIT)
        if rate <= 0:
            raise OSError(f"espeak-ng did not start: {rate}")
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_SetParameter(_RATE, _FASTEST, 0)
        self._library.espeak_SetPhonemeTrace(_PHONEMES_IPA | ord(_MARK) << 8, self._trace)

    def _declare(self) -> None:
        library = self._library
        library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        library.espeak_ListVoices.argtypes = [ctypes.c_void_p]
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        library.espeak_SetSynthCallback.argtypes = [_SynthCallback]
        library.espeak_SetPhonemeTrace.argtypes = [ctypes.c_int, ctypes.c_void_p]
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self._libc.open_memstream.argtypes = [
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.POINTER(ctypes.c_size_t),
        ]
        self._libc.open_memstream.restype = ctypes.c_void_p
        self._libc.fseek.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
        self._libc.fflush.argtypes = [ctypes.c_void_p]
        library.espeak_Info.argtypes = [ctypes.c_void_p]
        library.espeak_Info.restype = ctypes.c_char_p

    def version(self) -> str:
        """Version of the library."""
        return self._library.espeak_Info(None).decode().split()[0]

    def languages(self) -> dict[str, str]:
        """Language codes and the names of their voices."""
        found: dict[str, str] = {}
        with self._lock:
            voices = self._library.espeak_ListVoices(None)
            index = 0
            while voices[index]:
                voice = voices[index].contents
                found[voice.languages[1:].decode()] = voice.name.decode()
                index += 1
        return found

    def clauses(self, text: str, language: str) -> list[str]:
        """Phonemes of a text, a string for each clause that espeak sees in it, marks between phonemes."""
        source = text.replace("\0", " ").encode("utf-8")
        with self._lock:
            self._set_voice(language)
            self._libc.fseek(self._trace, 0, 0)
            status = self._library.espeak_Synth(
                source, len(source) + 1, 0, _POSITION_CHARACTER, 0, _SYNTHESIS_FLAGS, None, None
            )
            self._libc.fflush(self._trace)
            trace = ctypes.string_at(self._text, self._text_bytes.value)
        if status != 0:
            raise OSError(f"espeak-ng failed: {status}")
        return trace.decode("utf-8", "replace").splitlines()

    def _set_voice(self, language: str) -> None:
        if language == self._voice:
            return
        if self._library.espeak_SetVoiceByName(language.encode()) != 0:
            raise load_failed(f"espeak-ng has no language {language}")
        self._voice = language


@lru_cache(maxsize=1)
def library() -> Espeak:
    """The one library of this process, started at first use."""
    return Espeak()


def phonemize_piece(text: str, language: str, separator: str = "") -> str:
    """Phonemes of a piece of text as Coqui reads them off the command's output."""
    clauses = (
        _LANGUAGE_SWITCH.sub("", clause.strip()).strip() for clause in library().clauses(text, language)
    )
    return "".join(clauses).replace(_MARK, separator)


def install() -> bool:
    """Makes Coqui use this library for models that ask for espeak. False where the library does not load."""
    from TTS.tts.utils.text import phonemizers
    from TTS.tts.utils.text.phonemizers.base import BasePhonemizer
    from TTS.tts.utils.text.punctuation import Punctuation

    try:
        version = library().version()
    except (ImportError, OSError, AttributeError) as error:
        log.warning("espeak-ng does not load, phonemes come from a command if there is one: %s", error)
        return False

    class InProcessEspeak(BasePhonemizer):
        """Coqui's phonemizer over the library; what it inherits cuts at punctuation and puts it back."""

        def __init__(
            self, language: str, punctuations: str | None = None, *, keep_puncs: bool = True
        ) -> None:
            marks = Punctuation.default_puncs() if punctuations is None else punctuations
            super().__init__(_ALIASES.get(language, language), punctuations=marks, keep_puncs=keep_puncs)

        def _phonemize(self, text: str, separator: str = "") -> str:
            return phonemize_piece(text, self._language, separator)

        @staticmethod
        def name() -> str:
            return "espeak"

        @staticmethod
        def supported_languages() -> dict[str, str]:
            return library().languages()

        @classmethod
        def is_available(cls) -> bool:
            return True

        def version(self) -> str:
            return version

    # Coqui fills its table of phonemizers at first use, from this name.
    phonemizers.ESpeak = InProcessEspeak
    return True
