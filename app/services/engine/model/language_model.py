"""What the engine needs of a model that mlx-lm has loaded."""

from typing import Protocol

import mlx.core as mx

from app.services.engine.cache.layers import Layers


class LanguageModel(Protocol):
    """A model of mlx-lm's."""

    def __call__(self, inputs: mx.array, cache: Layers | None = None) -> mx.array:
        """Give the logits (rows, length, vocabulary) of token ids (rows, length), which are added to the cache."""
