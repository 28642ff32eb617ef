"""How many tokens of a prompt to compute in one prefill chunk, so that decoding goes on in between."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_SMALLEST, _LARGEST = 16, 2048  # tokens
_GROWTH = 4  # a chunk has at most so many times the tokens of the largest that was measured
_FULL = 0.5  # seconds; shorter chunks are mostly overhead, so they count less in the rate


class ChunkSizer:
    """Measures a model's prefill rate and turns seconds into tokens.

    It begins with the smallest chunk and grows, so a slow machine never gets a large one.
    """

    def __init__(self) -> None:
        self.expected = 0.0  # seconds that the present chunk should take; 0 if there is none, or no rate yet
        self._per_second: float | None = None
        self._most = 0  # tokens of the largest chunk so far

    @property
    def per_second(self) -> float | None:
        """Tokens a second; None before any were measured."""
        return self._per_second

    def tokens(self, seconds: float) -> int:
        """Give how many tokens fit into so many seconds."""
        if self._per_second is None:
            return _SMALLEST
        return int(min(_LARGEST, max(_SMALLEST, min(self._per_second * seconds, _GROWTH * self._most))))

    @contextmanager
    def expect(self, tokens: int) -> Iterator[None]:
        """Set `expected` while so many tokens are computed."""
        self.expected = tokens / self._per_second if self._per_second else 0.0
        try:
            yield
        finally:
            self.expected = 0.0

    @contextmanager
    def measure(self, tokens: int) -> Iterator[None]:
        """Measure the rate while so many tokens are computed."""
        start = time.perf_counter()
        with self.expect(tokens):
            yield
        self.note(tokens, time.perf_counter() - start)

    def note(self, tokens: int, seconds: float) -> None:
        """Note that so many tokens took so many seconds."""
        rate = tokens / max(seconds, 1e-6)
        self._most = max(self._most, tokens)
        if self._per_second is None:
            self._per_second = rate
        else:
            weight = min(0.5, tokens / min(256, max(_SMALLEST, self._per_second * _FULL)))
            self._per_second += weight * (rate - self._per_second)
