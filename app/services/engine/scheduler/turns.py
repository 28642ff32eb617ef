"""Whose step is next, of several models at work."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports MLX
    from app.services.engine.scheduler.runner import Runner


class Turns:
    """The turn is that of the runner which has had the least time, so that a large model does not hold up a small one.

    A runner that comes back from rest stands level with the others: rest is not saved up.
    """

    def __init__(self) -> None:
        self._spent: dict[Runner, float] = {}  # seconds, of those at work

    def next(self, runners: Sequence["Runner"]) -> "Runner | None":
        """Give the runner whose turn it is; None when all are at rest."""
        busy = [runner for runner in runners if runner.busy]
        least = min((self._spent[runner] for runner in busy if runner in self._spent), default=0.0)
        self._spent = {runner: self._spent.get(runner, least) for runner in busy}
        for runner in busy:
            runner.alone = len(busy) == 1
        return min(busy, key=self._spent.__getitem__, default=None)

    def took(self, runner: "Runner", seconds: float) -> None:
        """Note how long a step was."""
        if runner in self._spent:
            self._spent[runner] += seconds
