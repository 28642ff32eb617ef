"""Keys and values in 8 or 4 bits a number, as one array, so that whatever moves columns of a cache moves them too."""

import mlx.core as mx

_GROUPS = (64, 32)  # numbers that share a scale and a bias, the largest first


def group_size(size: int) -> int | None:
    """How many numbers of a key or value of this size share a scale; None where such a size cannot be packed."""
    return next((group for group in _GROUPS if size and size % group == 0), None)


def pack(array: mx.array, bits: int) -> mx.array:
    """Round (…, size) to so many bits a number. Returns uint32 (…, words): the numbers, then scales and biases.

    Each token is rounded by itself, so when it is done makes no difference.
    """
    numbers, scales, biases = mx.quantize(array, group_size=group_size(array.shape[-1]), bits=bits)
    return mx.concatenate([numbers, mx.concatenate([scales, biases], axis=-1).view(mx.uint32)], axis=-1)


def unpack(packed: mx.array, bits: int, size: int, dtype: mx.Dtype) -> mx.array:
    """Give what `pack` made of (…, size) numbers of this type back, rounded."""
    words = size * bits // 32
    group = group_size(size)
    scales, biases = mx.split(packed[..., words:].view(dtype), 2, axis=-1)
    if bits == 8 and mx.default_device() == mx.cpu:  # MLX's own takes three times as long there
        numbers = packed[..., :words].view(mx.uint8).reshape(*packed.shape[:-1], -1, group).astype(dtype)
        return (numbers * scales[..., None] + biases[..., None]).reshape(*packed.shape[:-1], size)
    return mx.dequantize(packed[..., :words], scales, biases, group_size=group, bits=bits)
