"""How much of a prompt to compute at once, so that nobody waits long for the next token."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_SMALLEST, _LARGEST = 16, 2048  # tokens
_GROWTH = 4  # a slice has at most so many times the tokens of the largest that was measured
_FULL = 0.5  # seconds of a slice that says how fast it goes; shorter ones are mostly overhead and say little


class ChunkSizer:
    """Measures how fast this model computes and turns milliseconds into tokens.

    Nothing is taken for granted: it begins with the smallest slice, and a slow machine never sees a large one.
    """

    def __init__(self) -> None:
        self.expected = 0.0  # seconds that what is under way should take; 0 where nothing is, or nothing is known
        self._per_second: float | None = None
        self._most = 0  # tokens that were computed at once

    def tokens(self, seconds: float) -> int:
        """How many tokens fit into so much time."""
        if self._per_second is None:
            return _SMALLEST
        return int(min(_LARGEST, max(_SMALLEST, min(self._per_second * seconds, _GROWTH * self._most))))

    @contextmanager
    def expect(self, tokens: int) -> Iterator[None]:
        """Say in `expected` how long this may take, for as long as it is under way."""
        self.expected = tokens / self._per_second if self._per_second else 0.0
        try:
            yield
        finally:
            self.expected = 0.0

    @contextmanager
    def measure(self, tokens: int) -> Iterator[None]:
        """Learn from computing so many tokens."""
        began = time.perf_counter()
        with self.expect(tokens):
            yield
        rate = tokens / max(time.perf_counter() - began, 1e-6)
        self._most = max(self._most, tokens)
        if self._per_second is None:
            self._per_second = rate
        else:
            weight = min(0.5, tokens / min(256, max(_SMALLEST, self._per_second * _FULL)))
            self._per_second += weight * (rate - self._per_second)
