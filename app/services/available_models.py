"""The models of this machine that could be loaded, looked for now and then."""

import asyncio
import time

from app.services import catalog
from app.services.model_folder import ModelFolder

_SECONDS = 30.0  # for which a list is good: to make one reads the head of every file


class AvailableModels:
    """Makes the list again when it is old. On the event loop."""

    def __init__(self) -> None:
        self._models: list[ModelFolder] = []
        self._old_at = 0.0
        self._lock = asyncio.Lock()

    def forget(self) -> None:
        """Make the list anew the next time: there are others."""
        self._old_at = 0.0

    async def list(self) -> list[ModelFolder]:
        """Give those that can be loaded, in the order in which caches are searched."""
        async with self._lock:
            if time.monotonic() >= self._old_at:
                self._models = await asyncio.to_thread(_read)
                self._old_at = time.monotonic() + _SECONDS
        return self._models


def _read() -> list[ModelFolder]:
    return [model.folder for model in catalog.available() if model.folder is not None]
