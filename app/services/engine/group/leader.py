"""The side that decides: it does to its part of layers what it would to all, and has workers do the same."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary, finalize

import mlx.core as mx

from app.services.engine.cache import layers as cache
from app.services.engine.cache.layers import Layers
from app.services.engine.group.messages import Operation
from app.services.engine.model.language_model import Body, LanguageModel
from app.services.facts import KVBits


class Leader:
    """Names layers by numbers, and notes what is done to them until the model is called. On the engine thread."""

    def __init__(self, send: Callable[[list[Operation]], None]) -> None:
        self._send = send
        self._numbers: WeakKeyDictionary[Layers, int] = WeakKeyDictionary()
        self._count = 0
        self._operations: list[Operation] = []
        self._dropped: deque[int] = deque()  # whoever holds layers last may be another thread

    def record(self, name: str, arguments: Sequence[Any], result: Any = None) -> None:
        """Note an operation: workers hear of it before the next call of the model."""
        layers = [self._numbers[one] for one in arguments if isinstance(one, Layers)]
        values = [one for one in arguments if not isinstance(one, Layers)]
        number = self._name(result) if isinstance(result, Layers) else 0
        self._operations.append(Operation(name, layers, values, number))

    def call(self, name: str, layers: Layers, *values: Any) -> None:
        """Have workers call the model, after all that was noted."""
        self.record(name, (layers, *values))
        self.flush()

    def flush(self) -> None:
        """Tell workers all that was noted."""
        dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
        operations, self._operations = self._operations, []
        self._send([*operations, Operation("drop", dropped, [])] if dropped else operations)

    def _name(self, layers: Layers) -> int:
        self._count += 1
        self._numbers[layers] = self._count
        finalize(layers, self._dropped.append, self._count).atexit = False
        return self._count


class LedModel(LanguageModel):
    """A part of a model, whose other parts are at workers.

    Both sides compute all that a call gives: a collective that only one side evaluates gives wrong numbers without an
    error. For the same reason nothing may be called any more once something has failed, whatever and wherever it was.
    """

    can_retry = False

    def __init__(self, network: Any, leader: Leader) -> None:
        super().__init__(network)
        self._leader = leader

    @property
    def body(self) -> Body | None:
        """None: nothing but whole calls is told to workers."""
        return None

    def new_layers(self, kv_bits: KVBits | None = None) -> Layers:
        """Make the empty cache of a row, here and there."""
        layers = cache.new_layers(self.network, kv_bits, self._leader)
        self._leader.record("new", (), layers)
        return layers

    def fill(self, layers: Layers, tokens: list[list[int]], padding: Sequence[int] = (), **inputs: Any) -> None:
        """Compute tokens (rows, length) into their cache, each row padded on the right by so many: no logits."""
        assert not inputs, "only tokens are told to workers"
        self._leader.call("fill", layers, tokens, list(padding))
        super().fill(layers, tokens, padding)

    def step(self, layers: Layers, tokens: mx.array) -> mx.array:
        """Begin to compute tokens (rows, length) into their cache. Returns their logits (rows, length, vocabulary).

        The tokens go with the message, so they are waited for; what they mean is seen to while this is computed.
        """
        fed = tokens.tolist()
        self._leader.call("step", layers, fed)
        logits = super().step(layers, mx.array(fed))
        mx.async_eval(logits, states(layers))
        return logits


def states(layers: Layers) -> list[Any]:
    """Give all arrays of layers; with the logits they are what a step gives, on each side."""
    return [cache.state for cache in layers.caches]
