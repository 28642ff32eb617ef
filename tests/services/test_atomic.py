import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.services import atomic


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
