"""Which folders may be a session's memory: the model will read and write what is in them."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.services.atomic import private_folder
from app.services.errors import InvalidRequest


def missing(memory_path: str) -> list[Path]:
    """Give the folders that `prepare` would make, the innermost first. Raises InvalidRequest."""
    folder = _resolved(memory_path)
    return [each for each in (folder, *folder.parents) if not os.path.lexists(each)]


def try_prepare(memory_path: str, data_dir: Path, session_file: Path) -> tuple[list[Path], str | None]:
    """Make the folder of a memory, if it can be one. Gives the folders that were made, the innermost first, and why
    it cannot be used."""
    new: list[Path] = []
    try:
        new = missing(memory_path)
        prepare(memory_path, data_dir, session_file)
    except InvalidRequest as error:
        remove(new)
        return [], error.message
    return new, None


def remove(folders: Iterable[Path]) -> None:
    """Take away folders that were made in vain, as far as they are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def prepare(memory_path: str, data_dir: Path, session_file: Path) -> Path:
    """Give the folder of a memory, made when missing. Raises InvalidRequest for one that cannot or may not be it."""
    folder = _resolved(memory_path)
    ours = {data_dir.resolve(), *data_dir.resolve().parents, *session_file.resolve().parents}
    home = _resolved("~")
    if folder in {home, *home.parents, *ours}:
        raise _refused(
            "may not be /, the home folder or a folder that holds this server's own files: give a folder of its own"
        )
    try:
        private_folder(folder)
    except FileExistsError:
        raise _refused(f"is not a folder: {folder}") from None
    except OSError as error:
        raise _refused(f"cannot be made: {folder}: {error.strerror}") from None
    _check_writable(folder)
    return folder


def _resolved(memory_path: str) -> Path:
    try:
        path = Path(memory_path).expanduser()
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError):
        raise _refused("is no path of this machine") from None
    if not path.is_absolute():  # where the server was started is nobody's choice
        raise _refused("has to be a whole path, from / or ~ on")
    return resolved


def _check_writable(folder: Path) -> None:
    # Permissions alone do not tell: a disk may be mounted read-only.
    try:
        next(folder.iterdir(), None)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _refused(f"is not writable: {folder}: {error.strerror}") from None


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"memory_path {why}", param="memory_path")
