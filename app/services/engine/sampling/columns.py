"""Arrays with one number a row."""

from collections.abc import Sequence

import mlx.core as mx


def column(values: Sequence[float]) -> mx.array:
    """Make an array (rows, 1) of one number a row."""
    return mx.array([[value] for value in values], dtype=mx.float32)


def top(values: mx.array) -> mx.array:
    """Give the largest of each row (rows, 1)."""
    return mx.max(values, axis=-1, keepdims=True)
