"""Files that are replaced whole or not at all; files and folders that are their owner's alone."""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

_BEGAN = time.time()  # Unix seconds
_OLD = 3600.0  # seconds after which nobody is still writing
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.((?P<writer>\d+)-)?\w{8}(\.safetensors)?")


def regular(path: Path) -> Path:
    """Refuse devices and pipes: /dev/null must not be replaced, and a pipe would block. Raises OSError."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no regular file")
    return path


def private_folder(path: Path) -> None:
    """Make a folder where there is none, and those above it, for their owner alone. Raises OSError.

    Folders that are there stay as they are: `mkdir` gives its mode to the last one only.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def private_file(path: Path) -> IO[bytes]:
    """Open a file to write it anew; one that is made is its owner's alone. Raises OSError."""
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))


def write(path: Path, content: str) -> None:
    """Replace a file, or make it and its folder. A link stays a link: what it points to is replaced. Raises OSError."""
    target = Path(os.path.realpath(path))
    private_folder(target.parent)
    _replace(regular(target), content)


def tidy(folder: Path, names: re.Pattern[str]) -> None:
    """Remove what processes left that were killed while they wrote files of these names."""
    for path, match in _unfinished(folder):
        with suppress(OSError):
            if names.fullmatch(match["name"]) and _is_left(path.stat().st_mtime, match["writer"]):
                path.unlink()


def remove(path: Path) -> None:
    """Remove a file and whatever was written of it in vain."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
    for unfinished, match in _unfinished(path.parent):
        if match["name"] == path.name:
            with suppress(OSError):
                unfinished.unlink()


def unfinished_name(name: str) -> str:
    """Begin a hidden name for a file that is still being written; eight characters of chance belong behind it."""
    return f".{name}.{os.getpid()}-"


def _unfinished(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if (match := _UNFINISHED.fullmatch(path.name)) is not None:
                yield path, match


def _is_left(written_at: float, writer: str | None) -> bool:
    """Whether nobody goes on with it; another server may be writing here."""
    if written_at >= _BEGAN:
        return False
    if time.time() - written_at > _OLD:
        return True
    return writer is not None and (int(writer) == os.getpid() or not _lives(int(writer)))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _replace(target: Path, content: str) -> None:
    # The same folder, so that the rename cannot cross file systems.
    handle, name = tempfile.mkstemp(prefix=unfinished_name(target.name), dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
