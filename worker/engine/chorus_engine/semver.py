"""Version ranges as Rust's `semver` crate writes them, as far as a handshake needs.

Comparators are joined by commas and all must hold: `>=2.0.0, <3.0.0`. A bare version means `^`. Missing
parts are zero, except that `=2.1`, `~2` and `^2` span what they leave open. Pre-releases are not part of
the protocol.
"""

from __future__ import annotations

import re

Version = tuple[int, int, int]
_COMPARATOR = re.compile(r"^(>=|<=|>|<|=|\^|~)?\s*(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?$")


def parse(text: str) -> Version:
    """`2.1.0` to its three numbers; ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", text)
    if match is None:
        raise ValueError(f"not a version: {text!r}")
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch)


def matches(accept: str, version: str) -> bool:
    """Whether `version` lies in the range `accept`; ValueError if the range is not one."""
    wanted = parse(version)
    if accept.strip() == "*":
        return True
    return all([_holds(part.strip(), wanted) for part in accept.split(",")])


def _holds(comparator: str, version: Version) -> bool:
    match = _COMPARATOR.match(comparator)
    if match is None:
        raise ValueError(f"not a version range: {comparator!r}")
    operator = match.group(1) or "^"
    given = [int(part) for part in match.groups()[1:] if part is not None]
    major, minor, patch = [*given, 0, 0][:3]
    low = (major, minor, patch)
    after = _next_open(given)
    bounds = {
        ">=": version >= low,
        "<": version < low,
        ">": version >= after,
        "<=": version < after,
        "=": low <= version < after,
        "~": low <= version < _next_open(given[:2]),
        "^": low <= version < _next_breaking(given),
    }
    return bounds[operator]


def _next_open(given: list[int]) -> Version:
    """The first version after all those that begin with the given parts."""
    bumped = [*given[:-1], given[-1] + 1, 0, 0]
    return bumped[0], bumped[1], bumped[2]


def _next_breaking(given: list[int]) -> Version:
    """The first version that may break: after the leftmost part that is not zero."""
    for index, part in enumerate(given):
        if part != 0:
            return _next_open(given[: index + 1])
    return _next_open(given)
