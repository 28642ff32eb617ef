"""From the hidden states of a text to one vector, as sentence-transformers does it."""

from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx

from app.services.sentence_files import Mode


def pool(hidden: mx.array, counted: mx.array, modes: Sequence[Mode]) -> mx.array:
    """Give a vector for each row of (rows, length, size), of the tokens that count (rows, length).

    Several ways are joined one after the other.
    """
    return mx.concatenate([_MODES[mode](hidden, counted) for mode in modes], axis=1)


def _weighted(hidden: mx.array, weights: mx.array) -> mx.array:
    pooled: mx.array = (weights[:, None].astype(hidden.dtype) @ hidden)[:, 0]
    return pooled


def _mean(hidden: mx.array, counted: mx.array) -> mx.array:
    return _weighted(hidden, counted / mx.maximum(counted.sum(axis=1, keepdims=True), 1))


def _mean_sqrt(hidden: mx.array, counted: mx.array) -> mx.array:
    return _weighted(hidden, counted / mx.maximum(counted.sum(axis=1, keepdims=True), 1) ** 0.5)


def _weighted_mean(hidden: mx.array, counted: mx.array) -> mx.array:
    weights = counted * mx.arange(1, counted.shape[1] + 1)[None]
    return _weighted(hidden, weights / mx.maximum(weights.sum(axis=1, keepdims=True), 1))


def _max(hidden: mx.array, counted: mx.array) -> mx.array:
    return mx.where(counted[:, :, None] > 0, hidden, mx.finfo(hidden.dtype).min).max(axis=1)


def _first(hidden: mx.array, counted: mx.array) -> mx.array:
    return hidden[:, 0]


def _last(hidden: mx.array, counted: mx.array) -> mx.array:
    position = mx.arange(counted.shape[1])[None]
    last = mx.argmax(mx.where(counted > 0, position, -1), axis=1)
    return mx.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]


_MODES: Mapping[Mode, Callable[[mx.array, mx.array], mx.array]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "last": _last,
}
