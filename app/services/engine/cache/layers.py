"""The caches of a model's layers: what they hold, whether they can be cut, merged and marked."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import CacheList, RotatingKVCache

Layers = list[Any]  # one mlx-lm cache a layer, of a single row
Checkpoints = dict[int, Layers]  # number of tokens to what the layers held then that cannot be cut to it later


def leaves(layers: Iterable[Any]) -> Iterator[Any]:
    """Give the caches of layers, those of compound layers one by one."""
    for layer in layers:
        if isinstance(layer, CacheList):
            yield from leaves(layer.caches)
        else:
            yield layer


def cuts(layer: Any) -> bool:
    """Whether a layer's cache can be cut to fewer tokens however many it holds: a sliding window forgets."""
    return bool(layer.is_trimmable()) and not any(isinstance(leaf, RotatingKVCache) for leaf in leaves([layer]))


def mark(layers: Layers) -> Layers:
    """Copy what could not be cut back to this length later; arrays are copied when somebody writes to them."""
    return [_compact(copy.deepcopy(layer)) for layer in layers if not cuts(layer)]


def at_mark(layers: Layers, marked: Layers, surplus: int) -> Layers:
    """Give layers as they were `surplus` tokens before, with the help of what was marked then."""
    left = iter(copy.deepcopy(marked))
    then = [copy.deepcopy(layer) if cuts(layer) else next(left) for layer in layers]
    for layer in then:
        if cuts(layer):
            layer.trim(surplus)
    return then


def nbytes(layers: Iterable[Any]) -> int:
    """Bytes of some layers."""
    return sum(layer.nbytes for layer in layers)


def _compact(layer: Any) -> Any:
    """Drop what a sliding window holds beyond its size after a long slice."""
    for leaf in leaves([layer]):
        if isinstance(leaf, RotatingKVCache) and leaf.keys is not None:
            keys, values, offset, keep, size, index = leaf.state
            if not keep and index == keys.shape[2] > size:
                keys, values = (mx.contiguous(array[..., -size:, :]) for array in (keys, values))
                leaf.state = (keys, values, offset, keep, size, size)
    return layer


def merge(caches: Sequence[Layers]) -> Layers:
    """Copy the caches of several rows into one batch cache."""
    return [type(layer).merge([cache[depth] for cache in caches]) for depth, layer in enumerate(caches[0])]


def batchable(layers: Iterable[Any]) -> bool:
    """Whether mlx-lm can batch rows with these caches."""
    return all(hasattr(layer, "merge") for layer in layers)
