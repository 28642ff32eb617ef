"""The folders that GGUF files become: each made once, checked when it is used, and evicted when disk space is short.

A folder has its name from the content of the file, wherever that lies. It is made under another name and becomes
visible by a rename. Who makes or uses one holds a lock on it; what nobody holds may be evicted, by any process.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Self

import structlog

from app.services.atomic import private_file, private_folder
from app.services.errors import LoadFailed
from app.services.files import bad
from app.services.gguf.file import GGUFFile

log = structlog.get_logger()

_PART = 64 * 2**20  # bytes that have a checksum of their own, so that several can be computed at a time
_ENDS = 2**20  # bytes at both ends of a file that tell it from others
_CHECKS = 0.2  # of the progress: what is there is soon checked
_TRIES = 8  # another server may make a folder at the same time, or evict it in the moment it is made
_CHECKSUMS, _LOCK = "checksums.json", ".lock"

Steps = Generator[float, None, None]
Make = Callable[[Path], Steps]  # fills a folder; progress from 0 to 1


class Entry:
    """A folder of the cache in use. To be closed, after which it may be evicted."""

    def __init__(self, folder: Path, lock: IO[bytes], on_close: Callable[[], None]) -> None:
        self.folder = folder
        self._lock = lock
        self._on_close = on_close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others evict it."""
        self._lock.close()
        self._on_close()


class GGUFCache:
    """The folders that GGUF files became, the least recently used of which go first."""

    def __init__(self, folder: Path | None = None, max_bytes: int = 0) -> None:
        self._root = folder  # without one there is nothing to open
        self._max_bytes = max_bytes  # 0 keeps none beyond its use

    def open(self, name: str, make: Make) -> Generator[float, None, Entry]:
        """Give the folder of that name, which `make` fills if it is not there or damaged. Yields progress, 0 to 1.

        Raises LoadFailed if it cannot be written.
        """
        try:
            private_folder(self._folder)
            for _ in range(_TRIES):
                entry = (yield from self._existing(name)) or (yield from self._make(name, make))
                if entry is not None:
                    return entry
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            raise bad(error.filename or self._folder, f"cannot be written: {reason}.") from error
        raise bad(self._folder, "does not keep what is written there: choose another --data-dir.")

    @property
    def _folder(self) -> Path:
        if self._root is None:
            raise LoadFailed("There is no folder to convert GGUF files in.")
        return self._root

    def _existing(self, name: str) -> Generator[float, None, Entry | None]:
        folder = self._folder / name
        if (lock := _lock(folder, fcntl.LOCK_SH)) is None:
            if folder.exists() and not (folder / _LOCK).exists():
                shutil.rmtree(folder, ignore_errors=True)  # nobody can use it
            return None
        entry = Entry(folder, lock, self._evict)
        try:
            is_sound = yield from _is_sound(folder)
        except BaseException:
            entry.close()
            raise
        if is_sound:
            os.utime(folder)
            return entry
        log.warning("a converted GGUF file is damaged and made anew", folder=str(folder))
        lock.close()
        _remove(folder)
        if folder.exists():
            raise bad(folder, "is damaged, and in use by another server: stop that, or remove it.")
        return None

    def _make(self, name: str, make: Make) -> Generator[float, None, Entry | None]:
        """Make a folder, and give it in use, so that nobody evicts it before; None if another was faster."""
        self._evict()
        folder, lock = self._unfinished(name)
        made = self._folder / name
        try:
            yield from make(folder)
            _write_checksums(folder)
            with suppress(OSError):  # another process was faster
                folder.rename(made)
                fcntl.flock(lock, fcntl.LOCK_SH)  # others may use it, too, or have evicted it in this moment
                if _is_of(lock, made):
                    return Entry(made, lock, self._evict)
            lock.close()
            return None
        except BaseException:
            lock.close()
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _unfinished(self, name: str) -> tuple[Path, IO[bytes]]:
        """Make an empty folder and lock it. Another process takes it for one that was left until it is locked."""
        while True:
            folder = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=self._folder))
            lock = private_file(folder / _LOCK)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_of(lock, folder):
                return folder, lock
            lock.close()

    def _evict(self) -> None:
        """Remove what was left unfinished, and the least recently used until the others are within the limit."""
        folders = sorted(_folders(self._folder), key=lambda folder: folder[1])
        total = sum(size for _, _, size in folders)
        for folder, _, size in folders:
            if folder.name.startswith(".") or total > self._max_bytes:
                _remove(folder)
                total -= 0 if folder.exists() else size


def content_name(file: GGUFFile, variant: str) -> str:
    """Name what a file becomes, by its content. Raises OSError if it is not there any more."""
    facts: list[object] = [_code(), variant]
    for path in file.paths:
        with path.open("rb") as stream:
            stat = os.fstat(stream.fileno())
            start = hashlib.blake2b(stream.read(_ENDS))
            stream.seek(max(0, stat.st_size - _ENDS))
            start.update(stream.read(_ENDS))
            facts += [stat.st_size, stat.st_mtime_ns, start.hexdigest()]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


@cache
def _code() -> str:
    """Hash the code of this package: what it writes may be another thing after an update."""
    code = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()


def _lock(folder: Path, kind: int) -> IO[bytes] | None:
    """Lock a folder; None if there is none, or if it is not free for that. Waits while it is removed."""
    try:
        lock = (folder / _LOCK).open("rb")
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(lock, kind)
        if _is_of(lock, folder):  # it may have been removed before it was locked
            return lock
    lock.close()
    return None


def _is_of(lock: IO[bytes], folder: Path) -> bool:
    """Whether a lock is that of the folder that is there now."""
    try:
        return os.fstat(lock.fileno()).st_ino == (folder / _LOCK).stat().st_ino
    except OSError:
        return False


def _remove(folder: Path) -> None:
    """Remove a folder, unless somebody makes or uses it."""
    if (lock := _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
        with lock:
            shutil.rmtree(folder, ignore_errors=True)


def _folders(root: Path) -> Iterator[tuple[Path, float, int]]:
    """Give the folders of a cache, with the time of their last use and their bytes."""
    for folder in root.iterdir():
        with suppress(OSError):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            yield folder, folder.stat().st_mtime, size


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != _CHECKSUMS and path.name[0] != "."
    )


def _write_checksums(folder: Path) -> None:
    checksums = {str(path.relative_to(folder)): list(_checksums(path)) for path in _files(folder)}
    with (folder / _CHECKSUMS).open("x") as file:
        json.dump(checksums, file)
        file.flush()
        os.fsync(file.fileno())


def _is_sound(folder: Path) -> Generator[float, None, bool]:
    """Compare all files with their checksums, several parts at a time."""
    try:
        expected = json.loads((folder / _CHECKSUMS).read_bytes())
        if expected.keys() != {str(path.relative_to(folder)) for path in _files(folder)}:
            return False
        with ThreadPoolExecutor(4) as pool:
            checks = [
                pool.submit(partial(_is_equal, folder / name, number, checksum))
                for name, parts in expected.items()
                for number, checksum in enumerate(parts)
            ]
            for done, check in enumerate(checks):
                if not check.result():
                    pool.shutdown(cancel_futures=True)
                    return False
                yield _CHECKS * done / len(checks)
    except (OSError, ValueError, AttributeError, TypeError):
        return False
    return True


def _checksums(path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        while part := file.read(_PART):
            yield zlib.crc32(part)


def _is_equal(path: Path, number: int, checksum: int) -> bool:
    with path.open("rb") as file:
        file.seek(number * _PART)
        return zlib.crc32(file.read(_PART)) == checksum
