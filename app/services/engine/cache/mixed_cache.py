"""Caches of full attention that hold older tokens in 8 or 4 bits a number, and the newest ones as they are.

What a token sees does not depend on how its prompt was cut, on who else is in the batch, or on where its cache comes
from: tokens are counted off in blocks from the first one on, and a token sees those of its own block as they are, and
those of earlier blocks rounded, but for the first few of all, to which models pay the most attention.
"""

from collections.abc import Sequence
from typing import Any, Self, cast

import mlx.core as mx
from mlx_lm.models import cache as cache_types
from mlx_lm.models.cache import KVCache, create_attention_mask

from app.services.engine.cache.packed import pack, unpack
from app.services.engine.cache.ragged_cache import RaggedKVCache
from app.services.facts import KVBits

BLOCK = 128  # tokens
FIRST = 4  # tokens that are never rounded
_RECENT = 2 * BLOCK  # tokens that are held as they are at least, so that a block of them can be taken back
_SURPLUS = 128  # tokens beyond those before they are dropped

Pair = tuple[mx.array, mx.array]  # keys and values (rows, heads, tokens, size)


class _MixedCache:
    """A cache of all tokens, packed, and two of some as they are: all three of a row, or all of a batch."""

    packed: Any
    recent: Any  # the newest tokens
    first: Any  # the first tokens, once they are not among the newest any more

    def __init__(self, caches: Sequence[Any], kv_bits: KVBits) -> None:
        self.packed, self.recent, self.first = caches
        self.kv_bits = kv_bits

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """The caches that it is made of."""
        return self.packed, self.recent, self.first

    @property
    def offset(self) -> Any:
        """Tokens: a number, or (rows,) of a batch."""
        return self.packed.offset

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(part.nbytes for part in self.parts)

    def size(self) -> int:
        """Tokens, of the longest row with its padding."""
        return int(self.packed.size())

    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return bool(self.packed.empty())

    def is_trimmable(self) -> bool:
        """Whether it can be trimmed: by a block at most, or to the start of one."""
        return True

    def trim(self, n: int) -> int:
        """Drop the last `n` tokens."""
        self.recent.trim(n)
        return int(self.packed.trim(n))

    def _add(self, keys: mx.array, values: mx.array) -> tuple[Pair, Pair]:
        """Add the keys and values of what is fed. Returns those of all tokens packed, and the newest as they are."""
        packed = self.packed.update_and_fetch(*map(pack, (keys, values), self.kv_bits))
        return packed, self.recent.update_and_fetch(keys, values)

    def _join(self, first: Sequence[mx.array], packed: Sequence[mx.array], recent: Sequence[mx.array]) -> Pair:
        """Join keys with keys and values with values: first tokens, then older ones, then recent ones."""
        keys, values = (
            mx.concatenate([before, unpack(words, bits, new.shape[-1], new.dtype), new], axis=2)
            for before, words, bits, new in zip(first, packed, self.kv_bits, recent, strict=True)
        )
        return keys, values


class MixedKVCache(_MixedCache):
    """The cache of one row."""

    def __init__(self, kv_bits: KVBits) -> None:
        super().__init__((KVCache(), KVCache(), KVCache()), kv_bits)

    @property
    def state(self) -> Any:
        """What is written to a file."""
        return *(part.state for part in self.parts), *self.kv_bits

    @classmethod
    def from_state(cls, state: Any) -> Self:
        """Make the cache that was written to a file."""
        cache = cls(KVBits(*state[3:]))
        cache.packed, cache.recent, cache.first = map(KVCache.from_state, state[:3])
        return cache

    @classmethod
    def merge(cls, caches: Sequence["MixedKVCache"]) -> "MixedBatchKVCache":
        """Copy the caches of single rows into one batch cache."""
        parts = zip(*(cache.parts for cache in caches), strict=True)
        return MixedBatchKVCache([RaggedKVCache.merge(each) for each in parts], caches[0].kv_bits)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Pair:
        """Add the keys and values of what is fed. Returns all that any of it may see."""
        (block, last), start = self._blocks(keys.shape[2]), self.packed.offset - self.recent.offset
        assert start <= block, "it was trimmed to where it cannot be"
        packed, recent = self._add(keys, values)
        if not last:
            return recent
        first = self.first.keys_and_values() if start else [array[..., :FIRST, :] for array in recent]
        rounded = [array[..., FIRST:last, :] for array in packed]
        fetched = self._join(first, rounded, [array[..., block - start :, :] for array in recent])
        if (surplus := self.recent.offset - _RECENT) > _SURPLUS:
            if not start:
                self.first.update_and_fetch(*first)
                drop_first(self.first, 0)
            drop_first(self.recent, surplus)
        return fetched

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:  # noqa: N803
        """Make the mask (N, columns) for N tokens that are fed."""
        (block, last), offset = self._blocks(N), self.packed.offset
        if block == last:  # all of them see the same tokens rounded, and no token is there twice
            return create_attention_mask(N, offset, return_array, window_size)
        fed = mx.arange(offset, offset + N)[:, None]
        old, recent = mx.arange(last), mx.arange(block, offset + N)
        seen = mx.concatenate([old < _block_start(fed), (recent >= _block_start(fed)) & (recent <= fed)], axis=-1)
        if window_size is None:
            return seen
        return seen & (mx.concatenate([old, recent]) > fed - window_size)

    def _blocks(self, tokens: int) -> tuple[int, int]:
        """Give where the blocks start of the first and the last of so many tokens that are fed."""
        offset = self.packed.offset
        return _block_start(offset), _block_start(offset + tokens - 1)


