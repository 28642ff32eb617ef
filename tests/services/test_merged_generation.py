"""Several answers read as one: nothing lost, nothing left running."""

import asyncio

import pytest

from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.errors import ServerError, Unavailable
from app.services.generation import Event, Finished, Started, Text, Timings
from app.services.merged_generation import MergedGeneration
from tests.loop import run

TIMES = Timings(0, 1, 1.0, 1, 1.0, 1.0, 1.0)
STARTED, END = Started("m", 3), Finished("stop", None, TIMES)


class Part(RunningGeneration):
    """An end whose other end is the test."""

    def __init__(self) -> None:
        self.cancelled = 0
        super().__init__(lambda _: setattr(self, "cancelled", self.cancelled + 1))


def text(said: str) -> Text:
    return Text(said, TIMES)


async def read(several: MergedGeneration) -> list[Event]:
    """Read to the end."""
    events: list[Event] = []
    while sum(isinstance(event, Finished) for event in events) < several.choices:
        events += await several.ready()
    return events


def test_every_event_says_of_which_answer_it_is() -> None:
    async def go() -> None:
        parts = [Part(), Part(), Part()]
        several = MergedGeneration(parts)
        for number, part in enumerate(parts):
            for event in (STARTED, text(f"{number} a"), text(f"{number} b"), END):
                part.put(event)
        events = await read(several)
        assert len(events) == 12
        for number in range(3):
            own = [event for event in events if event.choice == number]
            assert [event.text for event in own if isinstance(event, Text)] == [f"{number} a", f"{number} b"]
            assert isinstance(own[0], Started)
            assert isinstance(own[-1], Finished)
        several.cancel()
        assert [part.cancelled for part in parts] == [0, 0, 0]

    run(go())


def test_an_answer_that_is_over_does_not_hold_up_the_others() -> None:
    async def go() -> None:
        parts = [Part(), Part()]
        several = MergedGeneration(parts)
        parts[0].put(END)
        assert [event.choice for event in await several.ready()] == [0]
        reader = asyncio.ensure_future(several.ready())
        await asyncio.sleep(0)
        assert not reader.done()
        parts[1].put(text("late"))
        assert [event.choice for event in await reader] == [1]
        parts[1].put(END)
        assert [event.choice for event in await several.ready()] == [1]

    run(go())


def test_a_reader_can_be_woken_without_an_event_again_and_again() -> None:
    async def go() -> None:
        parts = [Part(), Part()]
        several = MergedGeneration(parts)
        for _ in range(3):
            reader = asyncio.ensure_future(several.ready())
            await asyncio.sleep(0)
            several.wake()
            several.wake()
            assert list(await reader) == []
        parts[1].put(text("and on it goes"))
        assert len(await several.ready()) == 1
        several.cancel()

    run(go())


def test_what_ends_one_answer_ends_them_all() -> None:
    async def go() -> None:
        parts = [Part(), Part(), Part()]
        several = MergedGeneration(parts)
        parts[1].put(Unavailable("gone"))
        parts[2].put(ServerError())  # nobody will ask for this one
        with pytest.raises(Unavailable):
            await several.ready()
        several.cancel()
        several.cancel()
        assert parts[0].cancelled == 1
        await asyncio.sleep(0)

    run(go())


def test_a_cancel_reaches_every_answer_once() -> None:
    async def go() -> None:
        parts = [Part() for _ in range(5)]
        several = MergedGeneration(parts)
        parts[3].put(END)
        await several.ready()
        several.cancel()
        several.cancel()
        assert [part.cancelled for part in parts] == [1, 1, 1, 0, 1]
        await asyncio.sleep(0)

    run(go())
