"""What the next call of a model is to know of its rows, besides their tokens and caches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.services.engine.model.adapters import Adapters, Scales
from app.services.engine.scheduler.row import Row

if TYPE_CHECKING:  # only models that see need it
    from app.services.engine.vision.positions import Positions


class Steering:
    """Sets the scales of adapters, and how far images shift positions, before each call. On the engine thread."""

    def __init__(self, adapters: Adapters | None = None, positions: "Positions | None" = None) -> None:
        self.adapters = adapters or Adapters()
        self._positions = positions  # None where images shift none

    def use(self, rows: Sequence[Row]) -> None:
        """Have the next calls compute these rows, each from where its prompt is computed to, or further on."""
        self.adapters.use([row.scales for row in rows])
        if self._positions is not None:
            self._positions.use([row.images.shift(row.prefill.length) for row in rows])

    def use_texts(self, scales: Scales) -> None:
        """Have the next calls compute texts that are no rows, all with the same scales."""
        self.adapters.use([scales])
        if self._positions is not None:
            self._positions.use(())
