"""Prefill of images: computes the KV cache of their places in a prompt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from app.services.engine.cache.layers import Layers
from app.services.engine.model.blas import threads
from app.services.engine.model.prefill import SHORT


def forward_image(model: Any, layers: Layers, token: int, embeddings: mx.array, *, is_mutual: bool) -> None:
    """Compute embeddings (tokens, hidden size) of one image into a row's cache; `token` stands in their places.

    If there are more of each token, (tokens, 1 + layers, hidden size), these are added to what the first layers give.
    If `is_mutual`, each token sees all the others, else those before it.
    """
    tokens = mx.full((1, len(embeddings)), token, dtype=mx.int32)
    first, *deep = (
        (embeddings[:, index] for index in range(embeddings.shape[1])) if embeddings.ndim == 3 else [embeddings]
    )
    with threads.all(), _mutual(layers, is_mutual), _deepstack(model, deep):
        model(tokens, cache=layers, input_embeddings=first[None])
        mx.eval([layer.state for layer in layers])
    if len(embeddings) > SHORT:
        mx.clear_cache()


@contextmanager
def _deepstack(model: Any, deep: Sequence[mx.array]) -> Iterator[None]:
    """Have each of the first layers add embeddings (tokens, hidden size) of its own to what it gives."""
    layers = model.layers if deep else []  # the list that the model itself goes through
    plain = layers[: len(deep)]
    layers[: len(deep)] = [_adding(layer, embeddings) for layer, embeddings in zip(plain, deep, strict=True)]
    try:
        yield
    finally:
        layers[: len(deep)] = plain


def _adding(layer: Any, embeddings: mx.array) -> Any:
    return lambda *arguments, **named: layer(*arguments, **named) + embeddings


@contextmanager
def _mutual(layers: Layers, is_mutual: bool) -> Iterator[None]:
    """Have the tokens that are computed now see each other, in every layer: also beyond its window."""
    caches: list[Any] = list(layers)
    for layer in caches if is_mutual else ():
        layer.make_mask = _whole_mask(layer.make_mask)
    try:
        yield
    finally:
        for layer in caches:
            vars(layer).pop("make_mask", None)


def _whole_mask(make_mask: Any) -> Any:
    def mask(size: int, *, window_size: int | None = None, return_array: bool = False) -> Any:
        if size == 1:
            return make_mask(size, window_size=window_size, return_array=return_array)
        own = make_mask(size, window_size=window_size, return_array=True)  # (size, length)
        is_new = mx.arange(own.shape[-1]) >= own.shape[-1] - size
        return own | is_new

    return mask
