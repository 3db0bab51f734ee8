"""Lanes on a model that is made up: who is spoken together, who alone, what a failure does to the rest."""

from __future__ import annotations

import os
import threading

import pytest
from support import DEADLINE_S

from chorus_engine.engines.base import Model, ModelInfo
from chorus_engine.engines.tuning import Tuning
from chorus_engine.errors import EngineError
from chorus_engine.fields import Fields
from chorus_engine.lanes import Job, Lanes, companions
from chorus_engine.pipe import Envelope, FrameWriter
from chorus_engine.requests import synthesis_request
from chorus_engine.take import Take


class Spoken(Model):
    """Notes which texts came together; "bad" cannot be spoken, and "wait" holds its lane."""

    def __init__(self, max_batch: int, lanes: int = 1) -> None:
        self.info = ModelInfo(16_000)
        self.tuning = Tuning("none", 1, lanes, 1, max_batch)
        self.calls: list[list[str]] = []
        self.alone: list[bool] = []
        self.begun = threading.Event()
        self.go = threading.Event()

    def synthesize(self, request, take) -> None:
        self.synthesize_batch([request], [take])

    def synthesize_batch(self, requests, takes) -> None:
        texts = [request.text for request in requests]
        self.calls.append(texts)
        self.alone.append(takes[0].is_alone)
        if "wait" in texts:
            self.begun.set()
            assert self.go.wait(DEADLINE_S)
        if "bad" in texts:
            raise RuntimeError("cannot")
        for take in takes:
            take.write(bytes(2))


class Bench:
    """Lanes, and what they answered, by message id."""

    def __init__(self, count: int) -> None:
        self.refused: dict[str, EngineError] = {}
        self.done = threading.Condition()
        self.finished: set[str] = set()
        self._null = os.open(os.devnull, os.O_WRONLY)
        self.lanes = Lanes(count, self._refuse)

    def _refuse(self, message_id, error, traceparent=None) -> None:
        with self.done:
            self.refused[message_id] = error
            self._end(message_id)

    def _end(self, message_id: str) -> None:
        self.finished.add(message_id)
        self.done.notify_all()

    def submit(self, model: Model, *texts: str) -> None:
        for text in texts:
            self.lanes.submit(self.job(model, text))

    def job(self, model: Model, text: str) -> Job:
        take = Take(Envelope(text, "request", {}, None, 0.0), FrameWriter(self._null))
        finish = take.finish

        def finished(rate: int) -> None:
            finish(rate)
            with self.done:
                self._end(text)

        take.finish = finished
        return Job(take, synthesis_request(Fields({"model": "m", "text": text})), model)

    def wait(self, *texts: str) -> None:
        with self.done:
            assert self.done.wait_for(lambda: self.finished >= set(texts), DEADLINE_S)


def test_texts_that_wait_are_spoken_together_by_length():
    bench, model = Bench(1), Spoken(max_batch=3)
    long = "a text that is a good deal longer than the others are"
    bench.submit(model, "wait")
    assert model.begun.wait(DEADLINE_S)
    bench.submit(model, "one", "two", long, "tri", "vier")
    model.go.set()
    bench.wait("wait", "one", "two", "tri", "vier", long)
    assert model.calls == [["wait"], ["one", "two", "tri"], [long], ["vier"]]
    assert not bench.refused


def test_a_batch_that_fails_convicts_no_innocent():
    bench, model = Bench(1), Spoken(max_batch=3)
    bench.submit(model, "wait")
    assert model.begun.wait(DEADLINE_S)
    bench.submit(model, "one", "bad", "two")
    model.go.set()
    bench.wait("one", "bad", "two")
    assert model.calls == [["wait"], ["one", "bad", "two"], ["one"], ["bad"], ["two"]]
    assert list(bench.refused) == ["bad"] and bench.refused["bad"].retryable


def test_a_text_cancelled_in_a_batch_leaves_the_others():
    bench, model = Bench(1), Spoken(max_batch=2)
    bench.submit(model, "hold")
    bench.wait("hold")
    bench.submit(model, "wait", "stop")
    assert model.begun.wait(DEADLINE_S)
    assert bench.lanes.cancel("stop")
    model.go.set()
    bench.wait("wait", "stop")
    assert model.calls[1] == ["wait", "stop"]
    assert bench.refused["stop"].reason == "cancelled" and "wait" not in bench.refused


def test_who_is_alone_may_take_all_cores():
    bench, model = Bench(2), Spoken(max_batch=1)
    bench.submit(model, "wait")
    assert model.begun.wait(DEADLINE_S)
    bench.submit(model, "beside")
    bench.wait("beside")
    model.go.set()
    bench.wait("wait")
    bench.lanes.grow(1)
    assert model.alone == [True, False]


def test_lanes_grow_to_what_a_model_wants():
    bench, model = Bench(1), Spoken(max_batch=1, lanes=2)
    bench.submit(model, "wait")
    assert model.begun.wait(DEADLINE_S)
    bench.submit(model, "behind")
    bench.lanes.grow(2)
    bench.wait("behind")
    model.go.set()
    bench.wait("wait")


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_companions_are_of_one_model_and_no_more_than_the_limit(limit):
    bench, ours, others = Bench(1), Spoken(limit), Spoken(limit)
    head = bench.job(ours, "abcd")
    waiting = [bench.job(ours, text) for text in ("abc", "a", "abcde", "abcdefgh")] + [
        bench.job(others, "abcd")
    ]
    found = [job.request.text for job in companions(head, waiting)]
    assert found == ["abc", "abcde"][: limit - 1]
