"""Answers the requests of the pipe.

The reader's thread does all that is quick: it negotiates, checks every field, queues synthesis to the lanes
and loading to the loader, and answers pings at once. It never waits for a model, so a worker can tell a
busy engine from a dead one. When the stream ends the process ends with it, whatever the other threads are
at.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from chorus_engine import __version__, pipe, semver
from chorus_engine.engines.base import Engine, Model
from chorus_engine.errors import INVALID_REQUEST, MODEL_NOT_FOUND, EngineError
from chorus_engine.fields import Fields
from chorus_engine.lanes import Job, Lanes
from chorus_engine.loader import Loader
from chorus_engine.pipe import Envelope, FrameReader, FrameWriter, PipeError
from chorus_engine.requests import MAX_NAME_CHARS, model_spec, synthesis_request
from chorus_engine.take import Take

EXIT_STREAM_BROKEN = 65  # EX_DATAERR of <sysexits.h>
_BEFORE_HELLO = frozenset({"hello", "ping", "shutdown"})
log = logging.getLogger(__name__)


class Server:
    """One engine behind one pipe."""

    def __init__(self, engine: Engine, reader: FrameReader, writer: FrameWriter) -> None:
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self._greeted = False
        self._lanes = Lanes(engine.capabilities.lanes, self._refuse)
        self._loader = Loader(engine, self._send, self._refuse, self._make_room)
        self._methods = {
            "hello": self._hello,
            "load": self._load,
            "unload": self._unload,
            "synthesize": self._synthesize,
            "cancel": self._cancel,
            "ping": self._ping,
            "shutdown": self._shutdown,
        }

    def run(self) -> int:
        """Serves until the stream ends; the exit status of the process."""
        try:
            for message in self._reader.messages():
                self._handle(message)
        except pipe.StreamBroken as problem:
            error = EngineError(INVALID_REQUEST, "oversized_frame", str(problem))
            self._writer.write([pipe.frame("error", error.payload())])
            return EXIT_STREAM_BROKEN
        return 0

    def _handle(self, message: Envelope | PipeError) -> None:
        if isinstance(message, PipeError):
            self._writer.write([pipe.frame("error", message.error.payload(), message.message_id)])
            return
        try:
            self._dispatch(message)
        except EngineError as error:
            self._refuse(message.message_id, error, message.traceparent)

    def _dispatch(self, message: Envelope) -> None:
        if message.kind != "request":
            raise EngineError(INVALID_REQUEST, "bad_envelope", "type: only requests are served", field="type")
        payload = Fields(message.payload)
        name = payload.text("method", MAX_NAME_CHARS)
        method = self._methods.get(name)
        if method is None:
            raise EngineError(INVALID_REQUEST, "unknown_method", f"unknown method: {name}", field="method")
        if not self._greeted and name not in _BEFORE_HELLO:
            raise EngineError(INVALID_REQUEST, "version", f"hello must come before {name}")
        method(message, payload)

    def _hello(self, message: Envelope, payload: Fields) -> None:
        accept = payload.text("accept", MAX_NAME_CHARS)
        try:
            mutual = next((version for version in pipe.SUPPORTED if semver.matches(accept, version)), None)
        except ValueError as error:
            raise payload.fail("accept", str(error)) from error
        if mutual is None:
            text = f"Unsupported protocol version: {accept}"
            raise EngineError(INVALID_REQUEST, "version", text, supported=list(pipe.SUPPORTED))
        self._respond(message, self._greeting(mutual))
        if not self._greeted:
            self._greeted = True
            self._loader.prepare()

    def _greeting(self, version: str) -> dict[str, Any]:
        engine = self._engine
        return {
            "method": "hello",
            "version": version,
            "supported": list(pipe.SUPPORTED),
            "engine": {"name": engine.name, "version": __version__, "library": engine.library},
            "pid": os.getpid(),
            "device": engine.device(),
            "capabilities": engine.capabilities.payload(),
        }

    def _load(self, message: Envelope, payload: Fields) -> None:
        self._loader.load(message, model_spec(payload))

    def _make_room(self, model: Model) -> None:
        """Gives a model that is loaded the lanes that its tuning found."""
        if model.tuning is not None:
            self._lanes.grow(model.tuning.lanes)

    def _unload(self, message: Envelope, payload: Fields) -> None:
        self._loader.unload(message, payload.text("model", MAX_NAME_CHARS))

    def _synthesize(self, message: Envelope, payload: Fields) -> None:
        request = synthesis_request(payload)
        model = self._loader.models.get(request.model)
        if model is None:
            known = sorted(self._loader.models)
            raise EngineError(
                MODEL_NOT_FOUND, "not_loaded", f"model {request.model} is not loaded", known=known
            )
        limit = model.info.max_text_chars
        if limit is not None and len(request.text) > limit:
            text = f"text: {len(request.text)} characters are over the model's limit of {limit}"
            raise EngineError(INVALID_REQUEST, "too_large", text, field="text")

        self._lanes.submit(Job(Take(message, self._writer), request, model))

    def _cancel(self, message: Envelope, payload: Fields) -> None:
        found = self._lanes.cancel(payload.text("messageId", 128))
        self._respond(message, {"method": "cancel", "found": found})

    def _ping(self, message: Envelope, payload: Fields) -> None:
        self._respond(message, {"method": "ping"})

    def _shutdown(self, message: Envelope, payload: Fields) -> None:
        self._respond(message, {"method": "shutdown"})
        os._exit(0)

    def _respond(self, message: Envelope, payload: dict[str, Any]) -> None:
        self._send("response", payload, message)

    def _send(self, kind: str, payload: dict[str, Any], message: Envelope) -> None:
        self._writer.write([pipe.frame(kind, payload, message.message_id, message.traceparent)])

    def _refuse(self, message_id: str, error: EngineError, traceparent: str | None = None) -> None:
        self._writer.write([pipe.frame("error", error.payload(), message_id, traceparent)])
