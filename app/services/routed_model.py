"""One model of several: its status, and the requests that wait until it is loaded."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from app.services import hub
from app.services.errors import AppError, LoadFailed, ModelLoading
from app.services.model_events import ChangeKind, ModelChange, ModelEvents
from app.services.model_state import IN_MEMORY, NEXT, ModelState, Status
from app.services.served_model import ServedModel
from app.services.waiters import Waiters


class RoutedModel:
    """Its status changes only by the methods that are named after the change, which tell whoever listens.

    On the event loop.
    """

    def __init__(self, identity: str, path: Path, events: ModelEvents, *, adopted: bool = False) -> None:
        self.id = identity
        self.path = path
        self.adopted = adopted  # a session brought it along; it need not be in the folder
        self.status = Status.UNLOADED
        self.served: ServedModel | None = None  # while it is in memory
        self.task: asyncio.Task[None] | None = None  # which loads or unloads it
        self.grace_over = asyncio.Event()  # its answers have had their time
        self.last_used = 0.0  # on the event loop's clock
        self.is_replaced = False  # by another folder under its id
        self._events = events
        self._progress = 0.0  # of the load, 0 to 1
        self._error: str | None = None  # why the last load failed
        self._load_requested = False  # by somebody who does not wait for it
        self._waiters = Waiters()
        self._grace_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> ServedModel | None:
        """The model, if it takes requests."""
        return self.served if self.status is Status.LOADED else None

    @property
    def is_unloaded(self) -> bool:
        """Whether nothing of it is in memory, and nothing is about to be."""
        return self.status in {Status.UNLOADED, Status.FAILED}

    @property
    def is_wanted(self) -> bool:
        """Whether a load was requested that has not come to its end, or requests wait for one."""
        return self._load_requested or bool(self._waiters)

    @property
    def waiting(self) -> int:
        """Requests that wait until it is loaded."""
        return len(self._waiters)

    def state(self) -> ModelState:
        """Say how it stands now."""
        return ModelState(
            id=self.id,
            path=self.path,
            created=_modified(self.path),
            status=self.status,
            progress=self._progress,
            error=self._error,
            facts=self.ready.facts if self.ready else None,
            source="models_dir",
            can_remove=not self.adopted and hub.entry(self.path) is not None,
        )

    # What becomes of it.

    def request_load(self) -> None:
        """Note that it is to be loaded, although nobody waits for it."""
        self._load_requested = True

    def begin_load(self, load: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        """Begin a task that loads it: it calls `note_progress`, and `loaded` or `load_failed`."""
        self._progress, self._error = 0.0, None
        self.task = asyncio.create_task(load())
        self._enter(Status.QUEUED, "load_begins")
        return self.task

    def note_progress(self, progress: float) -> None:
        """So much of its weights is read, 0 to 1; the first time, the reading begins."""
        self._progress = progress
        if self.status is Status.QUEUED:
            self._change(Status.LOADING)
        self._publish("status")

    def loaded(self, served: ServedModel) -> None:
        """It takes requests: those that wait have it, in their order."""
        self.served = served
        self._end_task(Status.LOADED)

    def load_failed(self, error: AppError) -> None:
        """Its load failed or was cancelled: those that wait get the error."""
        self._error = error.message if isinstance(error, LoadFailed) else None
        self._end_task(Status.FAILED if self._error else Status.UNLOADED, error)

    def evict(self, unload: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a task that unloads it once it is idle; it is cancelled if that is not needed any more."""
        self.task = asyncio.create_task(unload())
        self._enter(Status.EVICTING)

    def keep(self) -> None:
        """It is not evicted after all: it takes requests again."""
        self._end_task(Status.LOADED)

    def unload(self, unload: Callable[[], Coroutine[Any, Any, None]], grace: float) -> None:
        """Unload it in any case, after so many seconds whatever it answers. Begins the task unless it is evicted."""
        if self.status is Status.EVICTING:
            self.status = Status.UNLOADING  # nobody is told: it was about to go
        else:
            self.task = asyncio.create_task(unload())
            self._enter(Status.UNLOADING)
        self._grace_timer = asyncio.get_running_loop().call_later(grace, self.grace_over.set)

    def unloaded(self) -> None:
        """It is out of memory."""
        self.served = None
        self.grace_over.clear()
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        self._stop_idle_timer()
        self.task = None
        self._enter(Status.UNLOADED)
        if self.is_replaced:
            self._waiters.fail(ModelLoading("Another model takes its place"))

    def replace(self) -> None:
        """Another folder takes its id: it is not loaded again."""
        self.is_replaced = True

    def close(self, error: AppError) -> None:
        """Give up a load under way; those that wait get the error."""
        self._stop_idle_timer()
        self._waiters.fail(error)
        self.cancel_load()

    def cancel_load(self) -> None:
        """Give up a load under way."""
        if self.status in {Status.QUEUED, Status.LOADING} and self.task is not None:
            self.task.cancel()

    # Who uses it.

    async def wait(self) -> ServedModel:
        """Wait until it is loaded, and hold it. Raises the AppError that its load ended with."""
        return await self._waiters.wait()

    def hold(self) -> ServedModel | None:
        """Hold it, if it takes requests."""
        if (served := self.ready) is not None:
            self.last_used = asyncio.get_running_loop().time()
            served.hold()
        return served

    def mark_idle(self, seconds: float, then: Callable[[], None]) -> None:
        """Note that nobody uses it now. After so many seconds of that, 0 is never, do something."""
        loop = asyncio.get_running_loop()
        self.last_used = loop.time()
        self._stop_idle_timer()
        if seconds:
            self._idle_timer = loop.call_later(seconds, then)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()

    def _end_task(self, status: Status, error: AppError | None = None) -> None:
        self.task, self._load_requested = None, False
        self._change(status)
        if error is not None:
            self._waiters.fail(error)
        else:
            self._waiters.serve(self.hold)
        self._publish("status")

    def _enter(self, status: Status, kind: ChangeKind = "status") -> None:
        self._change(status)
        self._publish(kind)

    def _change(self, status: Status) -> None:
        assert status in NEXT[self.status], (self.status, status)
        assert (self.served is not None) == (status in IN_MEMORY)
        self.status = status

    def _publish(self, kind: ChangeKind) -> None:
        self._events.publish(ModelChange(kind, self.state()))


def _modified(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
