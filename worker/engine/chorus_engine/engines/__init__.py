"""The kinds of engine; each module is imported only when its kind is asked for."""

from __future__ import annotations

from chorus_engine.engines.base import Engine, EngineConfig

KINDS = ("coqui", "null", "checkable")


def create(kind: str, config: EngineConfig) -> Engine:
    """The engine of a kind; ValueError for a kind there is not."""
    if kind == "coqui":
        from chorus_engine.engines.coqui import CoquiEngine

        return CoquiEngine(config)
    if kind == "null":
        from chorus_engine.engines.null import NullEngine

        return NullEngine(config)
    if kind == "checkable":
        from chorus_engine.engines.checkable import CheckableEngine

        return CheckableEngine(config)
    raise ValueError(f"unknown engine kind: {kind}")
