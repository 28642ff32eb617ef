"""How the blocks of each quantized type hold their values: as whole numbers, with a scale and a bias for each group.

A value is `scale * number + bias`, in float32 without rounding but where the format itself rounds, so that it equals
what llama.cpp computes; zero may have another sign. The layouts are those of ggml (`ggml-common.h`).
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from app.services.gguf.grids import even_signs, grid, signs

Array = np.ndarray
_CODEBOOK = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
_E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)  # halves: floats of four bits
_FOUR_BIT = np.array([[0], [4]], np.uint8)
_TWO_BIT = np.array([[0], [2], [4], [6]], np.uint8)
_BITS = np.arange(8, dtype=np.uint8)[:, None]


class Layout(NamedTuple):
    """The numbers and scales of a type. All functions take blocks, uint8 (blocks, bytes of a block).

    Where it can be, zero is a power of two: scale and bias still fit each other when they are rounded to bfloat16.
    """

    bits: int  # of a number
    group: int  # values that share a scale; MLX has no groups of fewer than 32
    numbers: Callable[[Array], Array]  # uint8 (blocks, values)
    scales: Callable[[Array], tuple[Array, Array]]  # scale and bias, float32 (blocks, groups)
    # Where numbers of four bits begin, and how many bytes hold first so many numbers in their low bits, then as many in
    # their high ones.
    halves: tuple[int, int] | None = None


def _half(blocks: Array, at: int) -> Array:
    """Read the float16 at a byte of each block: float32 (blocks, 1)."""
    return _view(blocks[:, at : at + 2], "<f2").astype(np.float32)


def _view(part: Array, dtype: str) -> Array:
    return np.ascontiguousarray(part).view(dtype)


def _shifted(part: Array, shifts: Array, mask: int, width: int) -> Array:
    """Take bits from each byte: for every `width` bytes as many numbers for the first shift, then for the next."""
    shape = (len(part), -1, 1, width)
    return ((part.reshape(shape) >> shifts.astype(part.dtype)) & part.dtype.type(mask)).reshape(len(part), -1)


def _nibbles(part: Array) -> Array:
    """Give the low four bits of each byte, then the high ones, byte after byte."""
    return _shifted(part, _FOUR_BIT, 15, 1)


def _symmetric(scale: Array, middle: int, groups: int = 1) -> tuple[Array, Array]:
    scale = np.repeat(scale, groups, axis=1) if groups > 1 else scale
    return scale, scale * np.float32(-middle)


def _five_bit(at: int) -> Callable[[Array], Array]:
    """Numbers of 32 values whose highest bits come first, in four bytes."""

    def numbers(blocks: Array) -> Array:
        high = np.unpackbits(_view(blocks[:, at : at + 4], "u1"), axis=1, bitorder="little")
        return _shifted(blocks[:, at + 4 :], _FOUR_BIT, 15, 16) | high << 4

    return numbers


def _k_scales(blocks: Array) -> tuple[Array, Array]:
    """Read the scales and minima of Q4_K and Q5_K, six bits each: twelve bytes for eight groups."""
    first, second, rest = (blocks[:, at : at + 4] for at in (4, 8, 12))
    scale = np.concatenate([first & 63, rest & 15 | first >> 2 & 48], axis=1)
    minimum = np.concatenate([second & 63, rest >> 4 | second >> 2 & 48], axis=1)
    return _half(blocks, 0) * scale.astype(np.float32), -(_half(blocks, 2) * minimum.astype(np.float32))


def _q5_k(blocks: Array) -> Array:
    return _shifted(blocks[:, 48:], _FOUR_BIT, 15, 32) | _shifted(blocks[:, 16:48], _BITS, 1, 32) << 4


def _q2_k_scales(blocks: Array) -> tuple[Array, Array]:
    scales = blocks[:, :16]
    return (
        _half(blocks, 80) * (scales & 15).astype(np.float32),
        -(_half(blocks, 82) * (scales >> 4).astype(np.float32)),
    )


def _q3_k(blocks: Array) -> Array:
    """Multiply the numbers by their groups' scales, which are whole: -124 to 128, with the other sign in eight bits."""
    low = _shifted(blocks[:, 96:104], _FOUR_BIT, 15, 8)
    high = _shifted(blocks[:, 104:108], _TWO_BIT, 3, 4)
    scales = (low | high << 4).astype(np.int16) - 32
    numbers = _shifted(blocks[:, 32:96], _TWO_BIT, 3, 32) | _shifted(blocks[:, :32], _BITS, 1, 32) << 2
    products = (numbers.astype(np.int16) - 4).reshape(-1, 16, 16) * scales[..., None]
    return (128 - products).astype(np.uint8).reshape(len(blocks), -1)


