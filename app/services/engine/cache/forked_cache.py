"""Rows that go on from one cache, without a copy of it for each."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from app.services.engine.cache.ragged_cache import merge_layer

_Base: Any = KVCache  # mlx-lm's methods have no types


class ForkedKVCache(_Base):  # type: ignore[misc]
    """The cache of a layer for one call: its rows share all that is in a single one.

    That is copied for each row only while the layer is computed. Nothing of the rows is left behind.
    """

    def __init__(self, cache: KVCache, rows: int) -> None:
        super().__init__()
        self.keys, self.values = cache.keys_and_values()
        self.offset = cache.offset
        self._rows = rows

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Give the keys and values (rows, heads, tokens, size) of what is shared and of what is fed."""
        self.offset += keys.shape[2]
        return self._behind(self.keys, keys), self._behind(self.values, values)

    def _behind(self, shared: mx.array, fed: mx.array) -> mx.array:
        return mx.concatenate([mx.broadcast_to(shared, (self._rows, *shared.shape[1:])), fed], axis=2)


def fork_layers(layers: Sequence[Any], rows: int) -> list[Any]:
    """Give caches for one call of so many rows that go on from the cache of a single one, which stays as it is."""
    return [
        ForkedKVCache(layer, rows) if type(layer) is KVCache and not layer.empty() else merge_layer([layer] * rows)
        for layer in layers
    ]
