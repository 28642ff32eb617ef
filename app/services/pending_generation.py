"""An answer whose model still has to be loaded."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from app.services.engine.scheduler.running_generation import Bell
from app.services.generation import Event, Generation

_STATUS_SECONDS = 1.0  # in which an error is still the status of the reply; then a stream begins and has its pings


class PendingGeneration:
    """A generation that has not begun yet: it can be read, woken and cancelled all the same."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Generation]], choices: int) -> None:
        self.choices = choices
        self._task = asyncio.ensure_future(begin())
        self._bell = Bell()
        self._readers = 1
        self._task.add_done_callback(lambda _: self._bell.ring())
        self._task.add_done_callback(lambda _: self.note_readers(self._readers))

    @classmethod
    async def begin(cls, begin: Callable[[], Coroutine[Any, Any, Generation]], choices: int) -> Generation:
        """Give the generation itself if it begins within a second, else a pending one. Raises AppError if it fails."""
        pending = cls(begin, choices)
        try:
            await asyncio.wait({pending._task}, timeout=_STATUS_SECONDS)
        except asyncio.CancelledError:
            pending.cancel()
            raise
        return pending._task.result() if pending._task.done() else pending

    async def ready(self) -> Sequence[Event]:
        """Wait for events and give all that have come; none after `wake`. Raises what ended the answer."""
        if not self._task.done():
            await self._bell.wait()
        return await self._task.result().ready() if self._task.done() else ()

    def wake(self) -> None:
        """Let a reader that waits go on without an event."""
        if (generation := self._generation) is not None:
            generation.wake()
        self._bell.ring()

    def cancel(self) -> None:
        """Stop, or do not even begin. Calling it again, or after the end, does nothing."""
        self._task.cancel()
        if (generation := self._generation) is not None:
            generation.cancel()

    def end_reasoning(self) -> bool:
        """Have the model close its reasoning, if it is in it. False before it begins and once it is over."""
        generation = self._generation
        return generation is not None and generation.end_reasoning()

    def note_readers(self, count: int) -> None:
        """Say how many read it, also to the generation once that has begun."""
        self._readers = count
        if (generation := self._generation) is not None:
            generation.note_readers(count)

    @property
    def _generation(self) -> Generation | None:
        """What has begun, if it has."""
        if not self._task.done() or self._task.cancelled() or self._task.exception() is not None:
            return None
        return self._task.result()
