"""How far the training is, and how large its steps are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Warm up, hold, and fall to zero; the end is a number of tokens or, if it comes first, of minutes."""

    tokens: int
    minutes: float
    warm_up: float = 0.01
    decay: float = 0.92

    def progress(self, tokens: int, minutes: float) -> float:
        """The share of the training that is done."""
        return max(tokens / self.tokens, minutes / self.minutes)

    def rate(self, progress: float) -> float:
        """The share of the full learning rate at that progress."""
        return max(0.0, min(1.0, progress / self.warm_up + 0.05, (1 - progress) / self.decay))
