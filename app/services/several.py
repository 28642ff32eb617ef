"""Several answers that are made side by side and read as one."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.services.generation import Event, Finished, Generation


class Several:
    """Generations as one Generation: each event says of which answer it is."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self.choices = len(generations)
        self._generations = generations
        self._woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._readers: dict[asyncio.Future[Sequence[Event]], int] = {}
        for place in range(self.choices):
            self._read(place)

    async def ready(self) -> Sequence[Event]:
        """Wait for events of any answer and give all that have come; none after `wake`. Raises what ended an answer."""
        awaited: list[asyncio.Future[Any]] = [*self._readers, self._woken]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if self._woken.done():
            self._woken = asyncio.get_running_loop().create_future()
        events: list[Event] = []
        for reader in [reader for reader in self._readers if reader.done()]:
            place = self._readers.pop(reader)
            said = reader.result()
            events += (replace(event, choice=place) for event in said)
            if not (said and isinstance(said[-1], Finished)):
                self._read(place)
        return events

    def wake(self) -> None:
        """Let a reader that waits go on without an event."""
        if not self._woken.done():
            self._woken.set_result(None)

    def cancel(self) -> None:
        """Stop all of them within one engine step. Calling it again, or after the end, does nothing."""
        for reader in self._readers:
            reader.cancel()
            reader.add_done_callback(_forget)
        for generation in self._generations:
            generation.cancel()

    def _read(self, place: int) -> None:
        self._readers[asyncio.ensure_future(self._generations[place].ready())] = place


def _forget(reader: "asyncio.Future[Sequence[Event]]") -> None:
    """Look at what ended an answer after another one failed, so that asyncio does not complain."""
    if not reader.cancelled():
        reader.exception()
