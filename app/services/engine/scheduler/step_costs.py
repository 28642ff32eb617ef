"""What the steps of a batch cost by the tokens in them, as far as that was measured."""

from collections.abc import Sequence

from app.services.engine.model.chunk_sizer import ChunkSizer

_WORTH = 1.1  # times as many tokens a second as steps of one token a row give
_LEARN = 0.3  # weight of what was measured last


class StepCosts:
    """Seconds of steps, and whether one with several tokens a row is worth it. `prompts` has measured prompts."""

    def __init__(self, prompts: ChunkSizer | None = None) -> None:
        self._prompts = prompts
        self._rows = 0  # of the steps that were measured
        self._seconds: float | None = None  # of a step with one token a row
        self._factor = 1.0  # what wide steps took, by what was expected of them

    def note_step(self, rows: int, seconds: float) -> None:
        """Note how long a step with one token a row took."""
        if rows != self._rows or self._seconds is None:
            self._rows, self._seconds = rows, seconds
        else:
            self._seconds += _LEARN * (seconds - self._seconds)

    def note_wide(self, tokens: int, seconds: float) -> None:
        """Note how long a step with so many tokens took, padding among them."""
        if expected := self._expected(tokens):
            self._factor += _LEARN * (seconds / expected - self._factor)

    def width(self, lengths: Sequence[int]) -> int:
        """Give how many tokens a row a step should have at most, whose rows have as many as these that are certain."""
        rows, best, most = len(lengths), 1, 0.0
        if rows != self._rows or self._seconds is None:
            return 1
        for width in sorted({*lengths}):
            if expected := self._expected(rows * width):
                rate = sum(min(length, width) for length in lengths) / (self._factor * expected)
                if rate > max(most, _WORTH * rows / self._seconds):
                    best, most = width, rate
        return best

    def _expected(self, tokens: int) -> float | None:
        """Seconds of a step with so many tokens, before any was measured: those of a prompt of that length."""
        rate = self._prompts.per_second if self._prompts is not None else None
        return max(self._seconds, tokens / rate) if rate and self._seconds else None
