"""Files that are whole or not there, and what is left of those who were killed over one."""

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.services import atomic
from app.services.memory import backups, paths
from app.services.stored_responses import StoredResponses

NAMES = re.compile(r"(session|resp_\d)\.json")
IDENTITY = f"resp_{7:032x}"
KILLED = """
import os, signal, sys
from pathlib import Path
from app.services import atomic
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
atomic.write(Path(sys.argv[1]), "secret " * 1000)
"""


def killed_over(path: Path) -> Path:
    """Leave what a process leaves that is killed between its write and its rename."""
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -signal.SIGKILL
    (unfinished,) = (one for one in path.parent.iterdir() if one.name.startswith(f".{path.name}."))
    before = time.time() - 86_400  # the next server starts later
    os.utime(unfinished, (before, before))
    return unfinished


def test_what_a_killed_process_left_goes_and_nothing_else_does(tmp_path: Path) -> None:
    unfinished = killed_over(tmp_path / "session.json")
    others = [tmp_path / name for name in ("session.json", ".session.json", ".bashrc", ".another.json.12-abcdefgh")]
    for other in others:
        other.write_text("mine")
    atomic.tidy(tmp_path, NAMES)
    assert not unfinished.exists()
    assert all(other.exists() for other in others)


@pytest.mark.parametrize(
    ("writer", "hours", "goes"),
    [
        pytest.param(f"{os.getpid()}-", 0.5, True, id="a predecessor with the same id, as in a container"),
        pytest.param(f"{os.getppid()}-", 0.5, False, id="another server that may still be at it"),
        pytest.param(f"{os.getppid()}-", 2, True, id="another process for too long"),
        pytest.param("99999999999999999999-", 0.5, True, id="an id that no process has"),
        pytest.param("", 0.5, False, id="an older version, which left no id"),
        pytest.param("", 2, True, id="an older version, for too long"),
        pytest.param(f"{os.getpid()}-", -1, False, id="since this process began"),
    ],
)
def test_who_lives_may_still_be_writing(tmp_path: Path, writer: str, hours: float, goes: bool) -> None:
    unfinished = tmp_path / f".session.json.{writer}abcd_123"
    unfinished.write_text("half")
    written = time.time() - hours * 3600
    os.utime(unfinished, (written, written))
    atomic.tidy(tmp_path, NAMES)
    assert unfinished.exists() is not goes


def test_a_folder_that_is_not_there_is_tidy(tmp_path: Path) -> None:
    atomic.tidy(tmp_path / "nowhere", NAMES)
    atomic.remove(tmp_path / "nowhere" / "file")


def test_responses_are_tidied_at_the_start_and_forgotten_whole(tmp_path: Path) -> None:
    kept = StoredResponses(tmp_path, enabled=True, days=30, most_bytes=2**20)
    path = tmp_path / f"{IDENTITY}.json"
    killed_over(path)
    kept.tidy()
    assert list(tmp_path.iterdir()) == []
    kept.save(IDENTITY, b"{}")
    killed_over(path)
    assert kept.delete(IDENTITY)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write(tmp_path / "session.json", "x")
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "note.md").write_text("before")
    root = paths.open_root(memory)
    try:
        with pytest.raises(OSError, match="No space"):
            backups.Backups(root).write(("note.md",), b"after")
    finally:
        os.close(root)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [memory / "note.md"]
    assert (memory / "note.md").read_text() == "before"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def generous() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous")
def test_all_that_is_made_is_its_owners_alone_and_nothing_else_is_changed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "theirs").mkdir(mode=0o755)
    (tmp_path / "theirs" / "ours.json").write_text("old")
    atomic.write(tmp_path / "theirs" / "ours.json", "new")
    atomic.write(tmp_path / "a" / "b" / "c.json", "{}")
    atomic.private_folder(tmp_path / "d" / "e")
    atomic.private_folder(tmp_path / "theirs")
    with atomic.private_file(tmp_path / "f") as file:
        file.write(b"x")
    for folder in ("a", "a/b", "d", "d/e"):
        assert mode(tmp_path / folder) == 0o700
    for file_name in ("a/b/c.json", "theirs/ours.json", "f"):
        assert mode(tmp_path / file_name) == 0o600
    assert mode(tmp_path) == mode(tmp_path / "theirs") == 0o755


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"):
        with pytest.raises(OSError):
            atomic.private_folder(path)
