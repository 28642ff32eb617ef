"""Paths that cannot lead out of the memory folder: names are judged first, then opened one by one from a descriptor."""

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DEEPEST = 16  # folders in folders
LONGEST_NAME = 240  # bytes; what keeps backups adds a few to it
LONGEST_PATH = 1024  # characters

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, format and lone surrogates, line separators
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Parts = tuple[str, ...]


class Refused(PermissionError):
    """A path that the agent may not use; the message is for the agent."""


def split(path: object) -> Parts:
    """Give the names of a relative path; none is the memory itself. Raises Refused, TypeError for what is no text."""
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {type(path).__name__}")
    if len(path) > LONGEST_PATH:
        raise Refused(f"a path has at most {LONGEST_PATH} characters")
    if path.startswith("/"):
        raise Refused("paths are relative to the memory and do not begin with /")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    for part in parts:
        _check(part)
    if len(parts) > DEEPEST:
        raise Refused(f"folders are at most {DEEPEST} deep")
    return parts


def usable(name: str) -> bool:
    """Whether a name that lies in a folder is one the agent may see."""
    try:
        _check(name)
    except Refused:
        return False
    return name != "__pycache__"


def _check(name: str) -> None:
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        raise Refused("names have no control or invisible characters")
    for spelling in (name, unicodedata.normalize("NFKC", name)):  # a full-width slash is a slash to somebody
        if spelling.startswith(".."):
            raise Refused("paths do not lead upwards")
        if spelling.startswith("."):
            raise Refused("hidden files are not part of the memory")
        if "/" in spelling or "\\" in spelling:
            raise Refused("folders are separated by /")
    if len(name.encode()) > LONGEST_NAME:
        raise Refused(f"a name has at most {LONGEST_NAME} bytes")


@contextmanager
def opened(root: int, parts: Parts, *, make: bool = False) -> Iterator[int]:
    """Open a folder below `root` and give its descriptor. No link is followed, whoever swaps it in, and when.

    Raises OSError; FileNotFoundError where it is missing and not to be made.
    """
    here = os.dup(root)
    try:
        for part in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=here)
            below = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def open_root(path: str | os.PathLike[str]) -> int:
    """Open the memory folder itself. The path is the user's, and links on the way to it are too."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def lstat(folder: int, name: str) -> os.stat_result | None:
    """Look at a name without following it; None where there is nothing."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def check_file(status: os.stat_result) -> None:
    """Raise Refused for all but a file that has this one name: no link of either kind, no device, no pipe."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("that is a folder")
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise Refused("that is a link or no plain file")


def read(folder: int, name: str, most: int) -> bytes:
    """Read a plain file of at most `most` bytes. Raises OSError, Refused, ValueError for a larger one."""
    if (status := lstat(folder, name)) is None:
        raise FileNotFoundError("it does not exist")
    check_file(status)  # before it is opened, because opening a device may do something
    with os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb") as file:
        check_file(os.fstat(file.fileno()))  # and after, because it may be another one by now
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError("file too large")
    return content
