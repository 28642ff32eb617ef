"""A model's KV cache, layer by layer: what can be asked of it, and all that is ever done to it."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast

import mlx.core as mx
from mlx_lm.models import cache as cache_types
from mlx_lm.models.cache import ArraysCache, CacheList, ChunkedKVCache, KVCache, RotatingKVCache, make_prompt_cache

from app.services.engine.cache.forked_cache import fork_caches
from app.services.engine.cache.long_past import lengthen
from app.services.engine.cache.mixed_cache import BLOCK, MixedBatchKVCache, MixedKVCache, drop_first
from app.services.engine.cache.ragged_cache import RaggedKVCache, merge_layer
from app.services.facts import KVBits

P = ParamSpec("P")
R = TypeVar("R")

FORGETFUL = (RotatingKVCache, ChunkedKVCache)  # caches that hold no more than their last tokens


class LayerCache(Protocol):
    """What the engine uses of mlx-lm's caches, each of which holds the keys and values, or the state, of one layer.

    The methods from `prepare` on are those of a batch cache, which `merge` makes of the caches of single rows.
    """

    state: Any  # arrays

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""

    def is_trimmable(self) -> bool:
        """Whether it can be trimmed now; a sliding window can until it has moved."""

    def trim(self, n: int) -> int:
        """Drop the last `n` tokens. Returns how many were dropped."""

    @classmethod
    def merge(cls, caches: Sequence[Self]) -> "LayerCache":
        """Copy the caches of single rows into one batch cache."""

    def prepare(self, *, lengths: list[int], right_padding: list[int]) -> None:
        """Expect rows of these lengths, padded on the right by so many tokens."""

    def finalize(self) -> None:
        """Move the padding to the left."""

    def extend(self, other: "LayerCache") -> None:
        """Append the rows of another batch cache."""

    def filter(self, batch_indices: list[int]) -> None:
        """Keep these rows alone."""

    def extract(self, idx: int) -> "LayerCache":
        """Give a row as a cache of its own."""


class Recorder(Protocol):
    """Notes operations, so that others can do the same to layers of theirs."""

    def record(self, name: str, arguments: Sequence[Any], result: Any) -> None:
        """Note an operation that was done to the first of the arguments, and what it gave."""


OPERATIONS: dict[str, Callable[..., Any]] = {}  # of layers, by name, without the recording


def operation(method: "Callable[Concatenate[Layers, P], R]") -> "Callable[Concatenate[Layers, P], R]":
    """Have what a method of layers does be recorded.

    Its arguments are layers first, then numbers and lists of them. It calls no other operation.
    """
    OPERATIONS[method.__name__] = method

    @wraps(method)
    def recorded(self: "Layers", *args: P.args, **kwargs: P.kwargs) -> R:
        result = method(self, *args, **kwargs)
        if self.recorder is not None:
            self.recorder.record(method.__name__, (self, *args, *kwargs.values()), result)
        return result

    return cast("Callable[Concatenate[Layers, P], R]", recorded)


class Layers:
    """The KV cache of one row, or of the rows of a batch; of a checkpoint, those layers that need one.

    All that is done to it is one of its operations, or a call of the model (`LanguageModel`).
    """

    def __init__(self, caches: list[LayerCache], recorder: Recorder | None = None) -> None:
        self.caches = caches
        self.recorder = recorder

    @property
    def nbytes(self) -> int:
        """Bytes of all layers."""
        return sum(cache.nbytes for cache in self.caches)

    @property
    def is_trimmable(self) -> bool:
        """Whether it can be trimmed however many tokens it holds."""
        return all(map(is_trimmable, self.caches))

    @property
    def is_exact(self) -> bool:
        """Whether it can be trimmed to any length, and is then what it was there."""
        return all(map(is_exact, self.caches))

    @property
    def can_trim(self) -> bool:
        """Whether it can be trimmed to any length now: no layer is recurrent or has forgotten a token yet."""
        return all(
            cache.is_trimmable() and not any(getattr(leaf, "start_position", 0) for leaf in leaves([cache]))
            for cache in self.caches
        )

    @property
    def cut_step(self) -> int:
        """What the lengths have to be multiples of, in tokens, to which it can be cut once it is longer."""
        return BLOCK if any(isinstance(cache, MixedKVCache) for cache in self.caches) else 1

    @property
    def can_trim_rows(self) -> bool:
        """Whether the rows of a batch can be trimmed one by one."""
        return all(isinstance(cache, RaggedKVCache | MixedBatchKVCache) for cache in self.caches)

    @property
    def columns(self) -> tuple[int, int]:
        """Columns of a batch whose rows can be trimmed, each of which is read in each step; and its longest row's."""
        cache = cast("RaggedKVCache | MixedBatchKVCache", self.caches[0])
        return cache.columns, max(cache.lengths)

    @operation
    def evaluate(self) -> None:
        """Compute what is not computed yet: lazily, the copy of a row keeps its whole batch in memory."""
        mx.eval([cache.state for cache in self.caches])

    @operation
    def trim(self, tokens: int) -> None:
        """Drop so many of the last tokens, of all rows."""
        for cache in self.caches:
            cache.trim(tokens)

    @operation
    def trim_rows(self, tokens: list[int]) -> None:
        """Drop so many of the last tokens of each row of a batch."""
        for cache in cast("list[RaggedKVCache | MixedBatchKVCache]", self.caches):
            cache.trim_rows(tokens)

    @operation
    def copy(self) -> "Layers":
        """Copy it. No array is copied before it is written."""
        return Layers(copy.deepcopy(self.caches), self.recorder)

    @operation
    def checkpoint(self, exact: bool = False) -> "Layers":
        """Copy the layers that could not be trimmed to this length later, or not `exact`ly to what they are now."""
        can_trim = is_exact if exact else is_trimmable
        return Layers([_compact(copy.deepcopy(one)) for one in self.caches if not can_trim(one)], self.recorder)

    @operation
    def go_back(self, checkpoint: "Layers", tokens: int, exact: bool = False) -> None:
        """Be as it was so many tokens before, when the checkpoint was made."""
        can_trim = is_exact if exact else is_trimmable
        untrimmable = iter(copy.deepcopy(checkpoint.caches))
        for depth, cache in enumerate(self.caches):
            if can_trim(cache):
                cache.trim(tokens)
            else:
                self.caches[depth] = next(untrimmable)

    @operation
    def compact(self) -> None:
        """Drop what trimmed layers still hold beyond their tokens: it may be much longer than they are."""
        for leaf in leaves(self.caches):
            parts: tuple[Any, ...] = leaf.parts if isinstance(leaf, MixedKVCache) else (leaf,)
            for part in parts:
                if type(part) is KVCache and not part.empty() and part.state[0].shape[2] >= part.offset + part.step:
                    drop_first(part, 0)
        mx.eval([cache.state for cache in self.caches])

    @operation
    def merge(self, *others: "Layers") -> "Layers":
        """Copy this row and others into one batch."""
        rows = (self, *others)
        depths = range(len(self.caches))
        return Layers([merge_layer([row.caches[depth] for row in rows]) for depth in depths], self.recorder)

    @operation
    def extend(self, other: "Layers") -> None:
        """Append the rows of another batch to those of this one."""
        for cache, more in zip(self.caches, other.caches, strict=True):
            cache.extend(more)

    @operation
    def filter(self, rows: list[int]) -> None:
        """Keep these rows of a batch alone."""
        for cache in self.caches:
            cache.filter(rows)

    @operation
    def extract(self, row: int) -> "Layers":
        """Copy a row of a batch."""
        caches = [cache.extract(row) for cache in self.caches]
        for leaf in leaves(caches):
            if isinstance(leaf, ArraysCache):  # a view, which would keep the whole batch alive
                leaf.cache = [array if array is None else mx.contiguous(array) for array in leaf.cache]
        mx.eval([cache.state for cache in caches])  # lazily, they would too
        return Layers(caches, self.recorder)

    @operation
    def fork(self, rows: int) -> "Layers":
        """Give rows for one call that go on from this one, which stays as it is."""
        return Layers(fork_caches(self.caches, rows), self.recorder)

    @operation
    def lengthen(self, tokens: int) -> None:
        """Put a past that is made up before what it holds, so that this is the last of so many tokens: for checks."""
        lengthen(list(leaves(self.caches)), tokens)


