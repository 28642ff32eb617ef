"""Prefill of images: computes the KV cache of their places in a prompt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from app.services.engine.cache.layers import FORGETFUL, Layers
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.prefill import forward
from app.services.engine.vision.family import Mutual


def forward_image(
    model: LanguageModel, layers: Layers, token: int, embeddings: mx.array, mutual: Mutual | None
) -> None:
    """Compute embeddings (tokens, hidden size) of one image into a row's cache; `token` stands in their places.

    If there are more of each token, (tokens, 1 + layers, hidden size), these are added to what the first layers give.
    Each sees those before it, and the others where they are mutual.
    """
    first, *deep = (
        (embeddings[:, index] for index in range(embeddings.shape[1])) if embeddings.ndim == 3 else [embeddings]
    )
    with _mutual(layers, mutual), _deepstack(model.network, deep):
        forward(model, layers, [token] * len(embeddings), input_embeddings=first[None])


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
def _mutual(layers: Layers, mutual: Mutual | None) -> Iterator[None]:
    """Have the tokens that are computed now see each other."""
    caches: list[Any] = list(layers.caches)
    for layer in caches:
        if mutual == "everywhere" or (mutual == "windows" and isinstance(layer, FORGETFUL)):
            layer.make_mask = _mutual_mask(layer.make_mask, mutual)
    try:
        yield
    finally:
        for layer in caches:
            vars(layer).pop("make_mask", None)


def _mutual_mask(make_mask: Any, mutual: Mutual) -> Any:
    def mask(size: int, *, window_size: int | None = None, return_array: bool = False) -> Any:
        if size == 1:
            return make_mask(size, window_size=window_size, return_array=return_array)
        own = make_mask(size, window_size=window_size, return_array=True)  # (size, length)
        index = mx.arange(own.shape[-1]) - (own.shape[-1] - size)  # below 0 for what was computed before
        # Those before a token are within its window or not; those behind it always are.
        return own | (index >= 0 if mutual == "everywhere" else index > mx.arange(size)[:, None])

    return mask
