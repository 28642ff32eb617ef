"""Requests that wait for the same model to be loaded."""

import asyncio
from pathlib import Path

from app.services.errors import AppError
from app.services.served_model import ServedModel
from app.services.session import Session


class Turn:
    """A model that is to be loaded, and those who wait for it. On the event loop."""

    def __init__(self, session: Session, path: Path) -> None:
        self.session = session
        self.path = path  # of the model
        self.abandoned = asyncio.Event()  # set while nobody waits
        self._waiters: set[asyncio.Future[ServedModel]] = set()

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self) -> ServedModel:
        """Wait until the model is loaded, and hold it. Raises the AppError that its load ended with."""
        waiter: asyncio.Future[ServedModel] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        self.abandoned.clear()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().release()  # it came just as its reader left
            raise
        finally:
            self._waiters.discard(waiter)
            if not self._waiters:
                self.abandoned.set()

    def serve(self, model: ServedModel) -> None:
        """The model is loaded: each who waits holds it."""
        for waiter in self._take():
            model.hold()
            waiter.set_result(model)

    def fail(self, error: AppError) -> None:
        """The model cannot be loaded."""
        for waiter in self._take():
            waiter.set_exception(error)

    def _take(self) -> list["asyncio.Future[ServedModel]"]:
        waiters = [waiter for waiter in self._waiters if not waiter.done()]
        self._waiters.clear()
        return waiters
