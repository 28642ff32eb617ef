"""A model's KV cache, layer by layer: whether it can be trimmed, and its checkpoints, bytes and batches."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, Self

import mlx.core as mx
from mlx_lm.models import cache as cache_types
from mlx_lm.models.cache import (
    CacheList,
    ChunkedKVCache,
    KVCache,
    RotatingKVCache,
    make_prompt_cache,
    trim_prompt_cache,
)

from app.services.engine.cache.mixed_cache import BLOCK, MixedKVCache, drop_first
from app.services.engine.cache.ragged_cache import merge_layer
from app.services.facts import KVBits


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


Layers = list[LayerCache]
FORGETFUL = (RotatingKVCache, ChunkedKVCache)  # caches that hold no more than their last tokens
Checkpoints = dict[int, Layers]  # number of tokens to copies of those layers that cannot be trimmed to it later


def new_layers(model: Any, kv_bits: KVBits | None = None) -> Layers:
    """Make the empty cache of a row. With `kv_bits`, layers of full attention hold older tokens rounded to them."""
    layers: Layers = make_prompt_cache(model)
    return layers if kv_bits is None else [_rounding(layer, kv_bits) for layer in layers]


def _rounding(layer: Any, kv_bits: KVBits) -> Any:
    return MixedKVCache(kv_bits) if type(layer) is KVCache else layer


def leaves(layers: Iterable[LayerCache]) -> Iterator[Any]:
    """Yield the caches of layers, those within compound ones one by one."""
    for layer in layers:
        if isinstance(layer, CacheList):
            yield from leaves(layer.caches)
        else:
            yield layer


def is_trimmable(layer: LayerCache) -> bool:
    """Whether a layer's cache can be trimmed however many tokens it holds: a sliding window or a chunk forgets."""
    return bool(layer.is_trimmable()) and not any(isinstance(leaf, FORGETFUL) for leaf in leaves([layer]))


def is_exact(layer: LayerCache) -> bool:
    """Whether a layer's cache can be trimmed to any length, and is then what it was there: none of it is rounded."""
    return is_trimmable(layer) and not isinstance(layer, MixedKVCache)


def cut_step(layers: Layers) -> int:
    """Give what the lengths have to be multiples of, in tokens, to which layers can be cut once they are longer."""
    return BLOCK if any(isinstance(layer, MixedKVCache) for layer in layers) else 1


def can_trim(layers: Layers) -> bool:
    """Whether layers can be trimmed to any length now: none of them is recurrent or has forgotten a token yet."""
    return all(
        layer.is_trimmable() and not any(getattr(leaf, "start_position", 0) for leaf in leaves([layer]))
        for layer in layers
    )


def storable(layers: Layers) -> bool:
    """Whether mlx-lm can read layers from a file: it knows its own types alone, not those that a model defines."""
    return all(getattr(cache_types, type(leaf).__name__, None) is type(leaf) for leaf in leaves(layers))


def make_checkpoint(layers: Layers, can_trim: Callable[[LayerCache], bool] = is_trimmable) -> Layers:
    """Copy the layers that could not be trimmed to this length later. Their arrays are copied on write."""
    return [_compact(copy.deepcopy(layer)) for layer in layers if not can_trim(layer)]


def restore_checkpoint(layers: Layers, checkpoint: Layers, surplus: int) -> Layers:
    """Copy layers as they were `surplus` tokens before, when the checkpoint was made."""
    untrimmable = iter(copy.deepcopy(checkpoint))
    copies = [copy.deepcopy(layer) if is_trimmable(layer) else next(untrimmable) for layer in layers]
    for layer in copies:
        if is_trimmable(layer):
            layer.trim(surplus)
    return copies


def copy_layers(layers: Layers, surplus: int, checkpoint: Layers | None = None) -> Layers:
    """Copy layers without their last `surplus` tokens: from a checkpoint made there if they cannot be trimmed.

    Copy on write: no array is copied here.
    """
    if surplus and checkpoint is not None:
        return restore_checkpoint(layers, checkpoint, surplus)
    copies = copy.deepcopy(layers)
    if surplus:
        trim_prompt_cache(copies, surplus)
    return copies


def compact(layers: Layers) -> None:
    """Drop what trimmed layers still hold beyond their tokens: it may be much longer than they are."""
    for layer in leaves(layers):
        parts: tuple[Any, ...] = layer.parts if isinstance(layer, MixedKVCache) else (layer,)
        for part in parts:
            if type(part) is KVCache and not part.empty() and part.state[0].shape[2] >= part.offset + part.step:
                drop_first(part, 0)
    mx.eval([layer.state for layer in layers])


def nbytes(layers: Iterable[LayerCache]) -> int:
    """Bytes of some layers."""
    return sum(layer.nbytes for layer in layers)


def _compact(layer: LayerCache) -> LayerCache:
    """Drop what a sliding window or a chunk holds beyond its size after a long slice."""
    for leaf in leaves([layer]):
        if isinstance(leaf, ChunkedKVCache):
            leaf.maybe_trim_front()
        elif isinstance(leaf, RotatingKVCache) and leaf.keys is not None:
            keys, values, offset, keep, size, index = leaf.state
            if not keep and index == keys.shape[2] > size:
                keys, values = (mx.contiguous(array[..., -size:, :]) for array in (keys, values))
                leaf.state = (keys, values, offset, keep, size, size)
    return layer


def merge(caches: Sequence[Layers]) -> Layers:
    """Copy the caches of several rows into one batch cache."""
    return [merge_layer([cache[depth] for cache in caches]) for depth in range(len(caches[0]))]
