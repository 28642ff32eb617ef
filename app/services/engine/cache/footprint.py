"""Memory that the KV cache of a row takes, measured on the model that is loaded."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.cache.layers import leaves

_STEP = 256  # tokens by which mlx-lm's caches grow


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a row's cache: a fixed part, and layers that grow with each token, without end or up to a window."""

    fixed: int  # bytes
    growing: Mapping[int | None, int]  # bytes a token, by the window in tokens; None is no window

    @property
    def token_bytes(self) -> int:
        """Bytes that a token takes while nothing has reached its window."""
        return sum(self.growing.values())

    def __add__(self, other: "Footprint") -> "Footprint":
        return Footprint(self.fixed + other.fixed, Counter(self.growing) + Counter(other.growing))

    def bytes(self, tokens: int) -> int:
        """Bytes of a row of so many tokens, with what mlx-lm allocates ahead."""
        return self.fixed + sum(each * (min(tokens, window or tokens) + _STEP) for window, each in self.growing.items())


def measure(model: Any) -> Footprint:
    """Compute one token and measure the cache that it leaves."""
    layers = make_prompt_cache(model)
    model(mx.array([[0]]), cache=layers)
    fixed, growing = 0, Counter[int | None]()
    for layer in leaves(layers):
        keys = getattr(layer, "keys", None)
        if keys is None:
            fixed += layer.nbytes
        else:
            growing[getattr(layer, "max_size", None)] += layer.nbytes // keys.shape[2]
    return Footprint(fixed, dict(growing))
