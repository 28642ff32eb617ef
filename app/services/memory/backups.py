"""One backup of each note, in a hidden folder of the memory that the agent cannot reach."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from app.services.memory import paths
from app.services.memory.paths import Parts

FOLDER = ".tiles-backup"
_MOST_BYTES = 100 * 2**20  # of all backups; the oldest go first
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Backups:
    """The backups of one memory. The backup of a note is the last content that it had before."""

    def __init__(self, root: int) -> None:
        self._root = root

    def write(self, parts: Parts, content: bytes, *, mode: int = 0o600) -> None:
        """Put a file in the memory in one step, whole or not at all. What the note was becomes its backup."""
        with self._folder() as ours, paths.opened(self._root, parts[:-1], make=True) as folder:
            name = f"new-{secrets.token_hex(8)}"
            try:
                with os.fdopen(os.open(name, _NEW, mode, dir_fd=ours), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                self._keep(ours, folder, parts, copy=True)
                os.rename(name, parts[-1], src_dir_fd=ours, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name, dir_fd=ours)
                raise

    def remove(self, parts: Parts) -> None:
        """Take a file out of the memory; it becomes its backup. Raises OSError."""
        with self._folder() as ours, paths.opened(self._root, parts[:-1]) as folder:
            if not self._keep(ours, folder, parts, copy=False):
                raise FileNotFoundError("it does not exist")

    def undo(self, parts: Parts) -> bool:
        """Exchange a note and its backup; doing it again takes it back. False where there is neither."""
        with self._folder() as ours, paths.opened(self._root, parts[:-1], make=True) as folder:
            with _kept_folder(ours, parts) as kept:
                there = _plain(folder, parts[-1])
                before = _plain(kept, _file(parts[-1]))
                aside = f"new-{secrets.token_hex(8)}"
                if there:
                    os.rename(parts[-1], aside, src_dir_fd=folder, dst_dir_fd=ours)
                if before:
                    os.rename(_file(parts[-1]), parts[-1], src_dir_fd=kept, dst_dir_fd=folder)
                if there:
                    os.rename(aside, _file(parts[-1]), src_dir_fd=ours, dst_dir_fd=kept)
                return there or before

    def kept(self) -> list[tuple[float, Parts]]:
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

    def _trim(self, ours: int) -> None:
        found = sorted(_walk(ours))
        total = sum(size for _, size, _ in found)
        for _, size, parts in found:
            if total <= _MOST_BYTES:
                return
            with _kept_folder(ours, parts) as kept:
                os.unlink(_file(parts[-1]), dir_fd=kept)
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
        with _kept_folder(ours, parts) as kept:
            if not copy:
                os.rename(name, _file(name), src_dir_fd=folder, dst_dir_fd=kept)
                os.utime(_file(name), dir_fd=kept, follow_symlinks=False)
                return True
            content = paths.read(folder, name, 2**24)
            aside = f"new-{secrets.token_hex(8)}"
            with os.fdopen(os.open(aside, _NEW, 0o600, dir_fd=ours), "wb") as file:
                file.write(content)
            os.rename(aside, _file(name), src_dir_fd=ours, dst_dir_fd=kept)
            return True


def _plain(folder: int, name: str) -> bool:
    """Whether a plain file is there. Raises OSError for something else."""
    if (found := paths.facts(folder, name)) is None:
        return False
    paths.check_file(found)
    return True


@contextmanager
def _kept_folder(ours: int, parts: Parts) -> Iterator[int]:
    # Other endings than files have, so that a note may be where a folder was.
    with paths.opened(ours, tuple(f"{part}.d" for part in parts[:-1]), make=True) as kept:
        yield kept


def _file(name: str) -> str:
    return f"{name}.bak"


def _walk(folder: int, above: Parts = ()) -> Iterator[tuple[float, int, Parts]]:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False), entry.stat(follow_symlinks=False)) for entry in entries]
    for name, is_folder, facts in found:
        if is_folder and name.endswith(".d"):
            with paths.opened(folder, (name,)) as below:
                yield from _walk(below, (*above, name.removesuffix(".d")))
        elif not is_folder and name.endswith(".bak"):
            yield facts.st_mtime, facts.st_size, (*above, name.removesuffix(".bak"))
