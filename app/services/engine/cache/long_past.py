"""Caches with a past that is made up: to compute a long one for a check would take long."""

from collections.abc import Iterable, Iterator
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache


def lengthen(leaves: Iterable[Any], length: int) -> None:
    """Put random keys and values before those of a row's caches, so that these are the last of `length` tokens."""
    for leaf in keyed(leaves):
        leaf.keys, leaf.values = (_lengthen_array(array, leaf, length) for array in (leaf.keys, leaf.values))
        leaf.offset = length
        if isinstance(leaf, RotatingKVCache):
            leaf._idx = leaf.keys.shape[2]


def keyed(leaves: Iterable[Any]) -> Iterator[Any]:
    """Yield the caches that hold keys and values by token."""
    return (leaf for leaf in leaves if isinstance(leaf, KVCache | RotatingKVCache) and leaf.keys is not None)


def _lengthen_array(array: mx.array, leaf: Any, length: int) -> mx.array:
    """Lengthen keys or values (1, heads, tokens, size) to what a layer has of `length` tokens."""
    computed = array[:, :, : leaf.offset]
    most = min(length, getattr(leaf, "max_size", length))
    shape = (1, 1, most, array.shape[3])
    noise = mx.random.normal(shape, key=mx.random.key(most)).astype(array.dtype)
    past = mx.broadcast_to(noise, (1, array.shape[1], *shape[2:])) * mx.sqrt(mx.mean(computed * computed))
    return mx.concatenate([past, computed], axis=2)[:, :, -most:]
