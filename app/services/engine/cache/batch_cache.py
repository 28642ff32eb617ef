"""The KV cache of the rows of a batch."""

from collections.abc import Sequence
from typing import cast

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache

from app.services.engine.cache.layers import Layers, is_trimmable, leaves, make_checkpoint, merge
from app.services.engine.cache.mixed_cache import MixedBatchKVCache
from app.services.engine.cache.ragged_cache import RaggedKVCache

_SURPLUS = 256  # columns that a batch may have beyond its longest row, or a quarter of that: each is read in each step


class BatchCache:
    """Layers of rows that join and leave. A row that is alone keeps its own, without the padding mask of a batch."""

    def __init__(self) -> None:
        self.layers: Layers = []
        self.merged = False  # whether the layers are those of mlx-lm's batch caches
        self._rows = 0

    def join(self, caches: Sequence[Layers]) -> None:
        """Take in rows by the layers of each."""
        if len(caches) == 1 and not self._rows:
            self.layers, self.merged, self._rows = caches[0], False, 1
        else:
            self.join_merged(merge(caches), len(caches))

    def join_merged(self, layers: Layers, rows: int) -> None:
        """Take in so many rows by the batch cache that they have already."""
        if self._rows and not self.merged:
            self.layers = merge([self.layers])
        if self._rows:
            for layer, other in zip(self.layers, layers, strict=True):
                layer.extend(other)
        else:
            self.layers = layers
        self.merged = True
        self._rows += rows

    @property
    def can_trim(self) -> bool:
        """Whether all layers can be trimmed however many tokens they hold."""
        return all(map(is_trimmable, self.layers))

    def trim(self, tokens: int) -> None:
        """Drop so many of the last tokens of all rows."""
        for layer in self.layers if tokens else ():
            layer.trim(tokens)

    def checkpoint(self) -> Layers:
        """Copy the layers that cannot be trimmed."""
        return make_checkpoint(self.layers)

    def go_back(self, checkpoint: Layers, tokens: int) -> None:
        """Go back to a checkpoint that was made so many tokens before."""
        untrimmable = iter(checkpoint)
        for depth, layer in enumerate(self.layers):
            if is_trimmable(layer):
                layer.trim(tokens)
            else:
                self.layers[depth] = next(untrimmable)

    @property
    def can_trim_rows(self) -> bool:
        """Whether rows can be trimmed one by one."""
        return self.merged and all(isinstance(layer, RaggedKVCache | MixedBatchKVCache) for layer in self.layers)

    def trim_rows(self, tokens: Sequence[int]) -> None:
        """Drop so many of the last tokens of each row."""
        layers = cast("list[RaggedKVCache | MixedBatchKVCache]", self.layers)
        for layer in layers:
            layer.trim_rows(tokens)
        longest = max(layers[0].lengths)
        if layers[0].columns - longest > max(_SURPLUS, longest // 4):
            self.layers = merge([self.extract(row) for row in range(self._rows)])

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, by their places."""
        if not rows:
            self.layers, self.merged = [], False
        elif len(rows) == 1:
            self.layers, self.merged = self.extract(rows[0]), False
        else:
            for layer in self.layers:
                layer.filter(rows)
        self._rows = len(rows)

    def extract(self, row: int) -> Layers:
        """Give the layers of one row, by its place."""
        if not self.merged:
            return self.layers
        layers = [layer.extract(row) for layer in self.layers]
        for layer in leaves(layers):
            if isinstance(layer, ArraysCache):  # a view, which would keep the whole batch alive
                layer.cache = [array if array is None else mx.contiguous(array) for array in layer.cache]
        mx.eval([layer.state for layer in layers])  # lazily, they would keep the whole batch alive
        return layers
