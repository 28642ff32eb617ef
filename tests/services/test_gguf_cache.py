"""The folders that GGUF files become: made once, found damaged, evicted when nobody uses them."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.services.errors import LoadFailed
from app.services.gguf.cache import Entry, GGUFCache, Steps

SIZE = 1000  # bytes of an entry's content


@pytest.fixture
def made() -> list[str]:
    """The names of the entries that were made, in order."""
    return []


def maker(made: list[str], name: str = "entry", size: int = SIZE) -> Callable[[Path], Steps]:
    def make(folder: Path) -> Steps:
        made.append(name)
        yield 0.5
        (folder / "config.json").write_bytes(b"x" * size)
        (folder / "more").mkdir()
        (folder / "more" / "template.jinja").write_bytes(b"y")

    return make


def opened(cache: GGUFCache, name: str, made: list[str], size: int = SIZE) -> Entry:
    steps = cache.open(name, maker(made, name, size))
    while True:
        try:
            assert 0 <= next(steps) <= 1
        except StopIteration as end:
            entry: Entry = end.value
            return entry


def entries(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_an_entry_is_made_once(tmp_path: Path, made: list[str]) -> None:
    cache = GGUFCache(tmp_path, 10**6)
    for _ in range(2):
        with opened(cache, "a", made) as entry:
            assert entry.folder == tmp_path / "a"
            assert (entry.folder / "config.json").stat().st_size == SIZE
    with opened(GGUFCache(tmp_path, 10**6), "a", made):
        assert made == ["a"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": lambda folder: flip(folder / "config.json"),
    "cut short": lambda folder: os.truncate(folder / "config.json", SIZE // 2),
    "emptied": lambda folder: (folder / "more" / "template.jinja").write_bytes(b""),
    "a file gone": lambda folder: (folder / "more" / "template.jinja").unlink(),
    "a file too many": lambda folder: (folder / "model.safetensors").write_bytes(b"z"),
    "no checksums": lambda folder: (folder / "checksums.json").unlink(),
    "bad checksums": lambda folder: (folder / "checksums.json").write_text('{"config.json": 3}'),
    "checksums of another kind": lambda folder: (folder / "checksums.json").write_text("[]"),
    "no lock": lambda folder: (folder / ".lock").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_entry_is_made_anew(tmp_path: Path, made: list[str], damage: Callable[[Path], object]) -> None:
    cache = GGUFCache(tmp_path, 10**6)
    opened(cache, "a", made).close()
    damage(tmp_path / "a")
    with opened(cache, "a", made) as entry:
        assert made == ["a", "a"]
        assert (entry.folder / "config.json").read_bytes() == b"x" * SIZE
        assert (entry.folder / "more" / "template.jinja").read_bytes() == b"y"


def test_a_half_written_entry_is_never_seen_and_goes(tmp_path: Path, made: list[str]) -> None:
    cache = GGUFCache(tmp_path, 10**6)
    steps = cache.open("a", maker(made))
    next(steps)
    assert len(entries(tmp_path)) == 1
    assert not (tmp_path / "a").exists()
    with opened(cache, "b", made):
        assert len(entries(tmp_path)) == 2, "another one is still being made"
    steps.close()
    assert entries(tmp_path) == {"b"}


def test_what_a_killed_process_left_goes(tmp_path: Path, made: list[str]) -> None:
    left = tmp_path / ".a.abcdefgh"
    left.mkdir()
    (left / ".lock").touch()
    (left / "model.safetensors").write_bytes(b"x" * SIZE)
    with opened(GGUFCache(tmp_path, 10**6), "a", made):
        assert entries(tmp_path) == {"a"}


def test_the_least_recently_used_is_evicted(tmp_path: Path, made: list[str]) -> None:
    cache = GGUFCache(tmp_path, 5 * SIZE // 2)
    for time, name in enumerate("abab", 1):
        opened(cache, name, made).close()
        os.utime(tmp_path / name, (time, time))
    opened(cache, "c", made).close()
    assert entries(tmp_path) == {"b", "c"}
    assert made == ["a", "b", "c"]


def test_what_is_in_use_stays(tmp_path: Path, made: list[str]) -> None:
    cache = GGUFCache(tmp_path, 0)
    other = GGUFCache(tmp_path, 0)  # as another server's
    with opened(cache, "a", made):
        opened(other, "b", made).close()
        assert entries(tmp_path) == {"a"}
        with opened(other, "a", made):
            assert made == ["a", "b"]
    assert entries(tmp_path) == set()


def test_without_a_limit_nothing_is_left(tmp_path: Path, made: list[str]) -> None:
    for _ in range(2):
        opened(GGUFCache(tmp_path, 0), "a", made).close()
    assert made == ["a", "a"]
    assert entries(tmp_path) == set()


def test_two_that_make_the_same_at_once_have_one(tmp_path: Path, made: list[str]) -> None:
    cache, other = GGUFCache(tmp_path, 10**6), GGUFCache(tmp_path, 10**6)
    steps = cache.open("a", maker(made))
    next(steps)
    first = opened(other, "a", made)
    with pytest.raises(StopIteration) as end:
        while True:
            next(steps)
    with first, end.value.value as second:
        assert first.folder == second.folder
    assert made == ["entry", "a"]
    assert entries(tmp_path) == {"a"}


def test_many_at_once_all_get_it(tmp_path: Path, made: list[str]) -> None:
    """With a limit that evicts what nobody uses at any moment."""
    failures: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(5):
                with opened(GGUFCache(tmp_path, 10**6), "a", made) as entry:
                    assert (entry.folder / "config.json").read_bytes() == b"x" * SIZE
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert entries(tmp_path) == {"a"}


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def make(folder: Path) -> Steps:
        (folder / "half").write_bytes(b"x")
        yield 0.5
        raise LoadFailed("no such tensor")

    with pytest.raises(LoadFailed, match="no such tensor"):
        list(GGUFCache(tmp_path, 10**6).open("a", make))
    assert entries(tmp_path) == set()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    def make(folder: Path) -> Steps:
        yield 0.5
        raise OSError(28, "No space left on device", str(folder / "model.safetensors"))

    with pytest.raises(LoadFailed, match=r"model\.safetensors cannot be written: no space left on device"):
        list(GGUFCache(tmp_path, 10**6).open("a", make))
    assert entries(tmp_path) == set()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, made: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LoadFailed, match="file"):
        opened(GGUFCache(tmp_path / "file" / "gguf", 10**6), "a", made)
