"""Memory that the KV cache of a row takes, measured on the model that is loaded."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, KVCache

from app.services.engine.cache.layers import leaves, new_layers
from app.services.engine.cache.packed import group_size
from app.services.facts import KVBits

_STEP = 256  # tokens by which mlx-lm's caches grow
_LONG = 2048  # tokens; windows are full by then
_LAYERS_AT_ONCE = 2  # one is computed while the arrays of the one before are given back


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a row's cache: a fixed part, and layers that grow with each token, without end or up to a window."""

    fixed: int  # bytes
    growing: Mapping[int | None, int]  # bytes a token, by the window in tokens; None is no window
    largest: int = 0  # bytes a token, of the largest layer without a window

    @property
    def token_bytes(self) -> int:
        """Bytes that a token takes while nothing has reached its window."""
        return sum(self.growing.values())

    def __add__(self, other: "Footprint") -> "Footprint":
        growing = Counter(self.growing) + Counter(other.growing)
        return Footprint(self.fixed + other.fixed, growing, max(self.largest, other.largest))

    def bytes(self, tokens: int) -> int:
        """Bytes of a row of so many tokens, with what mlx-lm allocates ahead."""
        return self.fixed + sum(each * (min(tokens, window or tokens) + _STEP) for window, each in self.growing.items())

    def forked_bytes(self, tokens: int, rows: int) -> int:
        """Bytes that rows take for one call that go on from a row of so many tokens, beside that one.

        Windows and states are copied for each row, layers without a window one after the other.
        """
        if rows == 1:
            return 0
        windows = sum(each * (min(tokens, window) + _STEP) for window, each in self.growing.items() if window)
        return rows * (self.fixed + windows + _LAYERS_AT_ONCE * self.largest * (tokens + _STEP))


def measure(model: Any, kv_bits: KVBits | None = None) -> Footprint:
    """Compute one token and measure the cache that it leaves."""
    fixed, largest, growing = 0, 0, Counter[int | None]()
    for index, layer in enumerate(_cached(model, kv_bits, 1)):
        keys = getattr(layer, "keys", None)
        if keys is not None:
            window = getattr(layer, "max_size", None) or getattr(layer, "chunk_size", None)
            each = layer.nbytes // keys.shape[2]
            growing[window] += each
            largest = max(largest, 0 if window else each)
        elif isinstance(layer, ArraysCache | KVCache):  # a state, or a layer that the model leaves out
            fixed += layer.nbytes
        else:
            once, each = _grow(model, kv_bits, index)
            fixed += once
            growing[None] += each
            largest = max(largest, each)
    if kv_bits is not None:
        growing[None] += _unpacked(model)
        largest = -(-growing[None] // _LAYERS_AT_ONCE)  # rows that go on from one are copies of it
    return Footprint(fixed, dict(growing), largest)


def why_not_rounded(model: Any) -> str | None:
    """Say why no layer's older tokens can be rounded to `kv_bits`, None if those of some can."""
    pairs = _full_attention(model)
    if not pairs:
        return "no layer of it has a plain cache of full attention"
    odd = sorted({array.shape[-1] for pair in pairs for array in pair if group_size(array.shape[-1]) is None})
    return f"its keys or values have {odd[0]} numbers, which is no multiple of 32" if odd else None


def _unpacked(model: Any) -> int:
    """Give the bytes a token of the largest layer whose older tokens are rounded, while they are unpacked."""
    return max((sum(array.nbytes // array.shape[2] for array in pair) for pair in _full_attention(model)), default=0)


def _full_attention(model: Any) -> list[tuple[mx.array, mx.array]]:
    """Give the keys and values (1, heads, capacity, size) that a token leaves in caches whose tokens can be rounded."""
    layers: list[Any] = new_layers(model).caches
    model(mx.zeros((1, 1), dtype=mx.uint32), cache=layers)
    return [layer.state[:2] for layer in layers if type(layer) is KVCache and not layer.empty()]


def _grow(model: Any, kv_bits: KVBits | None, index: int) -> tuple[int, int]:
    """Give the fixed bytes and those a token of a cache of the model's own, by two long prompts."""
    short, long = (_cached(model, kv_bits, tokens)[index].nbytes for tokens in (_LONG, 2 * _LONG))
    each = -((short - long) // _LONG)  # rounded up
    return max(0, short - each * _LONG), each


def _cached(model: Any, kv_bits: KVBits | None, tokens: int) -> list[Any]:
    """Give the caches that so many tokens leave; the shapes are known before anything is computed."""
    caches = new_layers(model, kv_bits).caches
    model(mx.zeros((1, tokens), dtype=mx.uint32), cache=caches)
    return list(leaves(caches))