def _q6_k(blocks: Array) -> Array:
    return _shifted(blocks[:, :128], _FOUR_BIT, 15, 64) | _shifted(blocks[:, 128:192], _TWO_BIT, 3, 32) << 4


def _codebook(numbers: Array) -> Array:
    return (_CODEBOOK.view(np.uint8) ^ 128)[numbers]


def _e2m1(part: Array, width: int) -> Array:
    """Give floats of four bits as halves, from the least on: 0 to 24."""
    return (_E2M1 + np.int8(12)).view(np.uint8)[_shifted(part, _FOUR_BIT, 15, width)]


@cache
def _half_scales(name: str) -> Array:
    """Give the half of what each byte stands for as a scale: float32 (256,)."""
    scales = np.arange(256)
    if name == "MXFP4":  # a power of two
        return np.ldexp(np.float32(1), scales - 128)
    # NVFP4: a float of eight bits whose sign ggml ignores; 127 is zero.
    exponent, fraction = scales >> 3 & 15, (scales & 7).astype(np.float32)
    halves = np.ldexp(np.where(exponent > 0, fraction + 8, fraction), np.maximum(exponent, 1) - 11)
    halves[127] = 0
    return halves


def _iq4_xs_scales(blocks: Array) -> tuple[Array, Array]:
    high = _view(blocks[:, 2:4], "<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    scale = (_nibbles(blocks[:, 4:8]) | high.astype(np.uint8) << 4).astype(np.float32) - 32
    return _symmetric(_half(blocks, 0) * scale, 128)


def _ternary(blocks: Array) -> Array:
    """Read TQ1_0: five numbers of 0 to 2 in a byte, as a fraction whose digits come out by multiplying by three."""
    powers = np.array([[1], [3], [9], [27], [81]], np.uint8)
    parts = ((blocks[:, :32], powers), (blocks[:, 32:48], powers), (blocks[:, 48:52], powers[:4]))
    fractions = [(part[:, None, :] * factors).reshape(len(blocks), -1) for part, factors in parts]
    return (np.concatenate(fractions, axis=1).astype(np.uint16) * 3 >> 8).astype(np.uint8)


def _signed(points: Array, sign: Array, middle: int) -> Array:
    """Give points their signs, and count from the least value on."""
    return (points.reshape(sign.shape) * sign + np.int8(middle)).view(np.uint8).reshape(len(points), -1)


def _sevens(words: Array) -> Array:
    """Take four numbers of seven bits from each uint32."""
    return words[..., None] >> np.array([0, 7, 14, 21], np.uint32) & 127


def _iq2_xxs(blocks: Array) -> Array:
    words = _view(blocks[:, 2:], "<u4").reshape(len(blocks), 8, 2)
    indices = _view(words[..., 0], "u1").reshape(len(blocks), 32)
    return _signed(grid("IQ2_XXS")[indices], even_signs()[_sevens(words[..., 1])], 64)


def _iq2_xxs_scales(blocks: Array) -> tuple[Array, Array]:
    scale = _view(blocks[:, 2:], "<u4")[:, 1::2] >> 28
    return _symmetric(_half(blocks, 0) * (scale.astype(np.float32) + 0.5) * 0.25, 64)


def _iq2_xs(blocks: Array) -> Array:
    words = _view(blocks[:, 2:66], "<u2")
    return _signed(grid("IQ2_XS")[words & 511], even_signs()[words >> 9], 43)


def _iq2_s(blocks: Array) -> Array:
    high = _shifted(blocks[:, 66:74], _TWO_BIT, 3, 1).astype(np.uint16)
    return _signed(grid("IQ2_S")[blocks[:, 2:34] | high << 8], signs()[blocks[:, 34:66]], 43)


def _iq2_scales(at: int) -> Callable[[Array], tuple[Array, Array]]:
    def scales(blocks: Array) -> tuple[Array, Array]:
        scale = _nibbles(blocks[:, at : at + 8]).astype(np.float32) + 0.5
        return _symmetric(_half(blocks, 0) * scale * 0.25, 43)

    return scales


def _iq3_xxs(blocks: Array) -> Array:
    """All values are even, so that half of them, 1 to 63, takes six bits."""
    sign = even_signs()[_sevens(_view(blocks[:, 66:], "<u4"))]
    return _signed(grid("IQ3_XXS")[blocks[:, 2:66]], sign, 64) >> 1


def _iq3_xxs_scales(blocks: Array) -> tuple[Array, Array]:
    scale = (_view(blocks[:, 66:], "<u4") >> 28).astype(np.float32) + 0.5
    return _symmetric(_half(blocks, 0) * scale, 32)


def _iq3_s(blocks: Array) -> Array:
    """All values are odd, from -15 to 15: four bits."""
    high = np.unpackbits(_view(blocks[:, 66:74], "u1"), axis=1, bitorder="little").astype(np.uint16)
    return _signed(grid("IQ3_S")[blocks[:, 2:66] | high << 8], signs()[blocks[:, 74:106]], 15) >> 1


def _iq3_s_scales(blocks: Array) -> tuple[Array, Array]:
    scale = _half(blocks, 0) * (2 * _nibbles(blocks[:, 106:110]).astype(np.float32) + 1)
    return scale * 2, scale * -15


def _iq1_s(blocks: Array) -> Array:
    high = _view(blocks[:, 34:], "<u2")[..., None] >> np.array([0, 3, 6, 9], np.uint16) & 7
    indices = blocks[:, 2:34] | high.reshape(len(blocks), -1) << 8
    return (grid("IQ1")[indices] + np.int8(1)).view(np.uint8).reshape(len(blocks), -1)


def _iq1_s_scales(blocks: Array) -> tuple[Array, Array]:
    words = _view(blocks[:, 34:], "<u2")
    scale = _half(blocks, 0) * (2 * (words >> 12 & 7).astype(np.float32) + 1)
    return scale, scale * np.where(words & 0x8000, np.float32(-1.125), np.float32(-0.875))


def _iq1_m(blocks: Array) -> Array:
    """Read eighths of the block's scale: odd numbers from -135 to 135, of which eight bits hold the half."""
    high = _nibbles(blocks[:, 32:48])
    points = grid("IQ1")[blocks[:, :32] | (high & 7).astype(np.uint16) << 8].astype(np.int16) * 8
    points += np.where(high & 8, np.int16(-1), np.int16(1))[..., None]
    words = _view(blocks[:, 48:], "<u2")[..., None] >> np.array([0, 3, 6, 9], np.uint16) & 7
    scales = 2 * words.astype(np.int16).reshape(len(blocks), 16, 1) + 1
    products = points.reshape(len(blocks), 16, 16) * scales
    return (products + 135 >> 1).astype(np.uint8).reshape(len(blocks), -1)


def _iq1_m_scales(blocks: Array) -> tuple[Array, Array]:
    # The scale is spread over the highest four bits of four words.
    words = _view(blocks[:, 48:], "<u2") >> 12 << np.array([0, 4, 8, 12], np.uint16)
    scale = np.repeat(np.bitwise_or.reduce(words, axis=1)[:, None].view(np.float16).astype(np.float32), 2, axis=1)
    return scale / 4, scale * np.float32(-135 / 8)


LAYOUTS = {
    "MXFP4": Layout(
        5, 32, lambda b: _e2m1(b[:, 1:], 16), lambda b: _symmetric(_half_scales("MXFP4")[b[:, :1]], 12), (1, 16)
    ),
    "NVFP4": Layout(
        5, 16, lambda b: _e2m1(b[:, 4:], 8), lambda b: _symmetric(_half_scales("NVFP4")[b[:, :4]], 12), (4, 8)
    ),
    "Q4_0": Layout(
        4, 32, lambda b: _shifted(b[:, 2:], _FOUR_BIT, 15, 16), lambda b: _symmetric(_half(b, 0), 8), (2, 16)
    ),
    "Q4_1": Layout(
        4, 32, lambda b: _shifted(b[:, 4:], _FOUR_BIT, 15, 16), lambda b: (_half(b, 0), _half(b, 2)), (4, 16)
    ),
    "Q5_0": Layout(5, 32, _five_bit(2), lambda b: _symmetric(_half(b, 0), 16)),
    "Q5_1": Layout(5, 32, _five_bit(4), lambda b: (_half(b, 0), _half(b, 2))),
    "Q8_0": Layout(8, 32, lambda b: b[:, 2:] ^ 128, lambda b: _symmetric(_half(b, 0), 128)),
    "Q2_K": Layout(2, 16, lambda b: _shifted(b[:, 16:80], _TWO_BIT, 3, 32), _q2_k_scales),
    "Q3_K": Layout(8, 128, _q3_k, lambda b: _symmetric(-_half(b, 108), 128, 2)),
    "Q4_K": Layout(4, 32, lambda b: _shifted(b[:, 16:], _FOUR_BIT, 15, 32), _k_scales, (16, 32)),
    "Q5_K": Layout(5, 32, _q5_k, _k_scales),
    "Q6_K": Layout(6, 16, _q6_k, lambda b: _symmetric(_half(b, 208) * b[:, 192:208].view(np.int8), 32)),
    "IQ4_NL": Layout(
        8, 32, lambda b: _codebook(_shifted(b[:, 2:], _FOUR_BIT, 15, 16)), lambda b: _symmetric(_half(b, 0), 128)
    ),
    "IQ4_XS": Layout(8, 32, lambda b: _codebook(_shifted(b[:, 8:], _FOUR_BIT, 15, 16)), _iq4_xs_scales),
    "IQ3_S": Layout(4, 32, _iq3_s, _iq3_s_scales),
    "IQ3_XXS": Layout(6, 32, _iq3_xxs, _iq3_xxs_scales),
    "IQ2_XXS": Layout(8, 32, _iq2_xxs, _iq2_xxs_scales),
    "IQ2_XS": Layout(7, 16, _iq2_xs, _iq2_scales(66)),
    "IQ2_S": Layout(7, 16, _iq2_s, _iq2_scales(74)),
    "IQ1_S": Layout(2, 32, _iq1_s, _iq1_s_scales),
    "IQ1_M": Layout(8, 128, _iq1_m, _iq1_m_scales),
    "TQ1_0": Layout(2, 128, _ternary, lambda b: _symmetric(_half(b, 52), 1, 2)),
    "TQ2_0": Layout(2, 128, lambda b: _shifted(b[:, :64], _TWO_BIT, 3, 32), lambda b: _symmetric(_half(b, 64), 1, 2)),
    "Q1_0": Layout(
        2,
        128,
        lambda b: np.unpackbits(_view(b[:, 2:], "u1"), axis=1, bitorder="little"),
        lambda b: (2 * _half(b, 0), -_half(b, 0)),
    ),
    "Q2_0": Layout(2, 64, lambda b: _shifted(b[:, 2:], _TWO_BIT, 3, 1), lambda b: _symmetric(_half(b, 0), 1)),
}
