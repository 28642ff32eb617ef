"""One backup of each note, in a hidden folder of the memory that the agent cannot reach."""

import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from app.services.memory import paths
from app.services.memory.paths import Parts

FOLDER = ".tiles-backup"
_MOST_BYTES = 100 * 2**20  # of all backups; the oldest go first
_MOST_IN_BACKUP = 16 * 2**20  # a larger file is the user's own, and the agent does not write it
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Backups:
    """The backups of one memory. The backup of a note is the last content that it had before."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._grown = 0  # bytes since the last trim

    def write(self, parts: Parts, content: bytes) -> None:
        """Put a file in the memory in one step, whole or not at all. What the note was becomes its backup."""
        with self._folder() as ours, paths.opened(self._root, parts[:-1], make=True) as folder:
            status = paths.lstat(folder, parts[-1])
            with _new(ours, content, mode=stat.S_IMODE(status.st_mode) & 0o777 if status else 0o600) as name:
                self._keep(ours, folder, parts, copy=True)
                os.rename(name, parts[-1], src_dir_fd=ours, dst_dir_fd=folder)

    def remove(self, parts: Parts) -> None:
        """Take a file out of the memory; it becomes its backup. Raises OSError."""
        with self._folder() as ours, paths.opened(self._root, parts[:-1]) as folder:
            if not self._keep(ours, folder, parts, copy=False):
                raise FileNotFoundError("it does not exist")

    def undo(self, parts: Parts) -> bool:
        """Exchange a note and its backup; doing it again takes it back. False where there is neither."""
        name = parts[-1]
        with (
            self._folder() as ours,
            paths.opened(self._root, parts[:-1], make=True) as folder,
            _backup_folder(ours, parts) as backup_folder,
        ):
            there, before = _plain(folder, name), _plain(backup_folder, _file(name))
            if there and before:
                with _new(ours, paths.read(folder, name, _MOST_IN_BACKUP), mode=0o600) as copy:
                    os.rename(_file(name), name, src_dir_fd=backup_folder, dst_dir_fd=folder)
                os.rename(copy, _file(name), src_dir_fd=ours, dst_dir_fd=backup_folder)  # now the only one
            elif there:
                os.rename(name, _file(name), src_dir_fd=folder, dst_dir_fd=backup_folder)
            elif before:
                os.rename(_file(name), name, src_dir_fd=backup_folder, dst_dir_fd=folder)
            return there or before

    def list_backups(self) -> list[tuple[float, Parts]]:
        """Give what has a backup, with the time of it, newest first."""
        try:
            with paths.opened(self._root, (FOLDER,)) as ours:
                return sorted(((when, parts) for when, _, parts in _walk(ours)), reverse=True)
        except OSError:
            return []

    def trim(self) -> None:
        """Let the oldest backups go when they take too much."""
        try:
            with paths.opened(self._root, (FOLDER,)) as ours:
                self._trim(ours)
        except OSError:
            return

    def _grow(self, ours: int, folder: int, name: str) -> None:
        status = paths.lstat(folder, name)
        self._grown += status.st_size if status else 0
        if self._grown > _MOST_BYTES // 4:  # one run may write for long
            self._trim(ours)

    def _trim(self, ours: int) -> None:
        self._grown = 0
        _remove_leftovers(ours)
        backups = sorted(_walk(ours))
        total = sum(size for _, size, _ in backups)
        for _, size, parts in backups:
            if total <= _MOST_BYTES:
                return
            with _backup_folder(ours, parts) as backup_folder:
                os.unlink(_file(parts[-1]), dir_fd=backup_folder)
            total -= size

    @contextmanager
    def _folder(self) -> Iterator[int]:
        with paths.opened(self._root, (FOLDER,), make=True) as ours:
            yield ours

    def _keep(self, ours: int, folder: int, parts: Parts, *, copy: bool) -> bool:
        """Make the note its backup. False where there is no note; raises Refused for what is no plain file."""
        name = parts[-1]
        if not _plain(folder, name):
            return False
        self._grow(ours, folder, name)
        with _backup_folder(ours, parts) as backup_folder:
            if not copy:
                os.rename(name, _file(name), src_dir_fd=folder, dst_dir_fd=backup_folder)
                os.utime(_file(name), dir_fd=backup_folder, follow_symlinks=False)
                return True
            content = paths.read(folder, name, _MOST_IN_BACKUP)
            with _new(ours, content, mode=0o600) as new:
                os.rename(new, _file(name), src_dir_fd=ours, dst_dir_fd=backup_folder)
            return True


@contextmanager
def _new(ours: int, content: bytes, *, mode: int) -> Iterator[str]:
    """Write a new file beside the backups, to be renamed to where it belongs; nothing of it is left otherwise."""
    name = f"new-{secrets.token_hex(8)}"
    try:
        with os.fdopen(os.open(name, _NEW, mode, dir_fd=ours), "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        yield name
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=ours)
        raise


def _remove_leftovers(ours: int) -> None:
    """Remove what a kill left half written, an hour later: another server may be writing here."""
    with os.scandir(ours) as entries:
        leftovers = [entry.name for entry in entries if entry.name.startswith("new-") and _old(entry)]
    for name in leftovers:
        with suppress(OSError):
            os.unlink(name, dir_fd=ours)


def _old(entry: "os.DirEntry[str]") -> bool:
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > 3600


def _plain(folder: int, name: str) -> bool:
    """Whether a plain file is there. Raises OSError for something else."""
    if (status := paths.lstat(folder, name)) is None:
        return False
    paths.check_file(status)
    return True


@contextmanager
def _backup_folder(ours: int, parts: Parts) -> Iterator[int]:
    # Other endings than files have, so that a note may be where a folder was.
    with paths.opened(ours, tuple(f"{part}.d" for part in parts[:-1]), make=True) as backup_folder:
        yield backup_folder


def _file(name: str) -> str:
    return f"{name}.bak"


def _walk(folder: int, above: Parts = ()) -> Iterator[tuple[float, int, Parts]]:
    with os.scandir(folder) as entries:
        children = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    for name, status in children:
        if stat.S_ISDIR(status.st_mode) and name.endswith(".d"):
            with paths.opened(folder, (name,)) as below:
                yield from _walk(below, (*above, name.removesuffix(".d")))
        elif stat.S_ISREG(status.st_mode) and name.endswith(".bak"):
            yield status.st_mtime, status.st_size, (*above, name.removesuffix(".bak"))
