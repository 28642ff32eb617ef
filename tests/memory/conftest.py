"""A memory folder with something outside of it, and the agent's code run over it as the server runs it."""

import asyncio
import os
import stat
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.services.memory import paths
from app.services.memory.audit import Audit
from app.services.memory.backups import Backups
from app.services.memory.notes import FUNCTIONS, Notes
from app.services.memory.outcome import Outcome
from app.services.memory.sandbox import Sandbox

SECRET = "the-words-that-must-not-get-out"


@dataclass
class Place:
    """A memory folder, and a folder beside it that holds a secret."""

    around: Path
    memory: Path
    outside: Path

    def seen(self) -> dict[str, Any]:
        """Everything around the memory: kinds, links, times, contents."""
        return {str(path): _facts(path) for path in _below(self.around, self.memory)}

    def backups(self) -> Backups:
        """The backups, by a descriptor that is open as long as the object is there."""
        root = paths.open_root(self.memory)
        backups = Backups(root)
        weakref.finalize(backups, os.close, root)
        return backups

    def notes(self) -> Notes:
        return Notes(paths.open_root(self.memory), Audit())


def _below(folder: Path, without: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path == without:
            continue
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path, without)


def _facts(path: Path) -> tuple[Any, ...]:
    found = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(found.st_mode) else None
    return (found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_nlink, content)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    memory, outside = tmp_path / "memory", tmp_path / "outside"
    memory.mkdir()
    outside.mkdir()
    (outside / "secret.md").write_text(SECRET)
    (outside / "folder").mkdir()
    return Place(tmp_path, memory, outside)


class Runner:
    """Runs code in a sandbox on an event loop of its own."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.Runner()
        self._files = ThreadPoolExecutor(1)
        self._sandbox = Sandbox(FUNCTIONS, seconds=seconds)

    def run(self, code: str, notes: Any) -> Outcome:
        async def call(name: str, args: Any, kwargs: Any) -> object:
            return await asyncio.get_running_loop().run_in_executor(self._files, notes.call, name, args, kwargs)

        return self._loop.run(self._sandbox.run(code, call))

    def close(self) -> None:
        self._loop.run(self._sandbox.close())
        self._loop.close()
        self._files.shutdown()


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    os.environ["TILES_TEST_SECRET"] = SECRET  # what no code may find
    runner = Runner(seconds=1.0)
    yield runner
    runner.close()
    del os.environ["TILES_TEST_SECRET"]
