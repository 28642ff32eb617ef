"""Whose step is next, of several models at work."""

from collections.abc import Sequence

from app.services.engine.scheduler.model_scheduler import ModelScheduler


class FairShare:
    """The next step is that of the scheduler which has had the least time: a large model does not hold up a small one.

    A scheduler that was idle continues level with the others: idle time is not saved up.
    """

    def __init__(self) -> None:
        self._seconds: dict[ModelScheduler, float] = {}  # seconds, of those at work

    def next(self, schedulers: Sequence[ModelScheduler]) -> ModelScheduler | None:
        """Give the scheduler whose turn it is; None when all are at rest."""
        busy = [scheduler for scheduler in schedulers if scheduler.busy]
        least = min((self._seconds[scheduler] for scheduler in busy if scheduler in self._seconds), default=0.0)
        self._seconds = {scheduler: self._seconds.get(scheduler, least) for scheduler in busy}
        return min(busy, key=self._seconds.__getitem__, default=None)

    def add_time(self, scheduler: ModelScheduler, seconds: float) -> None:
        """Note how long a step of a scheduler took, in seconds."""
        if scheduler in self._seconds:
            self._seconds[scheduler] += seconds
