"""Loading and unloading, one at a time and in order, on a thread of their own.

Importing a speech library takes seconds and holds the interpreter for parts of them; so the loader begins
with it as soon as the handshake is answered, and a second thread tells the stage it is in while a load goes
on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from chorus_engine import host
from chorus_engine.engines.base import Engine, Model
from chorus_engine.errors import MODEL_NOT_FOUND, RESOURCE_EXHAUSTED, EngineError, load_failed
from chorus_engine.pipe import Envelope
from chorus_engine.requests import ModelSpec

QUEUE_LIMIT = 16
PROGRESS_INTERVAL_S = 0.5
log = logging.getLogger(__name__)

Send = Callable[[str, dict[str, Any], Envelope], None]
Refuse = Callable[[str, EngineError, "str | None"], None]


class Loader:
    """Owns the models. `models` is read by the reader's thread and replaced here entry by entry."""

    def __init__(
        self, engine: Engine, send: Send, refuse: Refuse, loaded: Callable[[Model], None] = lambda model: None
    ) -> None:
        self.models: dict[str, Model] = {}
        self._engine = engine
        self._send = send
        self._refuse = refuse
        self._loaded = loaded
        self._work: queue.Queue[tuple[Envelope | None, Callable[[], None]]] = queue.Queue(QUEUE_LIMIT)
        threading.Thread(target=self._loop, name="loader", daemon=True).start()

    def prepare(self) -> None:
        """Begins with the heavy imports."""
        self._work.put_nowait((None, self._engine.prepare))

    def load(self, message: Envelope, spec: ModelSpec) -> None:
        """Queues a load; a model of the same name is replaced when the new one is ready."""
        progress = _Progress(self._send, message)
        progress.stage("import")
        self._submit(message, lambda: self._load(message, spec, progress))
        progress.start()

    def unload(self, message: Envelope, name: str) -> None:
        """Queues an unload; takes that run on the model end first as they please."""
        self._submit(message, lambda: self._unload(message, name))

    def _submit(self, message: Envelope, work: Callable[[], None]) -> None:
        try:
            self._work.put_nowait((message, work))
        except queue.Full:
            text = f"{QUEUE_LIMIT} loads wait already"
            raise EngineError(RESOURCE_EXHAUSTED, "queue_full", text, retryable=True) from None

    def _loop(self) -> None:
        while True:
            message, work = self._work.get()
            try:
                work()
            except Exception as problem:
                self._fail(message, problem)

    def _fail(self, message: Envelope | None, problem: Exception) -> None:
        if message is None:
            log.error("preparing failed, loading will tell: %s", problem)
            return
        if not isinstance(problem, EngineError):
            log.error("load failed", exc_info=problem)
            problem = load_failed(f"{type(problem).__name__}: {problem}"[:1000])
        self._refuse(message.message_id, problem, message.traceparent)

    def _load(self, message: Envelope, spec: ModelSpec, progress: _Progress) -> None:
        with progress:
            begun = time.perf_counter()
            model = self._engine.load(spec, progress.stage)
            loaded = time.perf_counter()
            progress.stage("warmup")
            model.warm_up()
            warm = time.perf_counter()
        self.models[spec.name] = model
        self._loaded(model)
        info = model.info
        answer: dict[str, Any] = {
            "method": "load",
            "model": spec.name,
            "sampleRate": info.sample_rate,
            "voices": info.voices,
            "languages": info.languages,
            "loadMs": (loaded - begun) * 1000.0,
            "warmupMs": (warm - loaded) * 1000.0,
            **host.memory(),
        }
        if model.files:
            answer["files"] = list(model.files)
        if info.max_text_chars is not None:
            answer["maxTextChars"] = info.max_text_chars
        if model.tuning is not None:
            answer["tuning"] = model.tuning.payload()
        self._send("response", answer, message)

    def _unload(self, message: Envelope, name: str) -> None:
        if self.models.pop(name, None) is None:
            text = f"model {name} is not loaded"
            raise EngineError(MODEL_NOT_FOUND, "not_loaded", text, known=sorted(self.models))
        host.release_memory()
        self._send("response", {"method": "unload", "model": name, **host.memory()}, message)


class _Progress:
    """Sends the stage of a load when it begins, and every half second until the load ends.

    It starts with the request: a load that waits for the imports to end is in its stage "import".
    """

    def __init__(self, send: Send, message: Envelope) -> None:
        self._send = send
        self._message = message
        self._stage = "import"
        self._done = False
        self._telling = threading.Lock()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="load-progress", daemon=True)

    def start(self) -> None:
        """Begins to tell."""
        self._thread.start()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """Tells no more; nothing follows the answer."""
        with self._telling:
            self._done = True
        self._wake.set()

    def stage(self, name: str) -> None:
        """Begins a stage."""
        self._stage = name
        self._tell()

    def _repeat(self) -> None:
        while not self._wake.wait(PROGRESS_INTERVAL_S):
            self._tell()

    def _tell(self) -> None:
        with self._telling:
            if not self._done:
                self._send("event", {"event": "progress", "stage": self._stage}, self._message)
