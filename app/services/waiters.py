"""Requests that wait until a model is loaded."""

import asyncio
from collections import deque
from collections.abc import Callable

from app.services.errors import AppError
from app.services.served_model import ServedModel


class Waiters:
    """Those who wait for the same load, in their order. On the event loop."""

    def __init__(self) -> None:
        self._futures: deque[asyncio.Future[ServedModel]] = deque()

    def __len__(self) -> int:
        return len(self._futures)

    async def wait(self) -> ServedModel:
        """Wait until the model is loaded, and hold it. Raises the AppError that its load ended with."""
        waiter: asyncio.Future[ServedModel] = asyncio.get_running_loop().create_future()
        self._futures.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().release()  # it came just as its reader left
            raise
        finally:
            if waiter in self._futures:
                self._futures.remove(waiter)

    def serve(self, hold: Callable[[], ServedModel | None]) -> None:
        """The model is loaded: each who waits has what `hold` gives, which holds it."""
        for waiter in self._take():
            if (served := hold()) is not None:
                waiter.set_result(served)

    def fail(self, error: AppError) -> None:
        """The model cannot be loaded."""
        for waiter in self._take():
            waiter.set_exception(error)

    def _take(self) -> list["asyncio.Future[ServedModel]"]:
        waiters = [waiter for waiter in self._futures if not waiter.done()]
        self._futures.clear()
        return waiters
