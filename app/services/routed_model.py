"""One model of several: whether it is loaded, and who waits for it."""

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

from app.services.errors import AppError, ModelNotLoaded
from app.services.model_state import ModelState, Status
from app.services.served_model import ServedModel


class RoutedModel:
    """It is unloaded, about to be loaded (`load`), loaded (`served`), or about to go (`leave`). On the event loop."""

    def __init__(self, identity: str, path: Path, *, adopted: bool = False) -> None:
        self.id = identity
        self.path = path
        self.adopted = adopted  # a session brought it along; it need not be in the folder
        self.served: ServedModel | None = None
        self.load: asyncio.Task[None] | None = None
        self.leave: asyncio.Task[None] | None = None
        self.told = False  # to go, by somebody: it does
        self.replaced = False  # by another folder under its id
        self.overdue = asyncio.Event()  # its answers have been waited for long enough
        self._patience: asyncio.TimerHandle | None = None
        self.asked = False  # somebody wants it loaded who does not wait for it
        self.begun = False  # its weights are being read
        self.progress = 0.0  # of the load, 0 to 1
        self.error: str | None = None  # why the last load failed
        self.used = 0.0  # when somebody last used it, on the event loop's clock
        self._waiters: deque[asyncio.Future[ServedModel]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> ServedModel | None:
        """The model, if it takes requests."""
        return self.served if self.leave is None else None

    @property
    def wanted(self) -> bool:
        """Whether anybody wants it loaded."""
        return self.asked or bool(self._waiters)

    @property
    def waiting(self) -> int:
        """Requests that wait until it is loaded."""
        return len(self._waiters)

    @property
    def status(self) -> Status:
        """How it stands, in a word."""
        if self.served is not None:
            return "loaded" if self.leave is None else "unloading"
        if self.load is not None:
            return "loading"
        return "failed" if self.error else "unloaded"

    def state(self) -> ModelState:
        """Say how it stands now."""
        return ModelState(
            id=self.id,
            path=self.path,
            created=_written(self.path),
            status=self.status,
            progress=self.progress,
            error=self.error,
            facts=self.ready.facts if self.ready else None,
            source="models_dir",
        )

    def dismiss(self, patience: float) -> None:
        """Tell it to go. Its answers are waited for, so many seconds long."""
        if not self.told:
            self.told = True
            self._patience = asyncio.get_running_loop().call_later(patience, self.overdue.set)

    def gone(self) -> None:
        """Note that it is out of memory."""
        self.served = self.leave = None
        self.told = False
        self.overdue.clear()
        if self._patience is not None:
            self._patience.cancel()

    def queue(self) -> "asyncio.Future[ServedModel]":
        """Take a place among those who wait until it is loaded."""
        waiter: asyncio.Future[ServedModel] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    async def wait(self, waiter: "asyncio.Future[ServedModel]") -> ServedModel:
        """Wait until it is loaded, and hold it. Raises the AppError that its load ended with."""
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().release()  # it came just as its reader left
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def take(self) -> ServedModel | None:
        """Hold it, if it takes requests."""
        if (served := self.ready) is not None:
            self.used = asyncio.get_running_loop().time()
            served.hold()
        return served

    def require(self) -> ServedModel:
        """Give it, if it takes requests. Raises InvalidRequest."""
        if self.ready is None:
            raise ModelNotLoaded
        return self.ready

    def hand_out(self) -> None:
        """It takes requests: let those who wait have it, in their order."""
        for waiter in self._settled():
            if (served := self.take()) is not None:
                waiter.set_result(served)

    def refuse(self, error: AppError) -> None:
        """Tell those who wait that it will not be loaded."""
        for waiter in self._settled():
            waiter.set_exception(error)

    def rest(self, seconds: float, then: Callable[[], None]) -> None:
        """Note that nobody uses it now. After so many seconds of that, 0 is never, do something."""
        loop = asyncio.get_running_loop()
        self.used = loop.time()
        self.stop_alarm()
        if seconds:
            self._alarm = loop.call_later(seconds, then)

    def stop_alarm(self) -> None:
        """Do nothing, however long nobody uses it."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _settled(self) -> list["asyncio.Future[ServedModel]"]:
        waiters = [waiter for waiter in self._waiters if not waiter.done()]
        self._waiters.clear()
        return waiters


def _written(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
