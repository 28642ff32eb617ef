"""What the event loop holds of a request that the engine works on, and of one that has a single result."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from app.services.caller import NOBODY, Caller, arrival
from app.services.errors import AppError
from app.services.generation import Embedded, Progress, Scored

T = TypeVar("T")


class RunningRequest:
    """A request from its acceptance to its end, to be used on the event loop that made it."""

    def __init__(
        self,
        cancel: Callable[["RunningRequest"], None],
        caller: Caller = NOBODY,
        *,
        prepared_from: float | None = None,  # when its prompt was begun to be rendered, by time.perf_counter
    ) -> None:
        self.caller = caller
        self.loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self.loop.create_future()  # settled at the end
        self._cancel = cancel
        self._began = self.loop.time()
        self.queued_at = time.perf_counter()
        self.prepared_from = self.queued_at if prepared_from is None else prepared_from
        self.arrived_at = arrival.get() or self.prepared_from
        self._readers = 1
        self._error_unread: AppError | None = None  # ends it once nobody reads it

    def put(self, outcome: Any) -> None:
        """Hand over what the engine has to say, an error too. On the loop's thread only."""
        raise NotImplementedError

    def age(self) -> float:
        """Seconds since it was accepted."""
        return self.loop.time() - self._began

    def cancel(self) -> None:
        """Stop within one engine step. Calling it again, or after the end, does nothing."""
        if not self.over.done():
            self._end()
            self._cancel(self)

    def fail(self, error: AppError) -> None:
        """End it with an error, whatever the engine is doing."""
        if not self.over.done():
            self._cancel(self)
            self.put(error)

    def note_readers(self, count: int) -> None:
        """Say how many read it; it may go on without any, unless `need_reader` says otherwise."""
        self._readers = count
        self._look_for_reader()

    def need_reader(self, error: AppError | None) -> None:
        """From now on, end it with this error as soon as nobody reads it; with None let it go on again."""
        self._error_unread = error
        self._look_for_reader()

    def _look_for_reader(self) -> None:
        if self._error_unread is not None and not self._readers:
            self.fail(self._error_unread)

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class RunningResult(RunningRequest, Generic[T]):
    """A request whose answer comes in one piece: vectors, or probabilities."""

    _outcome: T | AppError | None = None

    def put(self, outcome: T | AppError | Progress) -> None:
        """Hand over the result, or the error that there is instead. Nobody reads how far it is."""
        if not self.over.done() and not isinstance(outcome, Progress):
            self._outcome = outcome
            self._end()

    async def result(self) -> T:
        """Wait for the result. Raises the AppError that there is instead. To cancel the waiting cancels the work."""
        try:
            await asyncio.wait([self.over])
        finally:
            self.cancel()
        if isinstance(self._outcome, AppError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


RunningEmbedding = RunningResult[Embedded]
RunningScoring = RunningResult[Scored]
