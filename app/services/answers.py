"""The answers under way, of all models."""

import asyncio
from collections.abc import Iterable
from functools import partial

from app.services.engine.scheduler.running_request import RunningRequest
from app.services.errors import AppError


class Answers:
    """Knows every answer from its acceptance to its end. On the event loop."""

    def __init__(self) -> None:
        self.at_work = asyncio.Event()  # set while there are any
        self._running: set[RunningRequest] = set()

    def add(self, generations: Iterable[RunningRequest]) -> None:
        """Take in answers that have begun."""
        self.at_work.set()
        for generation in generations:
            self._running.add(generation)
            generation.over.add_done_callback(partial(self._forget, generation))

    def fail_all(self, error: AppError) -> None:
        """End every answer with an error, whatever the engine is doing."""
        for generation in list(self._running):
            generation.fail(error)

    def need_readers(self, error: AppError) -> None:
        """End every answer with an error as soon as nobody reads it."""
        for generation in list(self._running):
            generation.need_reader(error)

    async def over(self, seconds: float) -> None:
        """Wait until all are over, but no longer than that."""
        if self._running and seconds > 0:
            await asyncio.wait([generation.over for generation in self._running], timeout=seconds)

    def _forget(self, generation: RunningRequest, _: object) -> None:
        self._running.discard(generation)
        if not self._running:
            self.at_work.clear()
