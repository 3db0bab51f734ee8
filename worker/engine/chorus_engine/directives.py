"""The directives of the checkable engine: `[[name key=value …]]` in a text makes the engine misbehave.

`parse` takes them out of the text. A directive with `attempts=1-2` (or `attempts=1`) is active only in
those attempts of a segment, so that a test can let a first attempt crash and the second succeed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chorus_engine.errors import INVALID_REQUEST, EngineError

_DIRECTIVE = re.compile(r"\[\[([^\[\]]*)\]\]")
_COMMON = frozenset({"attempts"})
_KEYS: dict[str, frozenset[str]] = {
    "crash": frozenset({"after"}),
    "exit": frozenset({"after", "code"}),
    "hang": frozenset({"after"}),
    "stall": frozenset({"after", "ms"}),
    "truncate": frozenset({"after"}),
    "stderr": frozenset({"bytes"}),
    "stdout": frozenset({"bytes"}),
    "garbage": frozenset({"bytes"}),
    "slow": frozenset({"ms"}),
    "allocate": frozenset({"mb"}),
    "leak": frozenset({"mb"}),
    "silence": frozenset(),
    "clip": frozenset(),
    "short": frozenset(),
    "badcrc": frozenset(),
    "dropchunk": frozenset(),
    "oversize": frozenset(),
    "error": frozenset({"code", "reason", "retryable"}),
}
_WORDS = frozenset({"attempts", "reason", "retryable"})


@dataclass(frozen=True)
class Directive:
    """One directive and its arguments, checked: numbers are whole numbers, words are words."""

    name: str
    arguments: dict[str, str]

    def number(self, key: str, default: int) -> int:
        """A whole number given as an argument."""
        value = self.arguments.get(key)
        return default if value is None else int(value)

    def word(self, key: str, default: str) -> str:
        """A word given as an argument."""
        return self.arguments.get(key, default)

    def active(self, attempt: int) -> bool:
        """Whether it applies to this attempt (counted from 1)."""
        first, _, last = self.word("attempts", f"{attempt}").partition("-")
        return int(first) <= attempt <= int(last or first)


def parse(text: str) -> tuple[str, list[Directive]]:
    """The text without directives and outer white space, and the directives in their order."""
    directives = [_directive(match.group(1)) for match in _DIRECTIVE.finditer(text)]
    return _DIRECTIVE.sub("", text).strip(), directives


def _directive(inside: str) -> Directive:
    name, *pairs = inside.split() or [""]
    if name not in _KEYS:
        raise _invalid(f"unknown directive: {name}")
    arguments: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in _KEYS[name] | _COMMON:
            raise _invalid(f"directive {name} has no argument {key}")
        _check(name, key, value)
        arguments[key] = value
    return Directive(name, arguments)


def _check(name: str, key: str, value: str) -> None:
    if key == "attempts":
        fits = re.fullmatch(r"\d{1,6}(-\d{1,6})?", value)
    elif key in _WORDS or (name, key) == ("error", "code"):
        fits = re.fullmatch(r"\w{1,64}", value)
    else:
        fits = re.fullmatch(r"\d{1,9}", value)
    if fits is None:
        raise _invalid(f"directive {name}: bad value for {key}: {value[:40]}")


def _invalid(message: str) -> EngineError:
    return EngineError(INVALID_REQUEST, "directive", message)
