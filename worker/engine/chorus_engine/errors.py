"""The one error that travels: everything an engine can refuse or fail at, in the codes of the wire.

Whatever raises an `EngineError` decides code, reason and whether asking again can help; the server only
puts it in an envelope. Anything else that is raised is a fault of ours and travels as
SYNTHESIS_FAILED/engine_error.
"""

from __future__ import annotations

from typing import Any

INVALID_REQUEST = "INVALID_REQUEST"
MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
SYNTHESIS_FAILED = "SYNTHESIS_FAILED"
INIT_FAILED = "INIT_FAILED"


class EngineError(Exception):
    """An answer of type "error": `code` and `details.reason` are what callers match on."""

    def __init__(self, code: str, reason: str, message: str, retryable: bool = False, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retryable = retryable
        self.details = details

    def payload(self) -> dict[str, Any]:
        """The error as the payload of an envelope."""
        return {
            "code": self.code,
            "message": str(self),
            "retryable": self.retryable,
            "details": {"reason": self.reason, **self.details},
        }


def invalid_field(field: str, message: str) -> EngineError:
    """A field of the wrong type or out of range; `details.field` names it."""
    return EngineError(INVALID_REQUEST, "invalid_field", f"{field}: {message}", field=field)


def unsupported(field: str, message: str) -> EngineError:
    """A well-formed option that this engine or model cannot honour."""
    return EngineError(INVALID_REQUEST, "unsupported_option", f"{field}: {message}", field=field)


def unspeakable(message: str) -> EngineError:
    """A text with nothing in it that the model could say."""
    return EngineError(INVALID_REQUEST, "unspeakable", message)


def cancelled() -> EngineError:
    """The end of a synthesis that was cancelled."""
    return EngineError(SYNTHESIS_FAILED, "cancelled", "synthesis was cancelled")


def load_failed(message: str, **details: Any) -> EngineError:
    """A model that could not be loaded."""
    return EngineError(INIT_FAILED, "load_failed", message, **details)
