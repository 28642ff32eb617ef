"""The two ends of one answer: the engine puts events in on its thread, a handler reads them on the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from app.services.caller import NOBODY, Caller
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.errors import AppError
from app.services.generation import Embedded, Event, Finished, Scored

Outcome = Event | AppError
Letter = Outcome | Embedded | Scored


class Bell:
    """Lets one reader sleep until somebody rings. On one event loop."""

    def __init__(self) -> None:
        self._sleeping: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the reader, if one sleeps."""
        if self._sleeping is not None and not self._sleeping.done():
            self._sleeping.set_result(None)

    async def wait(self) -> None:
        """Sleep until somebody rings."""
        self._sleeping = asyncio.get_running_loop().create_future()
        await self._sleeping


class RunningGeneration(RunningRequest):
    """The reader's end, to be used on the event loop that made it."""

    choices = 1

    def __init__(
        self,
        cancel: Callable[[RunningRequest], None],
        caller: Caller = NOBODY,
        *,
        close_reasoning: Callable[["RunningGeneration"], None] = lambda _: None,
        prepared_from: float | None = None,
    ) -> None:
        super().__init__(cancel, caller, prepared_from=prepared_from)
        self._close_reasoning = close_reasoning
        self._events: deque[Outcome] = deque()
        self._bell = Bell()  # rung when something comes

    def share_bell(self, bell: Bell) -> None:
        """Ring this bell when something comes: one reader reads several answers."""
        self._bell = bell

    def put(self, event: Outcome) -> None:
        """Hand over an event. On the loop's thread only."""
        self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Let a waiting reader go on, with or without an event."""
        self._bell.ring()

    @property
    def pending(self) -> bool:
        """Whether something has come that is not read."""
        return bool(self._events)

    async def ready(self) -> Sequence[Event]:
        """Wait, and give all events that have come since; none if `wake` was called. Raises as `take` does."""
        if not self._events:
            await self._bell.wait()
        return self.take()

    def take(self) -> Sequence[Event]:
        """Give all events that have come, without waiting.

        Raises the AppError that ended the answer, once the events before it are read.
        """
        events: list[Event] = []
        while self._events:
            if isinstance(self._events[0], AppError):
                if events:
                    return events
                self._end()
                raise self._events.popleft()  # type: ignore[misc]
            events.append(self._events.popleft())  # type: ignore[arg-type]
        if events and isinstance(events[-1], Finished):
            self._end()
        return events

    def end_reasoning(self) -> bool:
        """Have the model close its reasoning within a few engine steps. False once the answer is over."""
        if self.over.done():
            return False
        self._close_reasoning(self)
        return True


class Outbox:
    """Collects what one engine step has to say, so that each event loop is woken once."""

    def __init__(self) -> None:
        self._letters: list[tuple[RunningRequest, Letter]] = []

    def put(self, request: RunningRequest | None, outcomes: Iterable[Letter]) -> None:
        """Add what there is to say of a request, if anybody waits for it. On the engine thread only."""
        if request is not None:
            self._letters.extend((request, outcome) for outcome in outcomes)

    def send(self) -> None:
        """Hand everything over."""
        if not self._letters:
            return
        letters, self._letters = self._letters, []
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            letters[0][0].loop.call_soon_threadsafe(_deliver, letters)


def _deliver(letters: Sequence[tuple[RunningRequest, Letter]]) -> None:
    for request, outcome in letters:
        request.put(outcome)