class MixedBatchKVCache(_MixedCache):
    """The cache of a batch, whose rows may end at different columns."""

    packed: RaggedKVCache
    recent: RaggedKVCache
    first: RaggedKVCache

    @property
    def state(self) -> Any:
        """Its arrays."""
        return [part.state for part in self.parts]

    @property
    def columns(self) -> int:
        """Columns that are read in each step."""
        return self.packed.columns

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return self.packed.lengths

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Pair:
        """Add the keys and values of what is fed. Returns all that any of it may see."""
        rounded = self._rounded(keys.shape[2])
        packed, recent = self._add(keys, values)
        if not rounded:
            return recent
        first = self.first.keys_and_values() if self.first.columns else [array[..., :0, :] for array in recent]
        fetched = self._join(first, [array[..., :rounded, :] for array in packed], recent)
        if (surplus := min(self.recent.ends) - _RECENT) > _SURPLUS and not self.recent.is_padded:
            self._drop(surplus)
        return fetched

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:  # noqa: N803
        """Make the mask (rows, 1, N, columns) for N tokens that are fed."""
        rounded = self._rounded(N)
        fed = (self.offset[:, None] + mx.arange(N))[..., None]
        first = _positions(self.first, self.first.columns if rounded else 0)
        old = _positions(self.packed, rounded)
        recent = _positions(self.recent, self.recent.columns + N)
        start = (self.offset - self.recent.offset)[:, None, None]
        recent = mx.where(recent < 0, -1, recent + start)
        block = _block_start(fed)
        seen = [
            mx.broadcast_to(first >= 0, (*fed.shape[:2], first.shape[2])),
            (old >= FIRST) & (old < block),
            (recent >= 0) & (recent <= fed) & ((recent >= block) | (recent < FIRST)),
        ]
        mask: mx.array = mx.concatenate(seen, axis=-1)[:, None]
        if window_size is not None:
            mask = mask & (mx.concatenate([first, old, recent], axis=-1) > fed - window_size)[:, None]
        return mask

    def trim_rows(self, tokens: Sequence[int]) -> None:
        """Drop so many of the last tokens of each row, a block at most."""
        assert max(tokens) <= BLOCK
        self.packed.trim_rows(tokens)
        self.recent.trim_rows(tokens)

    def prepare(self, **padding: list[int]) -> None:
        """Expect rows that are padded on the right."""
        self.packed.prepare(**padding)
        self.recent.prepare(**padding)

    def finalize(self) -> None:
        """Move the padding to the left."""
        self.packed.finalize()
        self.recent.finalize()

    def filter(self, batch_indices: list[int]) -> None:
        """Keep these rows alone."""
        for part in self.parts:
            part.filter(batch_indices)

    def extend(self, other: Self) -> None:
        """Append the rows of another one."""
        for part, more in zip(self.parts, other.parts, strict=True):
            part.extend(more)

    def extract(self, idx: int) -> MixedKVCache:
        """Give a row as a cache of its own."""
        cache = MixedKVCache(self.kv_bits)
        cache.packed, cache.recent, cache.first = (part.extract(idx) for part in self.parts)
        return cache

    def _drop(self, columns: int) -> None:
        """Drop the first columns of the newest tokens, but hold on to the first tokens of all."""
        whole = (self.offset == self.recent.offset)[:, None, None, None]
        index = (self.recent.left_padding[:, None] + mx.arange(FIRST))[:, None, :, None]
        index = mx.minimum(index, self.recent.columns - 1)  # of a row that is shorter nothing is dropped
        begin = [mx.take_along_axis(array, index, axis=2) for array in self.recent.keys_and_values()]
        before = self.first.keys_and_values() if self.first.columns else begin
        self.recent.drop_first(columns)
        keys, values = (mx.where(whole, *pair) for pair in zip(begin, before, strict=True))
        self.first.replace(keys, values, mx.where(self.offset == self.recent.offset, FIRST, 0))

    def _rounded(self, tokens: int) -> int:
        """Give how many columns are seen rounded by any of so many tokens that are fed to each row."""
        starts, ends = self.packed.starts, self.packed.ends
        blocks = [_block_start(end - start + tokens - 1) for start, end in zip(starts, ends, strict=True)]
        return max(start + block if block else 0 for start, block in zip(starts, blocks, strict=True))


def drop_first(cache: KVCache, tokens: int) -> None:
    """Drop the first tokens of a row's cache, and all that is behind its last one."""
    keys, values = cache.keys_and_values()
    cache.keys, cache.values = (mx.contiguous(array[..., tokens:, :]) for array in (keys, values))
    cache.offset -= tokens


def _block_start(position: Any) -> Any:
    """Give where the block of a position, or of each of several, begins."""
    return position // BLOCK * BLOCK


def _positions(cache: RaggedKVCache, columns: int) -> mx.array:
    """Give which token of each row is in a column (rows, 1, columns), counted from 0; negative where none is."""
    return cast("mx.array", (mx.arange(columns) - cache.left_padding[:, None])[:, None])


cast("Any", cache_types).MixedKVCache = MixedKVCache  # mlx-lm reads caches of files by their names in its own module
