"""A batch cache whose rows may end at different columns: some are fed several tokens at once, others one."""

from collections.abc import Sequence
from typing import Any, Self, cast

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache

_Base: Any = BatchKVCache  # mlx-lm's methods have no types


class RaggedKVCache(_Base):  # type: ignore[misc]
    """mlx-lm's cache of full attention for a batch, with rows that can be trimmed one by one.

    A row lies in adjacent columns, from its left padding to `_idx - behind`. What is fed next is written behind its
    own end, over what was trimmed, so nothing has to be moved. While all rows end at `_idx`, it is mlx-lm's cache.
    """

    keys: Any  # (rows, heads, columns, size), as values
    values: Any
    offset: Any  # (rows,) tokens of each
    left_padding: Any  # (rows,) columns before the first token of each

    def __init__(self, left_padding: list[int]) -> None:
        super().__init__(left_padding)
        self._behind = [0] * len(left_padding)  # columns of each row

    @property
    def is_ragged(self) -> bool:
        """Whether rows end at different columns."""
        return any(self._behind)

    @property
    def columns(self) -> int:
        """Columns that are read in each step."""
        return int(self._idx)

    @property
    def starts(self) -> list[int]:
        """The column of each row that its first token is in."""
        return cast("list[int]", self.left_padding.tolist())

    @property
    def ends(self) -> list[int]:
        """The column of each row that is written next."""
        return [self._idx - behind for behind in self._behind]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [end - start for end, start in zip(self.ends, self.starts, strict=True)]

    @classmethod
    def merge(cls, caches: Sequence[KVCache]) -> Self:
        """Copy the caches of single rows."""
        return cast("Self", super().merge(caches)) if any(map(KVCache.size, caches)) else cls([0] * len(caches))

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write the keys and values (rows, heads, tokens, size) of what is fed. Returns those of all columns."""
        if not self.is_ragged:
            return cast("tuple[mx.array, mx.array]", super().update_and_fetch(keys, values))
        tokens = keys.shape[2]
        columns = mx.array(self.ends)[:, None] + mx.arange(tokens)
        self._grow(tokens)
        self.keys, self.values = (_put(*pair, columns) for pair in ((self.keys, keys), (self.values, values)))
        self.offset = self.offset + tokens
        self._idx += tokens
        return cast("tuple[mx.array, mx.array]", self.keys_and_values())

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:  # noqa: N803
        """Make the mask (rows, 1, N, columns) for N tokens that are fed: each row sees its own ones, up to itself."""
        if not self.is_ragged:
            return cast("mx.array", super().make_mask(N, return_array, window_size=window_size))
        columns = mx.arange(self._idx + N)
        fed = (mx.array(self.ends)[:, None] + mx.arange(N))[:, None, :, None]
        mask: mx.array = (columns <= fed) & (columns >= self.left_padding[:, None, None, None])
        return mask if window_size is None else mask & (columns > fed - window_size)

    def trim_rows(self, tokens: Sequence[int]) -> None:
        """Drop so many of the last tokens of each row."""
        self._behind = [behind + count for behind, count in zip(self._behind, tokens, strict=True)]
        self.offset = self.offset - mx.array(list(tokens))
        self._settle()

    def filter(self, batch_indices: list[int]) -> None:
        """Keep these rows alone."""
        self._behind = [self._behind[index] for index in batch_indices]
        super().filter(batch_indices)
        self._settle()

    def extend(self, other: Self) -> None:
        """Append the rows of another one."""
        super().extend(other)
        self._behind += other._behind

    def extract(self, idx: int) -> KVCache:
        """Give a row as a cache of its own."""
        if self.keys is None:
            return KVCache()
        cache: KVCache = super().extract(idx)
        cache.trim(self._behind[idx])
        return cache

    @property
    def is_padded(self) -> bool:
        """Whether rows are padded on the right."""
        return self._right_padding is not None

    def drop_first(self, columns: int) -> None:
        """Drop the first columns, with the tokens in them, while nothing is padded on the right."""
        padding = mx.maximum(self.left_padding - columns, 0)
        self.offset = self.offset - (columns - (self.left_padding - padding))
        self.left_padding = padding
        self.keys, self.values = (mx.contiguous(array[..., columns:, :]) for array in (self.keys, self.values))
        self._idx -= columns

    def replace(self, keys: mx.array, values: mx.array, padding: mx.array) -> None:
        """Hold these (rows, heads, columns, size) and nothing else, padded on the left by so many columns (rows,)."""
        self.keys, self.values, self._idx = keys, values, keys.shape[2]
        self.left_padding, self.offset = padding, self._idx - padding

    def _settle(self) -> None:
        """Forget columns in which no row has anything."""
        if surplus := min(self._behind, default=0):
            self._behind = [behind - surplus for behind in self._behind]
            self._idx -= surplus

    def _grow(self, tokens: int) -> None:
        """Make columns for so many more tokens."""
        missing = self._idx + tokens - self.keys.shape[2]
        if missing > 0:
            columns = -(-missing // self.step) * self.step
            padding = [(0, 0), (0, 0), (0, columns), (0, 0)]
            self.keys, self.values = mx.pad(self.keys, padding), mx.pad(self.values, padding)


def _put(array: mx.array, fed: mx.array, columns: mx.array) -> mx.array:
    """Write what is fed (rows, heads, tokens, size) into columns (rows, tokens) of an array."""
    return mx.put_along_axis(array, mx.broadcast_to(columns[:, None, :, None], fed.shape), fed.astype(array.dtype), 2)


def merge_layer(caches: Sequence[Any]) -> Any:
    """Copy a layer's caches of single rows into one batch cache."""
    return (RaggedKVCache if type(caches[0]) is KVCache else type(caches[0])).merge(list(caches))
