"""What a model can say of a text: characters to tokens, and an account of those that got lost.

Coqui drops what it does not know with a line in its log, and still returns audio. A listener should be
told: a text of which nothing can be said is refused, and one that loses characters comes with a warning
that names them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# Letters, numbers and the symbols that are read aloud. Marks, punctuation and spaces are silent by nature.
_SPOKEN_CATEGORIES = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Nl", "No", "Sc", "Sm", "So"})


@dataclass(frozen=True)
class Tokens:
    """Token ids as the model takes them, and the distinct characters that are not in them."""

    ids: list[int]
    dropped: str
    speakable: bool


class Speller:
    """Coqui's tokenizer, asked in a way that several lanes may use at once."""

    def __init__(self, tokenizer: Any) -> None:
        from TTS.tts.utils.languages import normalize_language

        self._tokenizer = tokenizer
        self._normalize_language = normalize_language
        characters = tokenizer.characters
        silent = {characters.pad, characters.eos, characters.bos, characters.blank, " "}
        silent.update(getattr(characters, "punctuations", "") or "")
        self._sounds = frozenset(characters.vocab) - silent
        self._is_said = lru_cache(maxsize=4096)(self._say_alone)

    def spell(self, text: str, language: str | None) -> Tokens:
        """Tokens of a text, by the steps of Coqui's `text_to_ids`."""
        tokenizer = self._tokenizer
        if tokenizer.text_cleaner is not None:
            text = tokenizer.text_cleaner(text, lang=self._normalize_language(language))
        dropped: dict[str, None] = {}
        if tokenizer.phonemizer:
            text, dropped = self._without_unsaid(text, language)
            text = tokenizer.phonemizer.phonemize(text, separator="", language=language)
        else:
            dropped = {char: None for char in text if not char.isspace() and not self._knows(char)}
        known = [char for char in self._decomposed(text) if self._knows(char)]
        ids = [tokenizer.characters.char_to_id(char) for char in known]
        if tokenizer.add_blank:
            ids = tokenizer.intersperse_blank_char(ids)
        if tokenizer.use_eos_bos:
            ids = tokenizer.pad_with_bos_eos(ids)
        return Tokens(ids, "".join(dropped)[:64], any(char in self._sounds for char in known))

    def _decomposed(self, text: str) -> Iterator[str]:
        """Characters of a text, those that the vocabulary lacks as their parts (imported voices need it)."""
        for char in text:
            yield from char if self._knows(char) else unicodedata.normalize("NFD", char)

    def _knows(self, char: str) -> bool:
        try:
            self._tokenizer.characters.char_to_id(char)
        except KeyError:
            return False
        return True

    def _without_unsaid(self, text: str, language: str | None) -> tuple[str, dict[str, None]]:
        """The text without characters that the phonemizer has no sound for, and those characters."""
        if text.isascii() and text.replace(" ", "").isalnum():
            return text, {}
        composed = unicodedata.normalize("NFC", text)
        dropped = {char: None for char in composed if not self._is_said(char, language)}
        if not dropped:
            return text, {}
        return "".join(" " if char in dropped else char for char in composed), dropped

    def _say_alone(self, char: str, language: str | None) -> bool:
        """Whether a character, alone, has a sound of its own.

        Of scripts that it does not read, espeak says only the name ("Chinese letter" for each of
        them). So a letter of a script without case that sounds like both of its neighbours is not said.
        """
        if (char.isascii() and char.isalnum()) or unicodedata.category(char) not in _SPOKEN_CATEGORIES:
            return True
        sound = self._sound(char, language)
        if not sound:
            return False
        if unicodedata.category(char) not in ("Lo", "Lm"):
            return True
        neighbours = (chr(ord(char) - 1), chr(min(ord(char) + 1, 0x10FFFF)))
        return any(self._sound(neighbour, language) != sound for neighbour in neighbours)

    def _sound(self, char: str, language: str | None) -> str:
        phonemes = self._tokenizer.phonemizer.phonemize(char, separator="", language=language)
        return "".join(sound for sound in phonemes if sound in self._sounds)
