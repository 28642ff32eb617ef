"""How long a row may reason, and what ends its reasoning."""

from collections.abc import Sequence


class ReasoningLimit:
    """The budget of one answer. `closes` are tokens that end the reasoning: the first time, the second, and so on."""

    def __init__(self, budget: int | None, closes: Sequence[Sequence[int]]) -> None:
        self.tokens = 0  # of the reasoning so far
        self._budget = budget
        self._closes = closes
        self._closings = 0  # how often it was ended

    def is_reached(self, more: int = 0) -> bool:
        """Whether the budget is used up once so many more tokens have come."""
        return self._budget is not None and self.tokens + more >= self._budget

    def next_close(self) -> Sequence[int]:
        """Give the tokens that end the reasoning now."""
        tokens = self._closes[min(self._closings, len(self._closes) - 1)] if self._closes else ()
        self._closings += 1
        return tokens
