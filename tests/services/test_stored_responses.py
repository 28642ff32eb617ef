"""Responses on disk: whole, private, and not for ever."""

import os
import stat
import time
from pathlib import Path

import pytest

from app.services.stored_responses import StoredResponses


def identity(number: int) -> str:
    return f"resp_{number:032x}"


def store(folder: Path, *, enabled: bool = True, days: float = 30, most_bytes: int = 2**30) -> StoredResponses:
    return StoredResponses(folder / "responses", enabled=enabled, days=days, most_bytes=most_bytes)


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "responses").iterdir())


def test_what_is_saved_is_read_also_by_the_next_server(tmp_path: Path) -> None:
    assert store(tmp_path).save(identity(1), b"one")
    assert store(tmp_path).read(identity(1)) == b"one"
    assert store(tmp_path).read(identity(2)) is None


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    store(tmp_path / "new").save(identity(1), b"one")
    folder = tmp_path / "new" / "responses"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


def test_what_is_deleted_is_gone(tmp_path: Path) -> None:
    responses = store(tmp_path)
    responses.save(identity(1), b"one")
    assert responses.delete(identity(1))
    assert not responses.delete(identity(1))
    assert responses.read(identity(1)) is None
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "odd", ["", "resp_1", "../../etc/passwd", f"{identity(1)}/..", f"{identity(1)}\n", "resp_" + "g" * 32]
)
def test_no_id_leads_out_of_the_folder(tmp_path: Path, odd: str) -> None:
    responses = store(tmp_path)
    (tmp_path / "passwd.json").write_text("secret")
    responses.save(identity(1), b"one")
    assert responses.read(odd) is None
    assert not responses.delete(odd)


def test_the_oldest_go_first_when_there_is_no_room(tmp_path: Path) -> None:
    responses = store(tmp_path, most_bytes=25)
    for number in range(4):
        responses.save(identity(number), b"x" * 10)
    assert names(tmp_path) == [identity(2), identity(3)]
    again = store(tmp_path, most_bytes=25)  # knows them from the disk
    again.save(identity(4), b"x" * 10)
    assert names(tmp_path) == [identity(3), identity(4)]


def test_what_is_too_old_is_not_read_and_goes_with_the_next(tmp_path: Path) -> None:
    responses = store(tmp_path, days=1)
    responses.save(identity(1), b"one")
    long_ago = time.time() - 2 * 86_400
    os.utime(tmp_path / "responses" / f"{identity(1)}.json", (long_ago, long_ago))
    assert responses.read(identity(1)) is None
    later = store(tmp_path, days=1)
    later.save(identity(2), b"two")
    assert names(tmp_path) == [identity(2)]


def test_what_is_too_old_goes_when_the_server_starts(tmp_path: Path) -> None:
    for number in (1, 2):
        store(tmp_path).save(identity(number), b"x")
    long_ago = time.time() - 31 * 86_400
    os.utime(tmp_path / "responses" / f"{identity(1)}.json", (long_ago, long_ago))
    store(tmp_path, enabled=False).tidy()  # whether or not this server keeps any
    assert names(tmp_path) == [identity(2)]


def test_turned_off_it_neither_keeps_nor_gives(tmp_path: Path) -> None:
    store(tmp_path).save(identity(1), b"one")
    off = store(tmp_path, enabled=False)
    assert not off.save(identity(2), b"two")
    assert off.read(identity(1)) is None
    assert names(tmp_path) == [identity(1)]


def test_where_nothing_can_be_written_nothing_breaks(tmp_path: Path) -> None:
    (tmp_path / "responses").write_text("a file in its place")
    responses = store(tmp_path)
    assert not responses.save(identity(1), b"one")
    assert responses.read(identity(1)) is None
    assert not responses.delete(identity(1))


def test_what_somebody_else_removed_does_no_harm(tmp_path: Path) -> None:
    responses = store(tmp_path, most_bytes=15)
    responses.save(identity(1), b"x" * 10)
    (tmp_path / "responses" / f"{identity(1)}.json").unlink()
    assert responses.save(identity(2), b"x" * 10)
    assert names(tmp_path) == [identity(2)]
