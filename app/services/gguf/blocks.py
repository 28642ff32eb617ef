"""Tensors of a GGUF file as MLX's quantized layers hold them, or as float32.

MLX packs the numbers of a row as one stream of bits, least significant first, in words of 32 bits, with a scale and a
bias for every 32, 64 or 128 of them. Most types of llama.cpp fit into that without loss. Those whose groups have 16
values do not: two of them become one, of eight bits (`LOSSY`).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from app.services.errors import LoadFailed
from app.services.gguf.file import Tensor
from app.services.gguf.layouts import LAYOUTS, Layout

CHUNK = 1 << 18  # values that are worked on at a time: they fit into a processor's cache
# The types that are stored with an error of their own, and its rms, as a share of that of the weights.
# Measured with weights of a normal distribution that llama.cpp quantized.
LOSSY = {"Q2_K": 0.0051, "Q6_K": 0.0038, "IQ2_XS": 0.0053, "IQ2_S": 0.0051, "NVFP4": 0.0021}
# Their largest number, and what number the value farthest from zero gets where two groups become one.
_ENDS = {"Q2_K": (3, 127), "Q6_K": (63, -128), "IQ2_XS": (86, 86), "IQ2_S": (86, 86), "NVFP4": (24, 120)}
_FLOATS = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F64": "<f8",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
}
# By type: MLX's mode for it, and its group.
_MODES = {"MXFP4": ("mxfp4", 32), "NVFP4": ("nvfp4", 16)}
# Scales of a byte that no quantizer writes, and the number of them: more than these are too large for float32, or MLX.
_SCALE_BYTES = {"MXFP4": (1, 251), "NVFP4": (4, 254)}


class Packed(NamedTuple):
    """A matrix, or a stack of them, as MLX's quantized layers hold it. Rows may be permuted, split and joined."""

    weight: np.ndarray  # uint32 (*rows, columns * bits / 32)
    scales: np.ndarray  # (*rows, columns / group_size): float32 (affine) or uint8 (mxfp4, nvfp4)
    biases: np.ndarray | None  # as the scales; None but for affine
    bits: int
    group_size: int
    mode: str  # "affine", "mxfp4", "nvfp4"


class Fidelity(NamedTuple):
    """How many quantized tensors MLX holds without loss, and how many, by type, it does not."""

    exact: int
    lossy: dict[str, int]

    def __str__(self) -> str:
        kinds = [
            f"{count} tensors ({name}) stored as 8 bit (error {LOSSY[name]:.1%})" for name, count in self.lossy.items()
        ]
        return ", ".join([f"{self.exact} tensors exact", *kinds])


def fidelity(tensors: Iterable[Tensor]) -> Fidelity:
    """Say what packing changes, from the header alone."""
    counts = Counter((tensor.type.name, is_lossy(tensor)) for tensor in tensors if tensor.type.is_quantized)
    lossy = {name: counts.pop((name, True)) for name in LOSSY if (name, True) in counts}
    return Fidelity(counts.total(), lossy)


def is_lossy(tensor: Tensor) -> bool:
    """Whether MLX cannot hold a quantized tensor as it is. NVFP4 it can, but not with a factor for the whole matrix."""
    return tensor.type.name in LOSSY and (tensor.type.name not in _MODES or tensor.factors is not None)


