"""How a model is run on this machine: in which runtime, with how many lanes and threads, in which batches.

One caller is served fastest by all cores together; many are served most by a core each, for a network's steps
do not divide evenly. So there are two ways to run, and a lane takes the one that fits how busy it finds the
engine. Both are measured when a model is first loaded; the figures are kept per model and machine.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Rates nearer than this are the same. Of lanes the most are taken then (a short text need not wait for a long
# one), of batches the smallest (a text waits for its neighbours).
GAIN = 1.05
# A calibration begins no further measurement after so long.
BUDGET_S = 6.0
_ROUNDS = 3
_HOPELESS = 1.3


@dataclass(frozen=True)
class Tuning:
    """`threads` are those of a sentence that is alone, `lane_threads` those of one among others."""

    runtime: str
    threads: int
    lanes: int
    lane_threads: int
    max_batch: int = 1

    def payload(self) -> dict[str, Any]:
        """As the answer to a load says it."""
        return {
            "runtime": self.runtime,
            "threads": self.threads,
            "lanes": self.lanes,
            "laneThreads": self.lane_threads,
            "maxBatch": self.max_batch,
        }


@dataclass(frozen=True)
class Asked:
    """What the command line fixes; None is for the calibration to find."""

    threads: int | None = None
    lanes: int | None = None
    max_batch: int | None = None

    def over(self, found: Tuning, cores: int) -> Tuning:
        """The tuning found, with what was asked for in its place."""
        lanes = self.lanes or (max(1, cores // self.threads) if self.threads else found.lanes)
        share = found.lane_threads if lanes == found.lanes else max(1, cores // lanes)
        return Tuning(
            runtime=found.runtime,
            threads=self.threads or found.threads,
            lanes=lanes,
            lane_threads=self.threads or share,
            max_batch=self.max_batch or found.max_batch,
        )


def divisions(cores: int) -> list[tuple[int, int]]:
    """Lanes and their threads that a machine's cores can be divided into, fewest lanes first."""
    lanes, found = 1, []
    while lanes < cores:
        found.append((lanes, cores // lanes))
        lanes *= 2
    return [*found, (cores, 1)]


def near_best(rates: dict[int, float]) -> list[int]:
    """The keys whose rates come within `GAIN` of the best."""
    best = max(rates.values())
    return [key for key, rate in rates.items() if rate * GAIN >= best]


class Clock:
    """Bounds a calibration, and times what it tries."""

    def __init__(self, budget_s: float = BUDGET_S, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._end = clock() + budget_s

    def is_over(self) -> bool:
        """Whether no further measurement should begin."""
        return self._clock() >= self._end

    def seconds(self, work: Callable[[], Any], to_beat: float = math.inf) -> float:
        """The least time of a few, after one that is not counted: what disturbs a measurement only adds.

        What is far from `to_beat` at once is not measured further.
        """
        work()
        times = []
        for _ in range(_ROUNDS):
            begun = self._clock()
            work()
            times.append(self._clock() - begun)
            if self.is_over() or times[0] > _HOPELESS * to_beat:
                break
        return min(times)

    def rate(self, work: Callable[[], Any], callers: int) -> float:
        """Calls a second of so many callers at once."""

        times: list[float] = []

        def calls() -> None:
            spent = []
            for _ in range(_ROUNDS):
                begun = self._clock()
                work()
                spent.append(self._clock() - begun)
            times.append(min(spent))

        threads = [threading.Thread(target=calls, daemon=True) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(1.0 / spent for spent in times)


def calibrate(
    trial: Callable[[str, int], Callable[[], Any]], runtimes: list[str], cores: int, clock: Clock
) -> Tuning:
    """Measures a model on the CPU. `trial` gives a call that speaks a sentence in a runtime with threads."""
    alone = {runtimes[0]: clock.seconds(trial(runtimes[0], cores))}
    for runtime in runtimes[1:]:
        if not clock.is_over():
            alone[runtime] = clock.seconds(trial(runtime, cores), min(alone.values()))
    runtime = min(alone, key=lambda name: alone[name])
    rates = {1: 1.0 / alone[runtime]}
    threads_of = dict(divisions(cores))
    # The most lanes first: most often they gain most, and a budget that ends early has seen them.
    for lanes in sorted(threads_of.keys() - {1}, reverse=True):
        if not clock.is_over():
            rates[lanes] = clock.rate(trial(runtime, threads_of[lanes]), lanes)
    lanes = max(near_best(rates))
    return Tuning(runtime, cores, lanes, threads_of[lanes])


def calibrate_batch(speak: Callable[[int], Any], largest: int, clock: Clock) -> int:
    """The batch size that speaks most sentences a second. `speak` speaks so many in one call."""
    rates, size = {1: 1.0 / clock.seconds(partial(speak, 1))}, 2
    while size <= largest and not clock.is_over():
        rates[size] = size / clock.seconds(partial(speak, size))
        if rates[size] < rates[size // 2]:
            break
        size *= 2
    return min(near_best(rates))


def write(folder: Path, found: Tuning) -> None:
    """Keeps a tuning in a folder."""
    (folder / "tuning.json").write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")


def read(folder: Path) -> Tuning:
    """The tuning kept in a folder; ValueError if that is none."""
    try:
        values = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))
        return Tuning(**values)
    except (OSError, TypeError) as error:
        raise ValueError(f"no tuning in {folder}: {error}") from error
