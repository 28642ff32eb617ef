"""Streams that outlive their readers: what is kept of them, and for how long."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.services.conversation_streams import KEPT_SECONDS, MOST_BYTES, ConversationStream, ConversationStreams
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.errors import InvalidRequest
from tests.loop import run


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answer:
    """An answer whose bytes the test sends."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.closed = False
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, *pieces: bytes | None) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)

    def cancel(self) -> None:
        self.cancelled += 1

    async def events(self) -> AsyncIterator[bytes]:
        try:
            while (piece := await self._pieces.get()) is not None:
                yield piece
        finally:
            self.closed = True


async def read(stream: ConversationStream, offset: int = 0) -> bytes:
    return b"".join([data async for data in stream.read(offset)])


async def said(streams: ConversationStreams, conversation: str, *pieces: bytes) -> ConversationStream:
    """A stream that has ended."""
    answer = Answer()
    answer.send(*pieces, None)
    stream = streams.begin(conversation, answer.events(), answer.cancel)
    await read(stream)
    await settled()
    return stream


async def settled() -> None:
    """Let tasks that are due have their turn."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_stream_is_the_same_for_every_reader_whenever_it_comes() -> None:
    async def work() -> None:
        streams, answer = ConversationStreams(), Answer()
        stream = streams.begin("a", answer.events(), answer.cancel)
        early = asyncio.create_task(read(stream))
        answer.send(b"one ", b"two ")
        await settled()
        middle = asyncio.create_task(read(stream, 2))
        answer.send(b"three", None)
        assert await early == b"one two three"
        assert await middle == b"e two three"
        assert [await read(stream, offset) for offset in range(15)] == [b"one two three"[i:] for i in range(15)]
        assert (answer.closed, answer.cancelled) == (True, 0)

    run(work())


def test_a_reader_that_leaves_ends_nothing() -> None:
    async def work() -> None:
        streams, answer = ConversationStreams(), Answer()
        stream = streams.begin("a", answer.events(), answer.cancel)
        reader = asyncio.create_task(read(stream))
        answer.send(b"one ")
        await settled()
        reader.cancel()
        await settled()
        answer.send(b"two", None)
        await settled()
        assert await read(stream) == b"one two"

    run(work())


def test_no_more_is_kept_than_may_be_and_what_is_lost_is_said() -> None:
    async def work() -> None:
        streams = ConversationStreams()
        piece = bytes(range(256)) * 4096  # 1 MiB
        stream = await said(streams, "a", *[piece] * 4, b"tail")
        assert stream.sent == MOST_BYTES + 4
        for offset in range(4):
            with pytest.raises(InvalidRequest):
                stream.read(offset)
        assert await read(stream, 4) == (piece * 4 + b"tail")[4:]

    run(work())


def test_a_reader_that_is_too_slow_ends_and_holds_nothing_up() -> None:
    async def work() -> None:
        streams, answer = ConversationStreams(), Answer()
        stream = streams.begin("a", answer.events(), answer.cancel)
        slow = stream.read()
        answer.send(b"first")
        assert await anext(slow) == b"first"
        answer.send(b"x" * (MOST_BYTES + 1), None)
        await settled()
        with pytest.raises(StopAsyncIteration):
            await anext(slow)
        assert stream.ended_at is not None

    run(work())


def test_an_answer_is_kept_for_a_while_after_its_end() -> None:
    async def work() -> None:
        clock = Clock()
        streams = ConversationStreams(clock)
        answer = Answer()
        streams.begin("running", answer.events(), answer.cancel)
        await said(streams, "done", b"x")
        clock.now += KEPT_SECONDS - 1
        assert streams.find("done")
        clock.now += 1
        assert streams.find("done") is None
        assert streams.find_all(["done"]) == []
        clock.now += 10 * KEPT_SECONDS
        assert streams.find("running"), "it has not ended"
        streams.stop("running")

    run(work())


def test_of_many_that_have_ended_the_oldest_go() -> None:
    async def work() -> None:
        clock = Clock()
        streams = ConversationStreams(clock)
        for number in range(80):
            clock.now += 1
            await said(streams, f"c{number}", b"x")
        kept = [number for number in range(80) if streams.find(f"c{number}")]
        assert kept == list(range(16, 80))

    run(work())


def test_a_stop_cancels_the_answer_whether_or_not_it_has_begun() -> None:
    async def work() -> None:
        streams, answer = ConversationStreams(), Answer()
        streams.begin("a", answer.events(), answer.cancel)
        streams.stop("a")
        assert answer.cancelled == 1
        assert streams.find("a") is None
        again = Answer()
        stream = streams.begin("a", again.events(), again.cancel)
        again.send(b"half")
        await settled()
        reader = asyncio.create_task(read(stream))
        streams.stop("a")
        assert await reader == b"half"
        assert (again.cancelled, again.closed) == (1, True)
        streams.stop("a")

    run(work())


def test_a_new_answer_takes_the_place_of_the_last_one() -> None:
    async def work() -> None:
        streams, first, second = ConversationStreams(), Answer(), Answer()
        old = streams.begin("a", first.events(), first.cancel)
        new = streams.begin("a", second.events(), second.cancel)
        assert streams.find("a") is new
        assert first.cancelled == 1
        second.send(b"new", None)
        assert (await read(old), await read(new)) == (b"", b"new")

    run(work())


def test_everything_stops_at_the_end() -> None:
    async def work() -> None:
        streams, answer = ConversationStreams(), Answer()
        async with streams.running():
            stream = streams.begin("a", answer.events(), answer.cancel)
            await settled()
        assert await read(stream) == b""
        assert (answer.cancelled, answer.closed) == (1, True)

    run(work())


def test_an_answer_is_found_with_and_without_its_model() -> None:
    async def work() -> None:
        clock = Clock()
        streams = ConversationStreams(clock)
        for name in ("plain", "both::m1", "both::m2", "other"):
            clock.now += 1
            await said(streams, name, b"x")
        answer = Answer()
        streams.begin("both::m3", answer.events(), answer.cancel)

        def found(*asked: str) -> list[str]:
            return [stream.conversation for stream in streams.find_all(asked)]

        assert found("plain") == found("plain::m1") == ["plain"]
        assert found("both") == ["both::m3", "both::m2", "both::m1"], "what runs comes first, then the newest"
        assert found("both::m1") == ["both::m1"]
        assert found("bot", "other::", "x") == ["other"]
        streams.stop("both::m3")

    run(work())


class Waits:
    """An answer that is accepted when the test says so."""

    def __init__(self) -> None:
        self.accepted = asyncio.Event()
        self.generation = RunningGeneration(lambda _: setattr(self, "cancelled", True))
        self.cancelled = False

    async def begin(self) -> RunningGeneration:
        await self.accepted.wait()
        return self.generation


def test_what_is_stopped_before_it_began_never_begins() -> None:
    async def work() -> None:
        streams, first = ConversationStreams(), Waits()
        begun = asyncio.create_task(streams.unless_stopped("a", first.begin()))
        await settled()
        streams.stop("b")
        streams.stop("a")
        with pytest.raises(InvalidRequest) as refusal:
            await begun
        assert refusal.value.code == "stopped"
        assert not first.generation.over.done(), "there was nothing to cancel"

    run(work())


def test_a_stop_in_the_moment_of_its_beginning_cancels_it() -> None:
    async def work() -> None:
        streams, late = ConversationStreams(), Waits()
        begun = asyncio.create_task(streams.unless_stopped("a", late.begin()))
        await settled()
        late.accepted.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it is accepted, and nobody was told yet
        streams.stop("a")
        with pytest.raises(InvalidRequest):
            await begun
        assert late.cancelled

    run(work())


def test_the_next_beginning_of_a_conversation_stops_the_last() -> None:
    async def work() -> None:
        streams, first, second = ConversationStreams(), Waits(), Waits()
        stopped = asyncio.create_task(streams.unless_stopped("a", first.begin()))
        await settled()
        begun = asyncio.create_task(streams.unless_stopped("a", second.begin()))
        await settled()
        second.accepted.set()
        assert await begun is second.generation
        with pytest.raises(InvalidRequest):
            await stopped
        assert not second.cancelled
        unnamed = Waits()
        unnamed.accepted.set()
        assert await streams.unless_stopped("", unnamed.begin()) is unnamed.generation

    run(work())


def test_what_refuses_an_answer_is_passed_on() -> None:
    async def refuse() -> RunningGeneration:
        raise InvalidRequest("too long")

    async def work() -> None:
        with pytest.raises(InvalidRequest, match="too long"):
            await ConversationStreams().unless_stopped("a", refuse())

    run(work())
