"""Synthesis beside the reader: a bounded queue and the threads (lanes) that work it off.

A request waits in the queue or runs in a lane; it can be cancelled in either. What waits is answered at
once, what runs ends at its next step. Where a model gains by it, a lane takes texts of about the same length
together. Every take ends in exactly one response or error: a batch that fails is spoken again one by one, so
that only the text at fault is answered with its error.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chorus_engine.engines.base import Model
from chorus_engine.errors import (
    INVALID_REQUEST,
    RESOURCE_EXHAUSTED,
    SYNTHESIS_FAILED,
    EngineError,
    cancelled,
)
from chorus_engine.requests import SynthesisRequest
from chorus_engine.take import Take

QUEUE_LIMIT = 64
MAX_LANES = 64
# How long a text may wait for others to share its batch.
BATCH_WINDOW_S = 0.004
# Texts of a batch are padded to the longest: one that is much shorter would cost what it does not need.
BATCH_SPREAD = 1.5
log = logging.getLogger(__name__)

Refuse = Callable[[str, EngineError, "str | None"], None]


@dataclass(frozen=True)
class Job:
    """A request on its way: the model that was loaded when it came, and where its audio goes."""

    take: Take
    request: SynthesisRequest
    model: Model

    @property
    def max_batch(self) -> int:
        """How many texts its model speaks at once."""
        return 1 if self.model.tuning is None else self.model.tuning.max_batch


class Lanes:
    """Daemon threads over one queue. `refuse` sends an error for a message id and its trace."""

    def __init__(self, count: int, refuse: Refuse, queue_limit: int = QUEUE_LIMIT) -> None:
        self._refuse = refuse
        self._queue_limit = queue_limit
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, Job] = OrderedDict()
        self._running: dict[str, Job] = {}
        self._count = 0
        self.grow(count)

    def grow(self, count: int) -> None:
        """Makes sure of so many lanes; there are never fewer again."""
        with self._changed:
            while self._count < min(count, MAX_LANES):
                name = f"lane-{self._count}"
                threading.Thread(target=self._lane, name=name, daemon=True).start()
                self._count += 1

    def submit(self, job: Job) -> None:
        """Queues a job; EngineError if the queue is full or the message id is in use."""
        message_id = job.take.message_id
        with self._changed:
            if message_id in self._waiting or message_id in self._running:
                raise EngineError(INVALID_REQUEST, "duplicate", "a request with this messageId is under way")
            if len(self._waiting) >= self._queue_limit:
                message = f"{self._queue_limit} requests wait already"
                raise EngineError(RESOURCE_EXHAUSTED, "queue_full", message, retryable=True)
            self._waiting[message_id] = job
            # A lane that gathers a batch may be the one that wakes, and others be idle.
            self._changed.notify_all()

    def cancel(self, message_id: str) -> bool:
        """Cancels what waits or runs under this id; whether there was such."""
        with self._changed:
            waiting = self._waiting.pop(message_id, None)
            running = self._running.get(message_id)
        if waiting is not None:
            self._refuse(message_id, cancelled(), waiting.take.traceparent)
        elif running is not None:
            running.take.cancel()
        return waiting is not None or running is not None

    def _lane(self) -> None:
        while True:
            jobs = self._next()
            try:
                self._run(jobs)
            finally:
                with self._changed:
                    for job in jobs:
                        del self._running[job.take.message_id]
                # A lane that waits must not keep an unloaded model alive.
                del jobs, job

    def _next(self) -> list[Job]:
        """The job that came first, and those that are spoken with it."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            _, head = self._waiting.popitem(last=False)
            self._running[head.take.message_id] = head
            jobs = [head]
            if head.max_batch > 1:
                enough = head.max_batch - 1
                self._changed.wait_for(lambda: len(self._waiting) >= enough, BATCH_WINDOW_S)
                jobs += companions(head, self._waiting.values())
            for job in jobs[1:]:
                del self._waiting[job.take.message_id]
                self._running[job.take.message_id] = job
            is_alone = not self._waiting and len(self._running) == len(jobs)
            for job in jobs:
                job.take.is_alone = is_alone
            return jobs

    def _run(self, jobs: list[Job]) -> None:
        if len(jobs) > 1 and self._run_together(jobs):
            return
        for job in jobs:
            self._run_alone(job)

    def _run_together(self, jobs: list[Job]) -> bool:
        """Whether the batch was spoken; nothing has been written if not."""
        try:
            jobs[0].model.synthesize_batch([job.request for job in jobs], [job.take for job in jobs])
        except Exception as problem:
            # Which text is at fault shows when each is spoken alone, and is answered there.
            log.info("a batch of %d is spoken one by one: %s", len(jobs), problem)
            return False
        for job in jobs:
            self._answer(job, lambda job: None)
        return True

    def _run_alone(self, job: Job) -> None:
        self._answer(job, lambda job: job.model.synthesize(job.request, job.take))

    def _answer(self, job: Job, work: Callable[[Job], None]) -> None:
        """Ends a take with the response after `work`, or with an error."""
        take = job.take
        try:
            take.step()
            work(job)
            take.finish(job.model.info.sample_rate)
        except EngineError as error:
            self._refuse(take.message_id, error, take.traceparent)
        except Exception as problem:
            log.exception("synthesis failed")
            message = f"{type(problem).__name__}: {problem}"[:1000]
            error = EngineError(SYNTHESIS_FAILED, "engine_error", message, retryable=True)
            self._refuse(take.message_id, error, take.traceparent)


def companions(head: Job, waiting: Iterable[Job]) -> list[Job]:
    """Jobs to speak with `head`, first come first: of its model, and of about its length."""
    chars = max(1, len(head.request.text))
    fitting = [
        job
        for job in waiting
        if job.model is head.model
        and chars / BATCH_SPREAD <= max(1, len(job.request.text)) <= chars * BATCH_SPREAD
    ]
    return fitting[: head.max_batch - 1]
