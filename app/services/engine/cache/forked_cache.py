"""Rows that go on from one cache, without a copy of it for each."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from app.services.engine.cache.ragged_cache import merge_layer

_Base: Any = KVCache  # mlx-lm's methods have no types


class ForkedKVCache(_Base):  # type: ignore[misc]
    """The cache of a layer for one call: its rows share all that is in a single one.

    That is copied for each row only while the layer is computed, and again for a model that reads it once more, for
    other layers. Nothing of the rows is left behind.
    """

    def __init__(self, cache: KVCache, rows: int) -> None:
        self.offset = cache.offset
        self._shared = cache.keys_and_values()
        self._rows = rows
        self._fed: tuple[mx.array, mx.array] | None = None

    @property
    def keys(self) -> mx.array:
        """Keys (rows, heads, tokens, size) of what is shared and of what is fed."""
        return self._of_rows(0)

    @property
    def values(self) -> mx.array:
        """The values of the same."""
        return self._of_rows(1)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Take what is fed (rows, heads, tokens, size), once. Gives all keys and values."""
        self._fed = (keys, values)
        self.offset += keys.shape[2]
        return self.keys, self.values

    def _of_rows(self, index: int) -> mx.array:
        shared = self._shared[index]
        shared = mx.broadcast_to(shared, (self._rows, *shared.shape[1:]))
        return shared if self._fed is None else mx.concatenate([shared, self._fed[index]], axis=2)


def fork_caches(layers: Sequence[Any], rows: int) -> list[Any]:
    """Give caches for one call of so many rows that go on from the cache of a single one, which stays as it is."""
    return [
        ForkedKVCache(layer, rows) if type(layer) is KVCache and not layer.empty() else merge_layer([layer] * rows)
        for layer in layers
    ]
