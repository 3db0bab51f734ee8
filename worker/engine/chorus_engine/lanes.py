"""Synthesis beside the reader: a bounded queue and the threads (lanes) that work it off.

A request waits in the queue or runs in a lane; it can be cancelled in either. What waits is answered at
once, what runs ends at its next step. Every take ends in exactly one response or error.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from chorus_engine.errors import (
    INVALID_REQUEST,
    RESOURCE_EXHAUSTED,
    SYNTHESIS_FAILED,
    EngineError,
    cancelled,
)
from chorus_engine.take import Take

QUEUE_LIMIT = 64
log = logging.getLogger(__name__)

Work = Callable[[Take], None]
Refuse = Callable[[str, EngineError, "str | None"], None]


class Lanes:
    """`count` daemon threads over one queue. `refuse` sends an error for a message id and its trace."""

    def __init__(self, count: int, refuse: Refuse, queue_limit: int = QUEUE_LIMIT) -> None:
        self._refuse = refuse
        self._queue_limit = queue_limit
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, tuple[Take, Work]] = OrderedDict()
        self._running: dict[str, Take] = {}
        for index in range(count):
            threading.Thread(target=self._lane, name=f"lane-{index}", daemon=True).start()

    def submit(self, take: Take, work: Work) -> None:
        """Queues a take; EngineError if the queue is full or the message id is in use."""
        with self._changed:
            if take.message_id in self._waiting or take.message_id in self._running:
                raise EngineError(INVALID_REQUEST, "duplicate", "a request with this messageId is under way")
            if len(self._waiting) >= self._queue_limit:
                message = f"{self._queue_limit} requests wait already"
                raise EngineError(RESOURCE_EXHAUSTED, "queue_full", message, retryable=True)
            self._waiting[take.message_id] = (take, work)
            self._changed.notify()

    def cancel(self, message_id: str) -> bool:
        """Cancels what waits or runs under this id; whether there was such."""
        with self._changed:
            waiting = self._waiting.pop(message_id, None)
            running = self._running.get(message_id)
        if waiting is not None:
            self._refuse(message_id, cancelled(), waiting[0].traceparent)
        elif running is not None:
            running.cancel()
        return waiting is not None or running is not None

    def _lane(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                message_id, (take, work) = self._waiting.popitem(last=False)
                self._running[message_id] = take
            try:
                self._run(take, work)
            finally:
                with self._changed:
                    del self._running[message_id]
                # A lane that waits must not keep an unloaded model alive.
                del take, work

    def _run(self, take: Take, work: Work) -> None:
        try:
            take.step()
            work(take)
        except EngineError as error:
            self._refuse(take.message_id, error, take.traceparent)
        except Exception as problem:
            log.exception("synthesis failed")
            message = f"{type(problem).__name__}: {problem}"[:1000]
            error = EngineError(SYNTHESIS_FAILED, "engine_error", message, retryable=True)
            self._refuse(take.message_id, error, take.traceparent)