Checkpoints = dict[int, Layers]  # number of tokens to copies of those layers that cannot be trimmed to it later


def new_layers(model: Any, kv_bits: KVBits | None = None, recorder: Recorder | None = None) -> Layers:
    """Make the empty cache of a row. With `kv_bits`, layers of full attention hold older tokens rounded to them."""
    caches: list[LayerCache] = make_prompt_cache(model)
    return Layers(caches if kv_bits is None else [_rounding(cache, kv_bits) for cache in caches], recorder)


def _rounding(layer: Any, kv_bits: KVBits) -> Any:
    return MixedKVCache(kv_bits) if type(layer) is KVCache else layer


def leaves(caches: Iterable[LayerCache]) -> Iterator[Any]:
    """Yield the caches of layers, those within compound ones one by one."""
    for cache in caches:
        if isinstance(cache, CacheList):
            yield from leaves(cache.caches)
        else:
            yield cache


def is_trimmable(cache: LayerCache) -> bool:
    """Whether a layer's cache can be trimmed however many tokens it holds: a sliding window or a chunk forgets."""
    return bool(cache.is_trimmable()) and not any(isinstance(leaf, FORGETFUL) for leaf in leaves([cache]))


def is_exact(cache: LayerCache) -> bool:
    """Whether a layer's cache can be trimmed to any length, and is then what it was there: none of it is rounded."""
    return is_trimmable(cache) and not isinstance(cache, MixedKVCache)


def storable(layers: Layers) -> bool:
    """Whether mlx-lm can read layers from a file: it knows its own types alone, not those that a model defines."""
    return all(getattr(cache_types, type(leaf).__name__, None) is type(leaf) for leaf in leaves(layers.caches))


def copy_layers(layers: Layers, surplus: int, checkpoint: Layers | None = None) -> Layers:
    """Copy layers without their last `surplus` tokens: from a checkpoint made there if they cannot be trimmed.

    Copy on write: no array is copied here.
    """
    copied = layers.copy()
    if surplus and checkpoint is not None:
        copied.go_back(checkpoint, surplus)
    elif surplus:
        copied.trim(surplus)
    return copied


def merge(rows: Sequence[Layers]) -> Layers:
    """Copy rows into one batch."""
    first, *others = rows
    return first.merge(*others)


def _compact(cache: LayerCache) -> LayerCache:
    """Drop what a sliding window or a chunk holds beyond its size after a long slice."""
    for leaf in leaves([cache]):
        if isinstance(leaf, ChunkedKVCache):
            leaf.maybe_trim_front()
        elif isinstance(leaf, RotatingKVCache) and leaf.keys is not None:
            keys, values, offset, keep, size, index = leaf.state
            if not keep and index == keys.shape[2] > size:
                keys, values = (mx.contiguous(array[..., -size:, :]) for array in (keys, values))
                leaf.state = (keys, values, offset, keep, size, size)
    return cache
