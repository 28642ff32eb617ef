"""Files that are replaced whole or not at all; files and folders that are their owner's alone."""

import os
import tempfile
from pathlib import Path
from typing import IO


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


def _replace(target: Path, content: str) -> None:
    # The same folder, so that the rename cannot cross file systems.
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
