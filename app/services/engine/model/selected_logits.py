"""Logits of some positions alone: with a large vocabulary those of all others would take most of the time."""

from typing import Any

import mlx.core as mx

from app.services.engine.cache.layers import Layers
from app.services.engine.model.blas import threads
from app.services.engine.model.language_model import LanguageModel, flat

_CLOSE = 0.05  # of the largest logit: how much two ways to compute one may differ, in 8 bits of a bfloat16 too


class SelectedLogits:
    """Computes tokens into caches, and gives the logits of the positions that are wanted.

    The hidden states of all others are left out between a model's body and its head. Whether that can be done with a
    model is tried once; of others all logits are computed. On the engine thread.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._works: bool | None = None  # not tried yet

    @property
    def computes_all(self) -> bool:
        """Whether all logits are computed, however few are wanted."""
        if self._works is None:
            self._works = self.model.body is not None and self._try()
        return not self._works

    def forward(self, layers: Layers, tokens: list[Any], positions: list[int], *, is_last: bool = False) -> mx.array:
        """Compute tokens (rows, length) into their cache, unless they are the last that is computed with it.

        Gives the logits (positions, vocabulary) at these positions, which are counted through all rows.
        """
        with threads.all():
            logits = self._select(layers, mx.array(tokens), mx.array(positions))
            mx.eval(logits)
            if not is_last:
                layers.evaluate()
        return logits

    def _select(self, layers: Layers, tokens: mx.array, positions: mx.array) -> mx.array:
        if self.computes_all:
            return flat(self.model.step(layers, tokens))[positions]
        return self.model.select(layers, tokens, positions)

    def _try(self) -> bool:
        """Try it with a few tokens."""
        tokens, positions = mx.array([[0, 1, 2, 3], [3, 2, 1, 0]]), mx.array([2, 5])
        whole = flat(self.model.step(self.model.new_layers(), tokens))[positions]
        try:
            some = self.model.select(self.model.new_layers(), tokens, positions)
        except Exception:  # somebody else's model, which is built in another way
            return False
        if some.shape != whole.shape:
            return False
        return bool(mx.abs(some - whole).max() <= _CLOSE * mx.abs(whole).max())
