"""Writes a GGUF file as a folder that mlx-lm loads: all of it, or all but the weights."""

import json
import math
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from app.services.gguf import tokenizer
from app.services.gguf.architectures import Architecture
from app.services.gguf.architectures.layout import Parameter, as_is
from app.services.gguf.blocks import Packed, pack, widen
from app.services.gguf.file import GGUFFile, Tensor
from app.services.gguf.pages import let_go

Steps = Generator[float, None, None]

CHUNK = 1 << 24  # values that are widened at a time: 64 MiB
_HEADER_BYTES = 512  # for each parameter, of which a packed one has three arrays
_DTYPES = {"uint32": "U32", "uint8": "U8", "float32": "F32", "uint16": "BF16"}


def write(file: GGUFFile, architecture: Architecture, folder: Path, *, half: bool) -> Steps:
    """Write a folder with weights. Yields progress, 0 to 1. Raises LoadFailed and OSError. `half`: see below."""
    quantization = yield from write_weights(architecture, folder, half=half)
    write_settings(file, architecture, folder, quantization)


def write_settings(file: GGUFFile, architecture: Architecture, folder: Path, quantization: dict[str, Any]) -> None:
    """Write config.json and the files of the tokenizer. Raises LoadFailed and OSError."""
    tokenizer.write(file, folder)
    config = architecture.config | ({"quantization": quantization} if quantization else {})
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    if architecture.pooling == "last":  # as sentence-transformers says it
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')


def write_weights(architecture: Architecture, folder: Path, *, half: bool) -> Generator[float, None, dict[str, Any]]:
    """Write model.safetensors, tensor by tensor. Yields progress, 0 to 1, and returns `quantization` of config.json.

    Quantized matrices stay packed. `half`: scales, biases and the rest become bfloat16, as in mlx-lm; else float32.
    Raises LoadFailed and OSError.
    """
    quantization: dict[str, Any] = {}
    total, bytes_read = sum(file_bytes(one) for one in architecture.parameters) or 1, 0
    with (folder / "model.safetensors").open("xb") as stream:
        writer = _Safetensors(stream, len(architecture.parameters))
        for parameter in architecture.parameters:
            if (packed := _packed(parameter)) is not None:
                layer = parameter.name.removesuffix(".weight")
                quantization[layer] = {"group_size": packed.group_size, "bits": packed.bits, "mode": packed.mode}
                writer.add(parameter.name, packed.weight)
                writer.add(f"{layer}.scales", narrow(packed.scales) if half else packed.scales)
                if packed.biases is not None:
                    writer.add(f"{layer}.biases", narrow(packed.biases) if half else packed.biases)
            else:
                is_half = half and not parameter.is_float32
                writer.add_parts(parameter.name, *widened(parameter), change=narrow if is_half else None)
            bytes_read += file_bytes(parameter)
            yield bytes_read / total
        writer.finish()
    # Layers that are not named are not quantized; mlx-lm wants a default all the same.
    return {"group_size": 32, "bits": 4, "mode": "affine"} | quantization if quantization else {}


def _packed(parameter: Parameter) -> Packed | None:
    """Give a parameter in MLX's packing; None where it is not quantized, or mlx-lm's layer cannot be."""
    if parameter.is_dense or not all(tensor.type.is_quantized for tensor in parameter.tensors):
        return None
    packed = [pack(tensor) for tensor in parameter.tensors]
    if len({(one.bits, one.group_size, one.mode) for one in packed}) != 1:
        return None
    for tensor in parameter.tensors:
        let_go(tensor.data)
    changed: Packed = parameter.change(*packed)
    return changed


def widened(parameter: Parameter) -> tuple[tuple[int, ...], Iterator[np.ndarray]]:
    """Give a parameter as float32: its shape, and some of its rows at a time."""
    if parameter.change is as_is:
        (tensor,) = parameter.tensors
        return tensor.shape, _rows(tensor)
    values = np.ascontiguousarray(parameter.change(*(_whole(tensor) for tensor in parameter.tensors)))
    return values.shape, iter([values])


def _rows(tensor: Tensor) -> Iterator[np.ndarray]:
    """Widen some rows at a time, and let go of what was read."""
    count, step = math.prod(tensor.shape[:-1]), max(1, CHUNK // max(1, tensor.shape[-1]))
    for start in range(0, count, step):
        part = tensor.rows(start, min(start + step, count))
        yield widen(part)
        let_go(part.data)


def _whole(tensor: Tensor) -> np.ndarray:
    values = widen(tensor)
    let_go(tensor.data)
    return values


def file_bytes(parameter: Parameter) -> int:
    """Give what a parameter takes in the file."""
    return sum(tensor.data.nbytes for tensor in parameter.tensors)


def narrow(values: np.ndarray) -> np.ndarray:
    """Round float32 to bfloat16, given as its bits: to the nearest, of two the even one."""
    if values.dtype != np.float32:
        return values  # the scales of mxfp4 and nvfp4 are bytes
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


class _Safetensors:
    """Writes a file of safetensors piece by piece: the space of the header is left free until the end."""

    def __init__(self, file: IO[bytes], count: int) -> None:
        self._file = file
        self._start = 8 + (count + 1) * _HEADER_BYTES
        self._entries: dict[str, dict[str, Any]] = {}
        self._file.seek(self._start)

    def add(self, name: str, values: np.ndarray) -> None:
        """Append an array."""
        self.add_parts(name, values.shape, iter([values]))

    def add_parts(
        self,
        name: str,
        shape: tuple[int, ...],
        parts: Iterator[np.ndarray],
        change: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Append an array that comes in parts."""
        start, dtype = self._file.tell() - self._start, "float32"
        for part in parts:
            values = np.ascontiguousarray(part if change is None else change(part))
            dtype = values.dtype.name
            self._file.write(values.data)
        end = self._file.tell() - self._start
        self._entries[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}

    def finish(self) -> None:
        """Write the header."""
        header = json.dumps({"__metadata__": {"format": "mlx"}} | self._entries).encode()
        size = self._start - 8
        assert len(header) <= size
        self._file.seek(0)
        self._file.write(size.to_bytes(8, "little") + header.ljust(size))
