"""An answer whose model still has to be loaded."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from app.services.engine.scheduler.running_generation import Bell
from app.services.generation import Event, Generation

_PATIENCE = 1.0  # seconds in which a refusal is still a status; then a stream begins and has its pings


class PendingGeneration:
    """A generation that is still to begin: it can be read, woken and cancelled all the same."""

    def __init__(self, beginning: Coroutine[Any, Any, Generation], choices: int) -> None:
        self.choices = choices
        self._beginning = asyncio.ensure_future(beginning)
        self._bell = Bell()
        self._readers = 1
        self._beginning.add_done_callback(lambda _: self._bell.ring())
        self._beginning.add_done_callback(lambda _: self.note_readers(self._readers))

    @classmethod
    async def begin(cls, beginning: Coroutine[Any, Any, Generation], choices: int) -> Generation:
        """Give the generation itself if it begins soon, else a late one. Raises the AppError that comes soon."""
        late = cls(beginning, choices)
        try:
            await asyncio.wait({late._beginning}, timeout=_PATIENCE)
        except asyncio.CancelledError:
            late.cancel()
            raise
        return late._beginning.result() if late._beginning.done() else late

    async def ready(self) -> Sequence[Event]:
        """Wait for events and give all that have come; none after `wake`. Raises what ended the answer."""
        if not self._beginning.done():
            await self._bell.wait()
        return await self._beginning.result().ready() if self._beginning.done() else ()

    def wake(self) -> None:
        """Let a reader that waits go on without an event."""
        if (begun := self._begun()) is not None:
            begun.wake()
        self._bell.ring()

    def cancel(self) -> None:
        """Stop, or do not even begin. Calling it again, or after the end, does nothing."""
        self._beginning.cancel()
        if (begun := self._begun()) is not None:
            begun.cancel()

    def end_reasoning(self) -> bool:
        """Have the model close its reasoning, if it is in it. False before it begins and once it is over."""
        begun = self._begun()
        return begun is not None and begun.end_reasoning()

    def note_readers(self, count: int) -> None:
        """Pass it on, once it has begun."""
        self._readers = count
        if (begun := self._begun()) is not None:
            begun.note_readers(count)

    def _begun(self) -> Generation | None:
        done = self._beginning.done() and not self._beginning.cancelled() and self._beginning.exception() is None
        return self._beginning.result() if done else None
