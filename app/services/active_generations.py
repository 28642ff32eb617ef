"""The answers under way: of a model, or of all models together."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from weakref import WeakValueDictionary

from app.services.engine.scheduler.running_request import RunningRequest
from app.services.errors import AppError
from app.services.generation import Generation


class ActiveGenerations:
    """Knows every request of the engine, for an answer or for vectors, from its acceptance to its end.

    On the event loop.
    """

    def __init__(self, on_end: Callable[[], None] = lambda: None) -> None:
        self.not_empty = asyncio.Event()  # set while there are any
        self._on_end = on_end  # called after each end
        self._requests: set[RunningRequest] = set()
        self._by_id: WeakValueDictionary[str, Generation] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[RunningRequest]:
        return iter(list(self._requests))

    def add(self, requests: Iterable[RunningRequest]) -> None:
        """Take in requests that the engine has accepted."""
        self.not_empty.set()
        for request in requests:
            self._requests.add(request)
            request.over.add_done_callback(partial(self._remove, request))

    def set_id(self, identity: str, generation: Generation) -> None:
        """Let an answer be found by the id that its stream carries, for as long as there is a reader or an engine."""
        self._by_id[identity] = generation

    def end_reasoning(self, identity: str) -> bool:
        """Have an answer's model close its reasoning and answer. False if there is no such answer, or none any more."""
        generation = self._by_id.get(identity)
        return generation is not None and generation.end_reasoning()

    def fail_all(self, error: AppError) -> None:
        """End every answer with an error, whatever the engine is doing."""
        for request in self:
            request.fail(error)

    def need_readers(self, error: AppError | None) -> None:
        """End every answer with an error as soon as nobody reads it; with None let all go on again."""
        for request in self:
            request.need_reader(error)

    async def drain(self, seconds: float, error: AppError) -> None:
        """Wait until all are over, but no longer than that. What nobody reads, or takes longer, ends with an error."""
        self.need_readers(error)
        if self._requests and seconds > 0:
            await asyncio.wait([request.over for request in self._requests], timeout=seconds)
        self.fail_all(error)

    def _remove(self, request: RunningRequest, _: object) -> None:
        self._requests.discard(request)
        if not self._requests:
            self.not_empty.clear()
        self._on_end()
