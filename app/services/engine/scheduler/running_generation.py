"""The two ends of one answer: the engine puts events in on its thread, a handler reads them on the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from app.services.caller import caller
from app.services.errors import AppError
from app.services.generation import Event, Last

Outcome = Event | AppError


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


class RunningGeneration:
    """The reader's end, to be used on the event loop that made it."""

    choices = 1

    def __init__(
        self,
        cancel: Callable[["RunningGeneration"], None],
        close_reasoning: Callable[["RunningGeneration"], None] = lambda _: None,
    ) -> None:
        self.caller = caller.get()
        self._cancel = cancel
        self._close_reasoning = close_reasoning
        self._loop = asyncio.get_running_loop()
        self._events: deque[Outcome] = deque()
        self.bell = Bell()  # rung when something comes
        self._began = self._loop.time()
        self._readers = 1
        self._unread: AppError | None = None  # what ends it once nobody reads it
        self.over: asyncio.Future[None] = self._loop.create_future()  # settled when nobody reads any more

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the reader."""
        return self._loop

    def age(self) -> float:
        """Seconds since it was accepted."""
        return self._loop.time() - self._began

    def put(self, event: Outcome) -> None:
        """Hand over an event. On the loop's thread only."""
        self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Let a waiting reader go on, with or without an event."""
        self.bell.ring()

    @property
    def pending(self) -> bool:
        """Whether something has come that is not read."""
        return bool(self._events)

    async def ready(self) -> Sequence[Event]:
        """Wait, and give all events that have come since; none if `wake` was called. Raises as `take` does."""
        if not self._events:
            await self.bell.wait()
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
        if events and isinstance(events[-1], Last):
            self._end()
        return events

    def cancel(self) -> None:
        """Stop within one engine step. Calling it again, or after the end, does nothing."""
        if not self.over.done():
            self._end()
            self._cancel(self)

    def end_reasoning(self) -> bool:
        """Have the model close its reasoning within a few engine steps. False once the answer is over."""
        if self.over.done():
            return False
        self._close_reasoning(self)
        return True

    def note_readers(self, count: int) -> None:
        """Say how many read it; it may go on without any, unless `need_reader` says otherwise."""
        self._readers = count
        self._look_for_reader()

    def need_reader(self, error: AppError | None) -> None:
        """From now on, end it with this error as soon as nobody reads it; with None let it go on again."""
        self._unread = error
        self._look_for_reader()

    def _look_for_reader(self) -> None:
        if self._unread is not None and not self._readers:
            self.fail(self._unread)

    def fail(self, error: AppError) -> None:
        """End the answer with an error, whatever the engine is doing."""
        if not self.over.done():
            self._cancel(self)
            self.put(error)

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Outbox:
    """Collects what one engine step has to say, so that each event loop is woken once."""

    def __init__(self) -> None:
        self._letters: list[tuple[RunningGeneration, Outcome]] = []

    def put(self, generation: RunningGeneration | None, events: Iterable[Outcome]) -> None:
        """Add events for a reader, if there is one. On the engine thread only."""
        if generation is not None:
            self._letters.extend((generation, event) for event in events)

    def send(self) -> None:
        """Hand everything over."""
        if not self._letters:
            return
        letters, self._letters = self._letters, []
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            letters[0][0].loop.call_soon_threadsafe(_deliver, letters)


def _deliver(letters: Sequence[tuple[RunningGeneration, Outcome]]) -> None:
    for generation, event in letters:
        generation.put(event)
