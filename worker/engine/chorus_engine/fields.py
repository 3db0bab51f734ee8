"""Typed reading of payloads: each field is checked for type and range, and an error names the field.

Unknown fields are ignored, absent optional ones are None (a field sent as nil counts as absent).
"""

from __future__ import annotations

import math
from typing import Any

from chorus_engine.errors import EngineError, invalid_field


class Fields:
    """One map of a payload; `path` is the prefix that errors put before a field's name."""

    def __init__(self, values: dict[Any, Any], path: str = "") -> None:
        self._values = values
        self._path = path

    def name(self, field: str) -> str:
        """The field as errors call it, `model.source` for example."""
        return f"{self._path}{field}"

    def fail(self, field: str, message: str) -> EngineError:
        """An error about one field."""
        return invalid_field(self.name(field), message)

    def optional_text(self, field: str, max_chars: int) -> str | None:
        """A string of at most `max_chars` characters, or None."""
        value = self._values.get(field)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.fail(field, f"a string is needed, not {_kind(value)}")
        if len(value) > max_chars:
            raise self.fail(field, f"at most {max_chars} characters, not {len(value)}")
        return value

    def text(self, field: str, max_chars: int) -> str:
        """A string that must be there and not be empty."""
        value = self.optional_text(field, max_chars)
        if not value:
            raise self.fail(field, "is missing" if value is None else "must not be empty")
        return value

    def optional_number(self, field: str, low: float, high: float) -> float | None:
        """A finite number (integers count) between `low` and `high`, or None."""
        value = self._values.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(field, f"a number is needed, not {_kind(value)}")
        if not math.isfinite(value) or not low <= value <= high:
            raise self.fail(field, f"must be between {low:g} and {high:g}, not {value}")
        return float(value)

    def optional_integer(self, field: str, low: int, high: int) -> int | None:
        """An integer between `low` and `high`, or None."""
        value = self._values.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(field, f"an integer is needed, not {_kind(value)}")
        if not low <= value <= high:
            raise self.fail(field, f"must be between {low} and {high}, not {value}")
        return value

    def optional_flag(self, field: str) -> bool | None:
        """A boolean, or None."""
        value = self._values.get(field)
        if value is not None and not isinstance(value, bool):
            raise self.fail(field, f"a boolean is needed, not {_kind(value)}")
        return value

    def optional_fields(self, field: str) -> Fields | None:
        """A nested map, or None."""
        value = self._values.get(field)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fail(field, f"a map is needed, not {_kind(value)}")
        return Fields(value, f"{self.name(field)}.")

    def fields(self, field: str) -> Fields:
        """A nested map that must be there."""
        nested = self.optional_fields(field)
        if nested is None:
            raise self.fail(field, "is missing")
        return nested

    def keys(self) -> set[str]:
        """Names of the fields that are there; a key that is no string is an error."""
        for key in self._values:
            if not isinstance(key, str):
                raise self.fail(repr(key)[:40], "keys must be strings")
        return set(self._values)


def _kind(value: Any) -> str:
    """The type of a value in the words of the wire."""
    names = {bool: "boolean", int: "integer", float: "float", str: "string", bytes: "binary", list: "array"}
    return names.get(type(value), "map" if isinstance(value, dict) else type(value).__name__)
