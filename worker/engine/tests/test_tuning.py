"""How lanes, threads and batches are chosen, on clocks and rates that are made up."""

from __future__ import annotations

import json
import multiprocessing

import pytest

from chorus_engine.cache_folder import CacheFolder, key
from chorus_engine.engines import tuning
from chorus_engine.engines.tuning import Asked, Tuning


class FakeClock(tuning.Clock):
    """A clock on which work takes what its table says."""

    def __init__(self, budget_s: float = 100.0) -> None:
        self.now = 0.0
        super().__init__(budget_s, lambda: self.now)

    def seconds(self, work, to_beat: float = 0.0) -> float:
        spent = work()
        self.now += spent
        return spent

    def rate(self, work, callers: int) -> float:
        return callers / self.seconds(work)


def trial(table):
    return lambda runtime, threads: lambda: table[runtime, threads]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # The demo voice on two cores: lanes of one thread each give most.
        ({("onnx", 2): 0.26, ("onnx", 1): 0.45, ("torch", 2): 0.33}, Tuning("onnx", 2, 2, 1)),
        # One lane is as good within the margin: the short text beside a long one decides.
        ({("onnx", 2): 0.26, ("onnx", 1): 0.53, ("torch", 2): 0.33}, Tuning("onnx", 2, 2, 1)),
        ({("onnx", 2): 0.26, ("onnx", 1): 0.90, ("torch", 2): 0.33}, Tuning("onnx", 2, 1, 2)),
        ({("onnx", 2): 0.40, ("torch", 1): 0.5, ("torch", 2): 0.33}, Tuning("torch", 2, 2, 1)),
    ],
)
def test_the_best_measured_is_taken(table, expected):
    assert tuning.calibrate(trial(table), ["onnx", "torch"], 2, FakeClock()) == expected


def test_a_budget_that_is_spent_ends_the_measuring():
    table = {("onnx", 2): 50.0}
    assert tuning.calibrate(trial(table), ["onnx", "torch"], 2, FakeClock(1.0)) == Tuning("onnx", 2, 1, 2)


@pytest.mark.parametrize("cores", range(1, 70))
def test_divisions_use_no_more_cores_than_there_are(cores):
    found = tuning.divisions(cores)
    assert found[-1] == (cores, 1) and len(dict(found)) == len(found)
    assert all(lanes * threads <= cores and threads >= 1 for lanes, threads in found)


def test_batches_grow_while_they_gain():
    def speak(gains):
        return lambda count: count / gains[count]

    assert tuning.calibrate_batch(speak({1: 1, 2: 1.8, 4: 3, 8: 3.1, 16: 2}), 16, FakeClock()) == 4
    assert tuning.calibrate_batch(speak({1: 1, 2: 0.9}), 16, FakeClock()) == 1
    assert tuning.calibrate_batch(speak({1: 1}), 1, FakeClock()) == 1


def test_what_is_asked_for_goes_over_what_was_found():
    found = Tuning("onnx", 8, 8, 1, 2)
    assert Asked().over(found, 8) == found
    assert Asked(threads=2).over(found, 8) == Tuning("onnx", 2, 4, 2, 2)
    assert Asked(lanes=2).over(found, 8) == Tuning("onnx", 8, 2, 4, 2)
    assert Asked(lanes=3, threads=1, max_batch=1).over(found, 8) == Tuning("onnx", 1, 3, 1, 1)


def test_a_real_clock_times_and_counts():
    clock = tuning.Clock(budget_s=60.0)
    calls = []
    assert clock.seconds(lambda: calls.append(1)) >= 0.0 and len(calls) == 4
    assert clock.rate(lambda: calls.append(1), 2) > 0.0 and len(calls) == 10
    assert clock.seconds(lambda: calls.append(1), to_beat=0.0) >= 0.0 and len(calls) == 12
    assert not clock.is_over() and tuning.Clock(budget_s=0.0).is_over()


def test_figures_are_kept_and_spoilt_ones_told(tmp_path):
    found = Tuning("onnx", 2, 2, 1)
    tuning.write(tmp_path, found)
    assert tuning.read(tmp_path) == found
    for spoilt in ("[]", "{", json.dumps({"runtime": "x"})):
        (tmp_path / "tuning.json").write_text(spoilt)
        with pytest.raises(ValueError):
            tuning.read(tmp_path)


def test_a_folder_is_made_once_and_whole(tmp_path):
    cache, made = CacheFolder(tmp_path), []

    def make(folder):
        (folder / "file").write_text("x")
        made.append(folder)

    assert cache.provide("a", make) == cache.provide("a", make)
    assert len(made) == 1

    def fails(folder):
        (folder / "file").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.provide("b", fails)
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == ["a"]


def _make_slowly(place, log):
    def make(folder):
        with log.open("a") as stream:
            stream.write("made\n")
        (folder / "file").write_bytes(bytes(1_000_000))

    CacheFolder(place).provide("a", make)


def test_of_processes_that_start_at_once_one_makes_it(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_make_slowly, args=(tmp_path / "cache", log)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "made\n"


def test_the_cache_is_bounded(tmp_path):
    by_number = CacheFolder(tmp_path / "n", max_folders=2)
    for name in ("a", "b", "c"):
        by_number.provide(name, lambda folder: None)
    assert len([entry for entry in (tmp_path / "n").iterdir() if entry.is_dir()]) == 2
    by_size = CacheFolder(tmp_path / "s", max_bytes=1_500)
    for name in ("a", "b"):
        by_size.provide(name, lambda folder: (folder / "file").write_bytes(bytes(1_000)))
    assert [entry.name for entry in (tmp_path / "s").iterdir() if entry.is_dir()] == ["b"]


def test_a_key_names_what_is_in_files(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"same")
    second.write_bytes(b"same")
    assert key("v", first) == key("v", second) != key("w", first)
    assert key("a", "b") != key("ab")
