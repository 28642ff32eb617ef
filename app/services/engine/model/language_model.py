"""A model that mlx-lm has loaded, and all that is ever computed with it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from app.services.engine.cache import layers as cache
from app.services.engine.cache.layers import Layers
from app.services.facts import KVBits

Body = Callable[..., mx.array]  # tokens (rows, length) and a cache to hidden states (rows, length, size)

_BODIES = ("model", "transformer", "backbone")  # what mlx-lm's models call all of themselves but the head


class LanguageModel:
    """A model of mlx-lm's. Nothing else in the engine calls one, but to learn shapes, for which nothing is computed.

    Each kind of call is always evaluated in the same way, so that what a call computes is known from the call alone.
    """

    can_retry = True  # whether another call may follow one that has failed, as when memory ran out

    def __init__(self, network: Any) -> None:
        self.network = network  # mlx-lm's

    @property
    def body(self) -> Body | None:
        """The part of it that gives hidden states, if it has one."""
        owner = getattr(self.network, "language_model", self.network)
        return next((getattr(owner, name) for name in _BODIES if hasattr(owner, name)), None)

    def new_layers(self, kv_bits: KVBits | None = None) -> Layers:
        """Make the empty cache of a row."""
        return cache.new_layers(self.network, kv_bits)

    def fill(self, layers: Layers, tokens: list[list[int]], padding: Sequence[int] = (), **inputs: Any) -> None:
        """Compute tokens (rows, length) into their cache, each row padded on the right by so many: no logits.

        `inputs` are what else the model takes.
        """
        if any(padding):
            lengths = [len(row) - count for row, count in zip(tokens, padding, strict=True)]
            for layer in layers.caches:
                layer.prepare(lengths=lengths, right_padding=list(padding))
        self.network(mx.array(tokens), cache=layers.caches, **inputs)
        if any(padding):
            for layer in layers.caches:
                layer.finalize()
        mx.eval([layer.state for layer in layers.caches])

    def step(self, layers: Layers, tokens: mx.array) -> mx.array:
        """Compute tokens (rows, length) into their cache. Returns their logits (rows, length, vocabulary), lazily."""
        logits: mx.array = self.network(tokens, cache=layers.caches)
        return logits

    def select(self, layers: Layers, tokens: mx.array, positions: mx.array) -> mx.array:
        """Give the logits (positions, vocabulary) of these positions alone, which are counted through all rows."""
        with _selecting(self.body, positions):
            return flat(self.step(layers, tokens))

    def hidden(self, layers: Layers, tokens: mx.array) -> mx.array:
        """Compute tokens (rows, length) into their cache. Returns the last hidden states (rows, length, size)."""
        assert self.body is not None
        return self.body(tokens, cache=layers.caches)


@contextmanager
def _selecting(body: Any, positions: mx.array) -> Iterator[None]:
    """Have a body give the hidden states (1, positions, size) of these positions alone."""
    kind: Any = type(body)

    class Selecting(kind):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
            return flat(kind.__call__(self, *args, **kwargs))[positions][None]

    object.__setattr__(body, "__class__", Selecting)  # it stays what it is to the model, with all of its layers
    try:
        yield
    finally:
        object.__setattr__(body, "__class__", kind)


def flat(array: mx.array) -> mx.array:
    """Count positions through all rows: (rows, length, size) to (rows * length, size)."""
    return array.reshape(-1, array.shape[-1])
