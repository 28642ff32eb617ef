"""Requests that wait for the same model to take its turn."""

import asyncio
from pathlib import Path

from app.services.errors import AppError
from app.services.served_model import ServedModel
from app.services.session import Session
from app.services.waiters import Waiters


class Turn:
    """A model that is to be loaded, and those who wait for it. On the event loop."""

    def __init__(self, session: Session, path: Path) -> None:
        self.session = session
        self.path = path  # of the model
        self.abandoned = asyncio.Event()  # set while nobody waits
        self._waiters = Waiters()

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self) -> ServedModel:
        """Wait until the model is loaded, and hold it. Raises the AppError that its load ended with."""
        self.abandoned.clear()
        try:
            return await self._waiters.wait()
        finally:
            if not self._waiters:
                self.abandoned.set()

    def serve(self, model: ServedModel) -> None:
        """The model is loaded: each who waits holds it."""

        def hold() -> ServedModel:
            model.hold()
            return model

        self._waiters.serve(hold)

    def fail(self, error: AppError) -> None:
        """The model cannot be loaded."""
        self._waiters.fail(error)
