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
    """Something to write for an owner, not before it is due."""

    owner: object
    work: Callable[[], None]
    due: float = field(default_factory=time.monotonic)  # on time's monotonic clock


class DiskThread:
    """Runs jobs one after the other, in the order in which they came. Its methods are for any other thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._current: Job | None = None
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> None:
        """Queue a job."""
        with self._changed:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Queue a function; the future gets its result."""
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

    def cancel(self, jobs: list[Job]) -> None:
        """Remove jobs that have not started."""
        with self._changed:
            self._jobs = [job for job in self._jobs if job not in jobs]
            self._changed.notify_all()

    def flush(self, owner: object, seconds: float) -> None:
        """Run the jobs of an owner now, and wait for them at most so many seconds."""
        with self._changed:
            for job in self._jobs:
                if job.owner is owner:
                    job.due = 0.0
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._has_jobs(owner), seconds)

    def _has_jobs(self, owner: object) -> bool:
        return any(job.owner is owner for job in (*self._jobs, *filter(None, [self._current])))

    def _run(self) -> None:
        while True:
            self._run_job(self._next_job())  # no variable, which would keep a job's arrays until the next one comes

    def _run_job(self, job: Job) -> None:
        try:
            job.work()
        except Exception:  # the thread outlives whatever a job runs into
            log.exception("a write failed")
        with self._changed:
            self._current = None
            self._changed.notify_all()

    def _next_job(self) -> Job:
        with self._changed:
            while True:
                now = time.monotonic()
                if (job := next((job for job in self._jobs if job.due <= now), None)) is not None:
                    self._jobs.remove(job)
                    self._current = job
                    return job
                self._changed.wait(min((job.due - now for job in self._jobs), default=None))


disk = DiskThread()