def pack(tensor: Tensor) -> Packed:
    """Give a quantized tensor in MLX's packing.

    Raises ValueError for a type that is not quantized, and LoadFailed for numbers that no quantizer writes.
    """
    name = tensor.type.name
    lossy = is_lossy(tensor)
    if name in _MODES and not lossy:
        return _packed_float(tensor, *_MODES[name])
    if (layout := LAYOUTS.get(name)) is None:
        raise ValueError(f"{name} is not quantized")
    bits, group = (8, 32) if lossy else (layout.bits, layout.group)
    packed = _empty(tensor, bits, group, np.float32)
    assert packed.biases is not None
    weight = packed.weight.view(np.uint8).reshape(-1, tensor.type.block * bits // 8)
    scales, biases = packed.scales.reshape(len(weight), -1), packed.biases.reshape(len(weight), -1)
    for part, blocks in _chunks(tensor):
        if lossy:
            weight[part], scales[part], biases[part] = _joined(name, blocks)
        else:
            weight[part] = _stream(layout, blocks)
            scales[part], biases[part] = layout.scales(blocks)
    if tensor.factors is not None:
        for values in (packed.scales, packed.biases):
            values *= tensor.factors[..., None]
    return packed


def packed_bytes(tensor: Tensor) -> int:
    """Give the bytes that a GPU holds of a tensor: packed, with scales and other numbers in 16 bits."""
    values, name = math.prod(tensor.shape), tensor.type.name
    if not tensor.type.is_quantized:
        return 2 * values
    if is_lossy(tensor):
        return values + 4 * values // 32
    if name in _MODES:
        return values // 2 + values // _MODES[name][1]
    return values * LAYOUTS[name].bits // 8 + 4 * values // LAYOUTS[name].group


def widen(tensor: Tensor) -> np.ndarray:
    """Give a tensor as float32, exactly as the file has it (where a scale is infinite: no numbers).

    Raises LoadFailed if float32 cannot hold its numbers.
    """
    wide = np.empty(tensor.shape, np.float32)
    rows = wide.reshape(-1, tensor.type.block)
    name = tensor.type.name
    into = _widening(name)
    for part, blocks in _chunks(tensor):
        into(blocks, rows[part])
        if name in {"F64", "I32", "I64"} and not np.array_equal(rows[part], _numbers(name, blocks)):
            raise LoadFailed(f"The tensor {tensor.name!r} is in {name}, and float32 cannot hold its numbers.")
    if tensor.factors is not None:
        wide *= tensor.factors[..., None]
    return wide


def _chunks(tensor: Tensor) -> Iterator[tuple[slice, np.ndarray]]:
    """Give the blocks of a tensor, some at a time, and which they are. Raises LoadFailed for scales that cannot be."""
    blocks = tensor.data.reshape(-1, tensor.type.block_bytes)
    step = max(1, CHUNK // tensor.type.block)
    count, most = _SCALE_BYTES.get(tensor.type.name, (0, 0))
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        if count and blocks[part, :count].max() > most:
            raise LoadFailed(
                f"The tensor {tensor.name!r} has scales that no quantizer writes. Download the file again."
            )
        yield part, blocks[part]


def _empty(tensor: Tensor, bits: int, group: int, dtype: type) -> Packed:
    *rows, columns = tensor.shape
    weight = np.empty((*rows, columns * bits // 32), np.uint32)
    scales: np.ndarray = np.empty((*rows, columns // group), dtype)
    return Packed(weight, scales, np.empty_like(scales), bits, group, "affine")


def _stream(layout: Layout, blocks: np.ndarray) -> np.ndarray:
    """Pack the numbers of each block: uint8 (blocks, values * bits / 8)."""
    if layout.halves is not None:
        start, width = layout.halves
        return _paired(blocks[:, start:], width)
    return _STREAMS[layout.bits](layout.numbers(blocks)).reshape(len(blocks), -1)


def _paired(part: np.ndarray, width: int) -> np.ndarray:
    """Reorder numbers of four bits: ggml has those of `width` bytes' low bits before those of their high bits.

    MLX has neighbours in a byte. Two bytes at a time, so that nothing is unpacked: their low bits make one byte of the
    first half, their high bits one of the second.
    """
    words = np.ascontiguousarray(part).view("<u2").reshape(len(part), -1, 1, width // 2)
    paired = np.concatenate([words, words >> 4], axis=2)
    return (paired & 0xF | paired >> 4 & 0xF0).astype(np.uint8).reshape(len(part), -1)


def _stream_2(numbers: np.ndarray) -> np.ndarray:
    words = numbers.view("<u4")
    return (words | words >> 6 | words >> 12 | words >> 18).astype(np.uint8)


def _stream_4(numbers: np.ndarray) -> np.ndarray:
    words = numbers.view("<u2")
    return (words | words >> 4).astype(np.uint8)


def _stream_5(numbers: np.ndarray) -> np.ndarray:
    words = numbers.view("<u8")
    words = words & 0x001F001F001F001F | words >> 3 & 0x03E003E003E003E0
    words = words & 0x000003FF000003FF | words >> 6 & 0x000FFC00000FFC00
    words = words & 0x00000000000FFFFF | words >> 12 & 0x000000FFFFF00000
    return words[..., None].view(np.uint8)[..., :5]


def _stream_6(numbers: np.ndarray) -> np.ndarray:
    words = numbers.view("<u4")
    words = words & 0x003F003F | words >> 2 & 0x0FC00FC0
    words = words & 0x00000FFF | words >> 4 & 0x00FFF000
    return words[..., None].view(np.uint8)[..., :3]


# Numbers in a byte each become a stream of bits.
_STREAMS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: _stream_2,
    4: _stream_4,
    5: _stream_5,
    6: _stream_6,
    8: lambda numbers: numbers,
}


def _joined(name: str, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one group of 32 from two of 16, in eight bits of which 128 is zero: numbers, scales and biases.

    The step is a whole part of the larger scale, so that the half which has it keeps its values; but not for Q2_K,
    whose values lie anywhere.
    """
    layout, (top, most) = LAYOUTS[name], _ENDS[name]
    scale, bias = (part.reshape(len(blocks), -1, 2) for part in layout.scales(blocks))
    ends = np.concatenate([bias, bias + scale * np.float32(top)], axis=2)
    step = np.take_along_axis(ends, np.abs(ends).argmax(axis=2)[..., None], 2) / np.float32(most)
    values = layout.numbers(blocks).reshape(*scale.shape, 16) * scale[..., None]
    values += bias[..., None]
    values /= np.where(step == 0, np.float32(1), step)[..., None]  # where it is zero, so are the values
    np.clip(np.rint(values, out=values), -128, 127, out=values)
    values += 128
    return values.astype(np.uint8).reshape(len(blocks), -1), step[..., 0], step[..., 0] * np.float32(-128)


def _packed_float(tensor: Tensor, mode: str, group: int) -> Packed:
    """Pack floats of four bits, which MLX has, too, with the same scales in a byte."""
    packed = _empty(tensor, 4, group, np.uint8)
    count = packed.scales.size * group // tensor.type.block
    weight, scales = packed.weight.view(np.uint8).reshape(count, -1), packed.scales.reshape(count, -1)
    for part, blocks in _chunks(tensor):
        scales[part] = blocks[:, : scales.shape[1]]
        weight[part] = _stream(LAYOUTS[tensor.type.name], blocks)
    if mode == "nvfp4":  # ggml takes no sign, and 127 for zero
        np.copyto(packed.scales, 0, where=packed.scales == 127)
        np.bitwise_and(packed.scales, 127, out=packed.scales)
    return packed._replace(biases=None, mode=mode)


def _widening(name: str) -> Callable[[np.ndarray, np.ndarray], None]:
    """Choose what writes a chunk of blocks into rows of float32 (blocks, values)."""
    if name in _FLOATS:
        return lambda blocks, rows: np.copyto(rows, _numbers(name, blocks), casting="unsafe")
    layout = LAYOUTS[name]

    def affine(blocks: np.ndarray, rows: np.ndarray) -> None:
        scale, bias = layout.scales(blocks)
        rows[...] = layout.numbers(blocks)
        groups = rows.reshape(*scale.shape, -1)
        groups *= scale[..., None]
        groups += bias[..., None]

    return affine


def _numbers(name: str, blocks: np.ndarray) -> np.ndarray:
    numbers = np.ascontiguousarray(blocks).view(_FLOATS[name])
    # A bfloat16 is the upper half of a float32.
    return (numbers.astype(np.uint32) << 16).view(np.float32) if name == "BF16" else numbers
