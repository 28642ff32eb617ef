"""Small things that samplers compute of rows."""

from collections.abc import Sequence

import mlx.core as mx


def column(values: Sequence[float]) -> mx.array:
    """Give numbers, one a row, as an array (rows, 1)."""
    return mx.array([[value] for value in values], dtype=mx.float32)


def top(values: mx.array) -> mx.array:
    """Give the largest of each row (rows, 1)."""
    return mx.max(values, axis=-1, keepdims=True)
