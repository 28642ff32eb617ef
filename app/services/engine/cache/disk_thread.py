"""The one thread that writes arrays to the disk.

MLX keeps a thread of its own for each thread that it was ever used on, for as long as the process lives. So there is
one for all models that come and go, and no other thread than this and the engine's may touch arrays.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Job:
    """Something to write, in the name of somebody, not before its time."""

    owner: object
    work: Callable[[], None]
    due: float = field(default_factory=time.monotonic)  # on time's monotonic clock


class DiskThread:
    """Does jobs one after the other, in the order in which they came. Its methods are for any other thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._current: Job | None = None
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> None:
        """Take a job."""
        with self._changed:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Do something soon; the future has what comes of it."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self.put(Job(future, job))
        return future

    def drop(self, jobs: list[Job]) -> None:
        """Take back jobs that have not begun."""
        with self._changed:
            self._jobs = [job for job in self._jobs if job not in jobs]
            self._changed.notify_all()

    def flush(self, owner: object, seconds: float) -> None:
        """Have the jobs of somebody done now, and wait for them, but no longer than that."""
        with self._changed:
            for job in self._jobs:
                if job.owner is owner:
                    job.due = 0.0
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._has(owner), seconds)

    def _has(self, owner: object) -> bool:
        return any(job.owner is owner for job in (*self._jobs, *filter(None, [self._current])))

    def _run(self) -> None:
        while True:
            self._do(self._next())  # which keeps no job, and with it no arrays, until the next one comes

    def _do(self, job: Job) -> None:
        try:
            job.work()
        except Exception:  # the thread outlives whatever a job runs into
            log.exception("a write failed")
        with self._changed:
            self._current = None
            self._changed.notify_all()

    def _next(self) -> Job:
        with self._changed:
            while True:
                now = time.monotonic()
                if (job := next((job for job in self._jobs if job.due <= now), None)) is not None:
                    self._jobs.remove(job)
                    self._current = job
                    return job
                self._changed.wait(min((job.due - now for job in self._jobs), default=None))


disk = DiskThread()
