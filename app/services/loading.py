"""A load under way."""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Loading:
    """Which model, since when, and how far it is."""

    model: str
    began: float = field(default_factory=time.monotonic)
    progress: float = 0.0  # 0 to 1

    def seconds_left(self) -> int:
        """Whole seconds until it is done, as far as can be told from the progress: 1 to 60."""
        elapsed = time.monotonic() - self.began
        return max(1, min(60, round(elapsed / self.progress - elapsed if self.progress > 0.1 else elapsed)))
