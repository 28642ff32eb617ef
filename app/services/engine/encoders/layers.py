"""What the layers of all encoders are made of: attention that sees both ways, and activations."""

from collections.abc import Callable
from typing import Any, Protocol

import mlx.core as mx
from mlx.nn.layers.activations import gelu, gelu_approx, relu, silu

ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": gelu,
    "gelu_new": gelu_approx,
    "gelu_pytorch_tanh": gelu_approx,
    "relu": relu,
    "silu": silu,
    "swish": silu,
    "tanh": mx.tanh,
}
_MOST_SCORES = 2**26  # of attention that are in memory at once, where MLX keeps them all

Masks = dict[str, mx.array]  # added to the scores, by the kind of layer: (rows or 1, heads or 1, length or 1, length)


class Encoder(Protocol):
    """The body of an encoder."""

    layers: list[Any]  # each takes the hidden states (rows, length, size) and the masks, and gives hidden states

    def masks(self, is_text: mx.array) -> Masks:
        """Give the masks for texts, padded on the right: `is_text` (rows, length) is false where nothing is."""

    def embed(self, tokens: mx.array, types: mx.array) -> mx.array:
        """Give what the first layer takes, of token ids and the numbers of their texts, both (rows, length)."""

    def finish(self, hidden: mx.array) -> mx.array:
        """Give the hidden states of what the last layer gave."""


def padding_mask(is_text: mx.array) -> mx.array:
    """Give what hides the padding, (rows, 1, 1, length)."""
    hidden: mx.array = mx.where(is_text, 0.0, mx.finfo(mx.float32).min)[:, None, None, :]
    return hidden


def attend(queries: mx.array, keys: mx.array, values: mx.array, heads: int, mask: mx.array) -> mx.array:
    """Give the attention of (rows, length, size) to all of the text, in as many heads.

    The queries of long texts are taken in turn: on the CPU all scores of a call are in memory.
    """
    split = [_split(array, heads) for array in (queries, keys, values)]
    return join(attend_heads(split[0], split[1], split[2], mask))


def attend_heads(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array) -> mx.array:
    """Give the attention where heads are split already: (rows, heads, length, width)."""
    rows, heads, length, width = queries.shape
    at_once = max(1, _MOST_SCORES // (rows * heads * length))
    mask = mask.astype(queries.dtype)
    parts = []
    for start in range(0, length, at_once):
        part = mask[..., start : start + at_once, :] if mask.shape[-2] > 1 else mask
        some = queries[:, :, start : start + at_once]
        parts.append(mx.fast.scaled_dot_product_attention(some, keys, values, scale=width**-0.5, mask=part))
        if at_once < length:
            mx.eval(parts[-1])
    return mx.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


def join(heads: mx.array) -> mx.array:
    """Put heads (rows, heads, length, width) side by side: (rows, length, size)."""
    rows, number, length, width = heads.shape
    return heads.transpose(0, 2, 1, 3).reshape(rows, length, number * width)


def _split(array: mx.array, heads: int) -> mx.array:
    rows, length, size = array.shape
    return array.reshape(rows, length, heads, size // heads).transpose(0, 2, 1, 3)
