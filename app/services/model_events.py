"""What happens to the models, for whoever follows it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from app.services.model_state import ModelState

_MAX_UNREAD = 1000  # changes; a subscriber that is further behind has stopped reading

ChangeKind = Literal["load_begins", "status", "list_grows", "model_goes"]


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A model that begins to load, has another status or progress, is new in the list or has gone from it."""

    kind: ChangeKind
    model: ModelState


class ModelEvents:
    """Passes each change on to all subscribers. On the event loop."""

    def __init__(self) -> None:
        self._subscribers: set[asyncio.Queue[ModelChange | None]] = set()

    def publish(self, change: ModelChange) -> None:
        """Pass a change on to all who have subscribed."""
        for subscriber in list(self._subscribers):
            if subscriber.qsize() < _MAX_UNREAD:
                subscriber.put_nowait(change)
            else:
                self._subscribers.discard(subscriber)
                subscriber.put_nowait(None)

    def subscribe(self, ping_seconds: float) -> AsyncIterator[ModelChange | None]:
        """Give what happens from now on, and None after so many seconds without a change; 0 is never."""
        subscriber: asyncio.Queue[ModelChange | None] = asyncio.Queue()
        self._subscribers.add(subscriber)
        return self._read(subscriber, ping_seconds or None)

    def close(self) -> None:
        """End all subscriptions."""
        for subscriber in self._subscribers:
            subscriber.put_nowait(None)
        self._subscribers.clear()

    async def _read(
        self, subscriber: "asyncio.Queue[ModelChange | None]", ping_seconds: float | None
    ) -> AsyncIterator[ModelChange | None]:
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
