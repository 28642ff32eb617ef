"""How much of an answer's time goes into its grammar."""

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar


class Stopwatch:
    """The time that a constraint takes, that of its copies included."""

    def __init__(self) -> None:
        self.seconds = 0.0


P = ParamSpec("P")
T = TypeVar("T")


def timed(method: Callable[P, T]) -> Callable[P, T]:
    """Have what a method takes added to the stopwatch of its object."""

    @wraps(method)
    def measured(*args: P.args, **kwargs: P.kwargs) -> T:
        began = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            args[0].stopwatch.seconds += time.perf_counter() - began  # type: ignore[attr-defined]

    return measured
