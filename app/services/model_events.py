"""What happens to the models, told to everybody who listens."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from app.services.model_state import ModelState

_MOST_UNREAD = 1000  # a listener that is further behind has stopped reading

Kind = Literal["begun", "status", "listed", "removed"]


@dataclass(frozen=True, slots=True)
class Change:
    """A model began to load, got on, came or went; or the list of models changed."""

    kind: Kind
    model: ModelState


class ModelEvents:
    """On the event loop."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[Change | None]] = set()

    def tell(self, change: Change) -> None:
        """Tell it to all who listen now."""
        for listener in list(self._listeners):
            if listener.qsize() < _MOST_UNREAD:
                listener.put_nowait(change)
            else:
                self._listeners.discard(listener)
                listener.put_nowait(None)

    def listen(self, ping_seconds: float) -> AsyncIterator[Change | None]:
        """Give what happens from now on; None after so many seconds of silence, 0 is never."""
        listener: asyncio.Queue[Change | None] = asyncio.Queue()
        self._listeners.add(listener)
        return self._changes(listener, ping_seconds or None)

    def close(self) -> None:
        """Let nobody listen any more."""
        for listener in self._listeners:
            listener.put_nowait(None)
        self._listeners.clear()

    async def _changes(
        self, listener: "asyncio.Queue[Change | None]", ping_seconds: float | None
    ) -> AsyncIterator[Change | None]:
        try:
            while True:
                try:
                    change = await asyncio.wait_for(listener.get(), ping_seconds)
                except TimeoutError:
                    yield None
                    continue
                if change is None:
                    return
                yield change
        finally:
            self._listeners.discard(listener)
