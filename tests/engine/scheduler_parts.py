"""A model that counts, and readers without an event loop, for schedulers that are driven step by step."""

import time
from collections.abc import Iterable
from typing import Any

from app.services.caller import NOBODY
from app.services.engine.scheduler.running_generation import Outbox, RunningGeneration
from app.services.engine.scheduler.running_request import RunningRequest


class Counting:
    """A model that counts the tokens that it computes; it may fail once, after so many."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.tokens = 0
        self.fails_after: int | None = None

    def __call__(self, tokens: Any, *arguments: Any, **more: Any) -> Any:
        self.tokens += tokens.size
        if self.fails_after is not None and self.tokens > self.fails_after:
            self.fails_after = None
            raise MemoryError
        return self._model(tokens, *arguments, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Reader(RunningGeneration):
    """A reader without an event loop."""

    def __init__(self) -> None:
        self.caller = NOBODY
        self.arrived_at = self.prepared_from = self.queued_at = time.perf_counter()
        self.events: list[Any] = []


class Letters(Outbox):
    """Delivers at once."""

    def put(self, request: RunningRequest | None, outcomes: Iterable[Any]) -> None:
        assert isinstance(request, Reader)
        request.events.extend(outcomes)
