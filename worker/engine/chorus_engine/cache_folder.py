"""Things that cost seconds to make and are the same every time, kept in folders named by what they depend on.

A folder is made beside its place and renamed into it, so it is whole or not there. Of several processes that
want the same one, the first makes it and the others wait for it. The folders used last are kept, up to a
number and a size.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

MAX_FOLDERS = 16
MAX_BYTES = 4 << 30
_HASH_BLOCK_BYTES = 1 << 20
log = logging.getLogger(__name__)


def default_place() -> Path:
    """Where an engine keeps such things: in CHORUS_HOME, or with the user's other caches."""
    home = os.environ.get("CHORUS_HOME")
    if home:
        return Path(home) / "cache" / "engine"
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "chorus" / "engine"


def key(*parts: str | Path) -> str:
    """A name for what depends on these: words as they are, files by what is in them."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as stream:
                while block := stream.read(_HASH_BLOCK_BYTES):
                    digest.update(block)
        else:
            digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


class CacheFolder:
    """Made things in one place."""

    def __init__(self, place: Path, max_folders: int = MAX_FOLDERS, max_bytes: int = MAX_BYTES) -> None:
        self._place = place
        self._max_folders = max_folders
        self._max_bytes = max_bytes

    def provide(self, name: str, make: Callable[[Path], None]) -> Path:
        """The folder `name`; `make` fills it if it is not there. OSError if it cannot be kept."""
        target = self._place / name
        self._place.mkdir(parents=True, exist_ok=True)
        with (self._place / f".{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                self._make(target, make)
        os.utime(target)
        self._bound(keep=name)
        return target

    def forget(self, name: str) -> None:
        """Removes a folder that turned out to be of no use."""
        shutil.rmtree(self._place / name, ignore_errors=True)

    def _make(self, target: Path, make: Callable[[Path], None]) -> None:
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=self._place))
        try:
            make(draft)
            for file in draft.iterdir():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            draft.chmod(0o755)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _bound(self, keep: str) -> None:
        """Removes what was used longest ago, beyond the bounds."""
        folders = [entry for entry in self._place.iterdir() if entry.is_dir() and entry.name[0] != "."]
        newest_first = sorted(folders, key=_used, reverse=True)
        kept_bytes = 0
        for index, folder in enumerate(newest_first):
            kept_bytes += sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
            over = index >= self._max_folders or kept_bytes > self._max_bytes
            if over and folder.name != keep:
                log.info("forgetting %s, unused for longest", folder)
                shutil.rmtree(folder, ignore_errors=True)


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
