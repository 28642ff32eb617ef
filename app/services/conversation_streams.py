"""Streamed answers that outlive their readers: kept as they were sent, to be read again from any byte on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from app.services.errors import AnswerStopped, OffsetLost
from app.services.generation import Generation

MOST_BYTES = 4 * 2**20  # of an answer, its last ones
KEPT_SECONDS = 300.0  # after its end
_MOST_ENDED = 64
_SEPARATOR = "::"  # between a conversation and the model that answers it, where a client names both

Clock = Callable[[], float]


class ConversationStream:
    """What was sent of one answer. Many may read it, while it grows and after."""

    def __init__(self, conversation: str, clock: Clock, note_readers: Callable[[int], None]) -> None:
        self.conversation = conversation
        self._note_readers = note_readers
        self._readers = 0
        self.started_at = clock()  # Unix seconds
        self.ended_at: float | None = None
        self.sent = 0  # bytes
        self._clock = clock
        self._buffer = bytearray()
        self._grown = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Add what is sent next; what it has no room for any more is dropped at the beginning."""
        self.sent += len(data)
        self._buffer += data
        del self._buffer[: max(0, len(self._buffer) - MOST_BYTES)]
        self._tell()

    def end(self) -> None:
        """Note that nothing more comes."""
        self.ended_at = self.ended_at or self._clock()
        self._tell()

    def read(self, offset: int = 0) -> AsyncIterator[bytes]:
        """Give the bytes from an offset on, as they come. Raises OffsetLost for one that is not kept any more."""
        if offset < self._dropped:
            raise OffsetLost(self._dropped)
        return self._read(offset)

    async def _read(self, offset: int) -> AsyncIterator[bytes]:
        self._count_readers(1)
        try:
            async for data in self._sent(offset):
                yield data
        finally:
            self._count_readers(-1)

    def _count_readers(self, more: int) -> None:
        self._readers += more
        self._note_readers(self._readers)

    async def _sent(self, offset: int) -> AsyncIterator[bytes]:
        while offset >= self._dropped:  # a reader that is too slow ends like a lost connection
            if data := bytes(self._buffer[offset - self._dropped :]):
                offset += len(data)
                yield data
            elif self.ended_at is not None:
                return
            else:
                await self._grown.wait()

    @property
    def _dropped(self) -> int:
        return self.sent - len(self._buffer)

    def _tell(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


class ConversationStreams:
    """A singleton of the application: the last answer of each conversation. For the event loop."""

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._streams: dict[str, ConversationStream] = {}
        self._stops: dict[ConversationStream, Callable[[], None]] = {}  # of those that are under way
        self._pending: dict[str, asyncio.Future[Generation]] = {}  # of answers that are not accepted yet

    async def unless_stopped(self, conversation: str, pending: Coroutine[Any, Any, Generation]) -> Generation:
        """Let an answer be accepted. Raises AnswerStopped if its conversation, if it has one, is stopped meanwhile."""
        if not conversation:
            return await pending
        self._stop_pending(conversation)
        task = self._pending[conversation] = asyncio.ensure_future(pending)
        try:
            await asyncio.wait({task})
            if self._pending.get(conversation) is task:
                return task.result()
            if not task.cancelled() and task.exception() is None:
                task.result().cancel()
            raise AnswerStopped
        finally:
            task.cancel()
            if self._pending.get(conversation) is task:
                del self._pending[conversation]

    def begin(
        self,
        conversation: str,
        events: AsyncIterator[bytes],
        cancel: Callable[[], None],
        note_readers: Callable[[int], None] = lambda count: None,
    ) -> ConversationStream:
        """Keep what an answer sends, read or not. `cancel` stops the answer; an earlier one is stopped by now.

        `note_readers` is told how many read it, each time that this changes.
        """
        self.stop(conversation)
        self._forget_old()
        stream = self._streams[conversation] = ConversationStream(conversation, self._clock, note_readers)
        task = asyncio.create_task(_write(stream, events))
        self._stops[stream] = lambda: _stop(task, cancel)
        task.add_done_callback(lambda _: self._ended(stream))
        return stream

    def find(self, conversation: str) -> ConversationStream | None:
        """Give the answer of a conversation, while it is kept."""
        self._forget_old()
        return self._streams.get(conversation)

    def find_all(self, conversations: Iterable[str]) -> list[ConversationStream]:
        """Give the answers of conversations, whether or not they are named with their model; the current ones first."""
        self._forget_old()
        names = set(conversations)
        bare = {name.partition(_SEPARATOR)[0] for name in names}
        streams = [
            stream
            for name, stream in self._streams.items()
            if name in names or name.partition(_SEPARATOR)[0] in names or name in bare
        ]
        return sorted(streams, key=lambda stream: (stream.ended_at is not None, -stream.started_at))

    def stop(self, conversation: str) -> None:
        """Stop the answer of a conversation and forget it; whoever reads it comes to the end of what was sent."""
        self._stop_pending(conversation)
        stream = self._streams.pop(conversation, None)
        if stream is not None and (stop := self._stops.get(stream)):
            stop()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep streams until the block ends, which stops them."""
        try:
            yield
        finally:
            for conversation in list(self._streams):
                self.stop(conversation)

    def _stop_pending(self, conversation: str) -> None:
        if (pending := self._pending.pop(conversation, None)) is not None:
            pending.cancel()

    def _ended(self, stream: ConversationStream) -> None:
        stream.end()
        del self._stops[stream]
        asyncio.get_running_loop().call_later(KEPT_SECONDS + 1, self._forget_old)

    def _forget_old(self) -> None:
        ended = sorted((stream.ended_at, name) for name, stream in self._streams.items() if stream.ended_at is not None)
        for index, (ended_at, name) in enumerate(reversed(ended)):
            if index >= _MOST_ENDED or ended_at + KEPT_SECONDS <= self._clock():
                del self._streams[name]


async def _write(stream: ConversationStream, events: AsyncIterator[bytes]) -> None:
    async for data in events:
        stream.write(data)
    stream.end()


def _stop(task: "asyncio.Task[None]", cancel: Callable[[], None]) -> None:
    cancel()  # a task that has not begun would not do it
    task.cancel()
