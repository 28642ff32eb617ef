"""How much of a prompt to compute at once, so that nobody waits long for the next token."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_SMALLEST, _LARGEST = 16, 2048  # tokens


class Pace:
    """Measures how fast this model computes prompts and turns milliseconds into tokens."""

    def __init__(self) -> None:
        self._per_second = 512.0  # a first guess; each slice corrects it

    def tokens(self, seconds: float) -> int:
        """How many tokens fit into so much time."""
        return int(min(_LARGEST, max(_SMALLEST, self._per_second * seconds)))

    @contextmanager
    def measured(self, tokens: int) -> Iterator[None]:
        """Learn from computing so many tokens."""
        began = time.perf_counter()
        yield
        rate = tokens / max(time.perf_counter() - began, 1e-6)
        weight = min(0.5, tokens / 256)  # short slices are mostly overhead and say little
        self._per_second += weight * (rate - self._per_second)
