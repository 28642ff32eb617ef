"""Logits of some positions alone: with a large vocabulary those of all others would take most of the time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.cache.layers import Layers
from app.services.engine.model.blas import threads
from app.services.engine.model.language_model import LanguageModel

Body = Callable[..., mx.array]  # tokens (rows, length) and a cache to hidden states (rows, length, size)

_BODIES = ("model", "transformer", "backbone")  # what mlx-lm's models call all of themselves but the head
_CLOSE = 0.05  # of the largest logit: how much two ways to compute one may differ, in 8 bits of a bfloat16 too


def find_body(model: Any) -> Body | None:
    """Find the part of a model that gives hidden states, if it has one."""
    owner = getattr(model, "language_model", model)
    return next((getattr(owner, name) for name in _BODIES if hasattr(owner, name)), None)


class SelectedLogits:
    """Computes tokens into caches, and gives the logits of the positions that are wanted.

    The hidden states of all others are left out between a model's body and its head. Whether that can be done with a
    model is tried once; of others all logits are computed. On the engine thread.
    """

    def __init__(self, model: Any) -> None:
        self.model: LanguageModel = model
        self._body = find_body(model)
        self._works: bool | None = None  # not tried yet

    @property
    def computes_all(self) -> bool:
        """Whether all logits are computed, however few are wanted."""
        if self._works is None:
            self._works = self._body is not None and self._try()
        return not self._works

    def forward(self, layers: Layers, tokens: list[Any], positions: list[int], *, is_last: bool = False) -> mx.array:
        """Compute tokens (rows, length) into their cache, unless they are the last that is computed with it.

        Gives the logits (positions, vocabulary) at these positions, which are counted through all rows.
        """
        with threads.all():
            logits = self._select(layers, mx.array(tokens), mx.array(positions))
            mx.eval(logits, [] if is_last else [layer.state for layer in layers])
        return logits

    def _select(self, layers: Layers, tokens: mx.array, positions: mx.array) -> mx.array:
        if self.computes_all:
            return _flat(self.model(tokens, cache=layers))[positions]
        with _selecting(self._body, positions):
            return _flat(self.model(tokens, cache=layers))

    def _try(self) -> bool:
        """Try it with a few tokens."""
        tokens, positions = mx.array([[0, 1, 2, 3], [3, 2, 1, 0]]), mx.array([2, 5])
        whole = _flat(self.model(tokens, cache=make_prompt_cache(self.model)))[positions]
        try:
            with _selecting(self._body, positions):
                some = _flat(self.model(tokens, cache=make_prompt_cache(self.model)))
        except Exception:  # somebody else's model, which is built in another way
            return False
        if some.shape != whole.shape:
            return False
        return bool(mx.abs(some - whole).max() <= _CLOSE * mx.abs(whole).max())


@contextmanager
def _selecting(body: Any, positions: mx.array) -> Iterator[None]:
    """Have a body give the hidden states (1, positions, size) of these positions alone."""
    kind: Any = type(body)

    class Selecting(kind):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
            return _flat(kind.__call__(self, *args, **kwargs))[positions][None]

    object.__setattr__(body, "__class__", Selecting)  # it stays what it is to the model, with all of its layers
    try:
        yield
    finally:
        object.__setattr__(body, "__class__", kind)


def _flat(array: mx.array) -> mx.array:
    """Count positions through all rows: (rows, length, size) to (rows * length, size)."""
    return array.reshape(-1, array.shape[-1])
