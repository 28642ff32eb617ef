"""What happens to the models, for whoever follows it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Literal

from app.services.model_state import FileProgress, ModelState

_MAX_UNREAD = 1000  # changes; a subscriber that is further behind has stopped reading

ChangeKind = Literal["load_begins", "status", "list_grows", "model_goes"]
DownloadKind = Literal["download_progress", "download_finished", "download_failed"]


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A model that begins to load, has another status or progress, is new in the list or has gone from it."""

    kind: ChangeKind
    model: ModelState


@dataclass(frozen=True, slots=True)
class DownloadChange:
    """A download has come further, or to its end."""

    kind: DownloadKind
    name: str  # of the model, in the request
    files: Mapping[str, FileProgress]  # by path
    error: str | None = None  # why it failed


Change = ModelChange | DownloadChange


class ModelEvents:
    """Passes each change on to all subscribers. On the event loop."""

    def __init__(self) -> None:
        self._subscribers: set[asyncio.Queue[Change | None]] = set()

    def publish(self, change: Change) -> None:
        """Pass a change on to all who have subscribed."""
        for subscriber in list(self._subscribers):
            if subscriber.qsize() < _MAX_UNREAD:
                subscriber.put_nowait(change)
            else:
                self._subscribers.discard(subscriber)
                subscriber.put_nowait(None)

    def subscribe(self, ping_seconds: float) -> AsyncIterator[Change | None]:
        """Give what happens from now on, and None after so many seconds without a change; 0 is never."""
        subscriber: asyncio.Queue[Change | None] = asyncio.Queue()
        self._subscribers.add(subscriber)
        return self._read(subscriber, ping_seconds or None)

    def close(self) -> None:
        """End all subscriptions."""
        for subscriber in self._subscribers:
            subscriber.put_nowait(None)
        self._subscribers.clear()

    async def _read(
        self, subscriber: "asyncio.Queue[Change | None]", ping_seconds: float | None
    ) -> AsyncIterator[Change | None]:
        try:
            while True:
                try:
                    change = await asyncio.wait_for(subscriber.get(), ping_seconds)
                except TimeoutError:
                    yield None
                    continue
                if change is None:
                    return
                yield change
        finally:
            self._subscribers.discard(subscriber)
