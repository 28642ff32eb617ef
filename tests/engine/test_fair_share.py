"""Whose step is next."""

from dataclasses import dataclass

import pytest

from app.services.engine.scheduler.fair_share import FairShare


@dataclass(eq=False)
class Worker:
    """As much of a scheduler as FairShare looks at."""

    step: float  # seconds
    busy: bool = True
    had: float = 0.0


def work(fair_share: FairShare, workers: list[Worker], seconds: float) -> None:
    """Let them work for so long."""
    while seconds > 0 and (worker := fair_share.next(workers)) is not None:  # type: ignore[arg-type]
        worker.had += worker.step
        fair_share.add_time(worker, worker.step)  # type: ignore[arg-type]
        seconds -= worker.step


@pytest.mark.parametrize("steps", [(0.2, 0.01), (0.01, 0.2), (0.05, 0.05)])
def test_a_large_and_a_small_model_get_the_same_time(steps: tuple[float, float]) -> None:
    workers = [Worker(step) for step in steps]
    work(FairShare(), workers, 10.0)
    assert workers[0].had == pytest.approx(workers[1].had, abs=max(steps) * 2)


def test_rest_is_not_saved_up() -> None:
    fair_share, workers = FairShare(), [Worker(0.1), Worker(0.1, busy=False)]
    work(fair_share, workers, 10.0)
    assert workers[1].had == 0.0
    workers[1].busy = True
    before = workers[0].had
    work(fair_share, workers, 2.0)
    assert workers[0].had - before == pytest.approx(1.0, abs=0.2)


def test_nobody_has_a_turn_when_all_are_at_rest() -> None:
    assert FairShare().next([Worker(1.0, busy=False)]) is None  # type: ignore[list-item]
    assert FairShare().next([]) is None
