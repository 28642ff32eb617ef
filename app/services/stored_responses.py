"""Responses kept on disk, so that a conversation can go on from one of them."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import structlog

from app.services import atomic
from app.services.stored_images import StoredImages, join, split

log = structlog.get_logger(__name__)

_ID = re.compile(r"resp_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class _Entry:
    written_at: float  # Unix seconds
    size: int  # bytes


class StoredResponses:
    """A folder of files, each a response under its id. What is in them is the dialect's affair, but for images.

    Files are for their owner alone; those that are too old, and the oldest of too many, are removed. Its methods touch
    the disk and may be called from any thread.
    """

    def __init__(self, folder: Path, *, enabled: bool, days: float, most_bytes: int) -> None:
        self.enabled = enabled
        self._folder = folder
        self._images = StoredImages(folder)
        self._seconds = days * 86_400
        self._most_bytes = most_bytes
        self._entries: dict[str, _Entry] | None = None  # oldest first; None until somebody looks
        self._lock = Lock()

    def tidy(self) -> None:
        """Remove what is too old, the oldest of what is too much, and what was written in vain."""
        with self._lock:
            atomic.tidy(self._folder, re.compile(rf"{_ID.pattern}\.(json|[0-9a-f]{{32}}\.image)"))
            entries = self._look()
            self._images.tidy(entries.keys())
            self._make_room(entries)

    def save(self, identity: str, content: bytes) -> bool:
        """Keep a response: the whole of it or, with a warning and False, nothing."""
        if not self.enabled:
            return False
        text, images = split(content)
        with self._lock:
            entries = self._look()
            try:
                self._images.save(identity, images)
                atomic.write(self._path(identity), text.decode())
            except OSError as error:
                self._images.remove(identity)
                log.warning("response not kept", reason=str(error))
                return False
            entries[identity] = _Entry(time.time(), len(text))
            self._make_room(entries)
        return True

    def read(self, identity: str) -> bytes | None:
        """Give a response, None where there is none by this id or it is too old."""
        if not self.enabled or not _ID.fullmatch(identity):
            return None
        path = self._path(identity)
        try:
            if path.stat().st_mtime < time.time() - self._seconds:
                return None
            return join(path.read_bytes(), partial(self._images.read, identity))
        except (OSError, ValueError):
            return None

    def delete(self, identity: str) -> bool:
        """Forget a response. False if there is none by this id."""
        if self.read(identity) is None:
            return False
        with self._lock:
            self._remove(identity, self._look())
            atomic.remove(self._path(identity))
        return True

    def _path(self, identity: str) -> Path:
        return self._folder / f"{identity}.json"

    def _look(self) -> dict[str, _Entry]:
        if self._entries is None:
            entries = {}
            for path in self._folder.glob("resp_*.json"):
                with suppress(OSError):  # another server on this folder may have removed it
                    facts = path.stat()
                    entries[path.stem] = _Entry(facts.st_mtime, facts.st_size)
            self._images.look()
            self._entries = dict(sorted(entries.items(), key=lambda item: item[1].written_at))
        return self._entries

    def _make_room(self, entries: dict[str, _Entry]) -> None:
        total = sum(one.size for one in entries.values())
        oldest = time.time() - self._seconds
        for identity, one in list(entries.items()):
            if one.written_at >= oldest and total + self._images.size <= self._most_bytes:
                return
            total -= one.size
            self._remove(identity, entries)

    def _remove(self, identity: str, entries: dict[str, _Entry]) -> None:
        entries.pop(identity, None)
        with suppress(OSError):
            self._path(identity).unlink(missing_ok=True)
        self._images.remove(identity)
