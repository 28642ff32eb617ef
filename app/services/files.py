"""Files of a model, read with errors that say which one is bad and why."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from app.services.errors import LoadFailed


@contextmanager
def explained(path: object) -> Iterator[None]:
    """Turn what the system says of a path into a LoadFailed."""
    try:
        yield
    except OSError as error:
        raise bad(error.filename or path, f"cannot be read: {(error.strerror or 'unknown reason').lower()}.") from error
    except (ValueError, RuntimeError) as error:
        raise bad(path, f"is no usable path: {error}.") from error


def bad(path: object, what: str) -> LoadFailed:
    """Make the error that says what is wrong with a path."""
    # A path may hold bytes that are no UTF-8; a message must not.
    return LoadFailed(f"{path} {what}".encode("utf-8", "replace").decode())


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file. Raises LoadFailed."""
    content = _decoded(path)
    if not isinstance(content, dict):
        raise bad(path, "is no JSON object.")
    return content


def read(path: Path) -> bytes:
    """Read a file that may be neither missing nor empty. Raises LoadFailed."""
    if path.is_symlink() and not path.exists():
        raise bad(path, "points to a file that is not there: its download has not finished.")
    if not path.is_file():
        raise bad(path, "is missing.")
    content = path.read_bytes()
    if not content:
        raise bad(path, "is empty.")
    return content


def check_object(path: Path, content: bytes) -> None:
    """Raise LoadFailed for content that is no JSON object."""
    try:
        # Raw checks the syntax and builds nothing: these files are large.
        msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError) as error:
        raise bad(path, f"is no JSON object: {error}.") from error


def read_objects(path: Path) -> list[dict[str, Any]]:
    """Read the list of JSON objects in a file. Raises LoadFailed."""
    content = _decoded(path)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise bad(path, "is no JSON list of objects.")
    return content


def _decoded(path: Path) -> Any:
    try:
        return json.loads(read(path))
    except (ValueError, RecursionError) as error:
        raise bad(path, f"is no JSON: {error}.") from error
