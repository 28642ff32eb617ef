"""This server into the place of Tiles' own and back, so that at every moment one of the two is there, whole.

A run that was killed leaves the names of `names.py` behind. Each of these folders says itself whose it is, so the next
run can finish or undo the other one's work (`_settle`).
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from secrets import token_hex

from app.services.tiles_library import CannotSwap, server_folder
from app.services.tiles_library.exchange import exchange
from app.services.tiles_library.names import INCOMING, ORIGINAL, OUTGOING, SERVER, WORK


class Undone(Enum):
    """What `uninstall` did."""

    RESTORED = "Tiles' own server is back, as it was."
    UPDATED_SINCE = "Tiles' own server is in place, as an update of Tiles has put it; the older one is removed."
    NOTHING = "Tiles' own server is in place; there is nothing to undo."


@dataclass(frozen=True, slots=True)
class State:
    """What stands in a library folder."""

    is_ours: bool
    is_missing: bool  # only after a swap that was killed, on a file system that cannot exchange two folders
    has_original: bool


def state(library: Path) -> State:
    """Look, and change nothing."""
    server = library / SERVER
    aside = [library / name for name in (ORIGINAL, INCOMING, OUTGOING)]
    return State(
        is_ours=server_folder.is_ours(server),
        is_missing=not os.path.lexists(server),
        has_original=any(os.path.lexists(path) and not server_folder.is_ours(path) for path in aside),
    )


def install(library: Path, check: Callable[[Path], object] = server_folder.try_start) -> None:
    """Put this server into the place of what is there, which is kept aside if it is Tiles' own.

    `check` gets a folder in which the new `server` lies, and raises if it would not start. Raises CannotSwap, OSError.
    """
    with _alone(library):
        work = Path(tempfile.mkdtemp(prefix=WORK, dir=library))
        try:
            server_folder.build(work / SERVER)
            check(work)
            (work / SERVER).rename(library / INCOMING)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        exchange(library / SERVER, library / INCOMING, library / OUTGOING)
        _settle(library)


def uninstall(library: Path) -> Undone:
    """Put Tiles' own server back. Raises CannotSwap where it is gone, OSError."""
    with _alone(library):
        server, original = library / SERVER, library / ORIGINAL
        if server_folder.is_ours(server):
            if not os.path.lexists(original):
                raise CannotSwap(f"There is no {original} to put back. `tiles update`, or Tiles' installer, brings it.")
            exchange(server, original, library / OUTGOING)
            _settle(library)
            return Undone.RESTORED
        if os.path.lexists(original):
            _discard(original)
            return Undone.UPDATED_SINCE
        return Undone.NOTHING


@contextmanager
def _alone(library: Path) -> Iterator[None]:
    """Keep others out, and settle what one that was killed has left. Raises CannotSwap while another is at it."""
    handle = os.open(library, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _settle(library)
        yield
    except BlockingIOError:
        raise CannotSwap(f"Another tiles-server is at work in {library}.") from None
    finally:
        os.close(handle)


def _settle(library: Path) -> None:
    """Bring the names of `names.py` to rest: at most SERVER and ORIGINAL are left, and ORIGINAL is Tiles' own.

    INCOMING and OUTGOING are Tiles' own only after a swap, and then they are what stood in place before it. That is
    newer than ORIGINAL, which then was there before an update of Tiles.
    """
    server, original = library / SERVER, library / ORIGINAL
    for name in (OUTGOING, ORIGINAL, INCOMING):
        if not os.path.lexists(server) and os.path.lexists(library / name):
            (library / name).rename(server)
    for path in (library / OUTGOING, library / INCOMING, original):
        if not os.path.lexists(path):
            continue
        if server_folder.is_ours(path):
            _discard(path)
        elif path != original:
            if os.path.lexists(original):
                _discard(original)
            path.rename(original)
    for work in library.glob(f"{WORK}*"):
        _remove(work)


def _discard(path: Path) -> None:
    """Remove a folder that nobody may take for a whole one while it is half removed."""
    path.rename(work := path.with_name(f"{WORK}{token_hex(4)}"))
    _remove(work)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
