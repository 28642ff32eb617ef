"""Reads a GGUF file, with all of its shards: nothing is loaded, tensors are views of the mapped file."""

import math
import mmap
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.services.files import bad, explained
from app.services.gguf import names, refusals
from app.services.gguf.header import Header, Metadata, Position, parse
from app.services.gguf.types import TensorType


class Tensor(NamedTuple):
    """A tensor as it lies in the file."""

    name: str  # as in the file: "blk.0.attn_q.weight"
    shape: tuple[int, ...]  # as numpy has it, the file's dimensions reversed: (rows, columns) of a matrix
    type: TensorType
    data: np.ndarray  # uint8, read-only, (*shape[:-1], bytes per row)
    factors: np.ndarray | None = None  # float32 (*shape[:-1],): what the values of each row are to be multiplied by

    def rows(self, start: int, stop: int) -> "Tensor":
        """Give some rows, counted through all matrices of a stack, as a matrix."""
        data = self.data.reshape(-1, self.data.shape[-1])[start:stop]
        factors = None if self.factors is None else self.factors.reshape(-1)[start:stop]
        return self._replace(shape=(len(data), self.shape[-1]), data=data, factors=factors)


class GGUFFile(NamedTuple):
    """A model's file, or its shards together."""

    path: Path  # of the first shard
    metadata: Metadata  # of the first shard, which has all but what counts shards
    tensors: Mapping[str, Tensor]  # of all shards, by name
    paths: tuple[Path, ...]  # all shards

    @property
    def architecture(self) -> str:
        """The name of llama.cpp for the architecture; empty if the file says none."""
        name = self.metadata.get("general.architecture")
        return name if isinstance(name, str) else ""


def read(path: Path) -> GGUFFile:
    """Read a language model from its file or from any of its shards.

    Raises LoadFailed for what is no GGUF file, is not whole, or is something else than a language model.
    """
    file = read_any(path)
    refusals.check_kind(file.path, file.metadata, file.tensors)
    return file


def read_any(path: Path) -> GGUFFile:
    """Read a GGUF file, whatever it is for: a vocabulary, an adapter, the vision part of a model. Raises LoadFailed."""
    with explained(path):
        first = read_header(path)
        headers = _shards(first)
        _check_tensor_count(headers)
        tensors: dict[str, Tensor] = {}
        for header in headers:
            for name, position in header.tensors.items():
                if name in tensors:
                    raise bad(
                        header.path, f"has the tensor {name!r}, which another shard has, too. Download them again."
                    )
                tensors[name] = _tensor(header, name, position)
        file = GGUFFile(headers[0].path, headers[0].metadata, tensors, tuple(header.path for header in headers))
        _take_factors(file, tensors)
    return file


def read_header(path: Path) -> Header:
    """Read the header of one file, which may be a shard of several. Raises LoadFailed and OSError."""
    if path.is_symlink() and not path.exists():
        raise bad(path, "points to a file that is not there: its download has not finished.")
    # Asked first: to open a pipe would block.
    if not stat.S_ISREG(path.stat().st_mode):
        raise bad(path, "is a folder, not a GGUF file." if path.is_dir() else "is no regular file.")
    with path.open("rb") as file:
        refusals.check_start(path, file.read(refusals.START_BYTES), path.stat().st_size)
        return parse(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _tensor(header: Header, name: str, position: Position) -> Tensor:
    content = np.frombuffer(header.content, np.uint8, position.size, position.offset)
    return Tensor(name, position.shape, position.type, content.reshape(*position.shape[:-1], -1))


def _take_factors(file: GGUFFile, tensors: dict[str, Tensor]) -> None:
    """Give matrices of NVFP4 the factors that lie beside them as tensors of their own: one for each matrix.

    How their inputs should be rounded lies there, too; llama.cpp does not use it.
    """
    for name, tensor in list(tensors.items()):
        if tensor.type.name != "NVFP4":
            continue
        layer = name.removesuffix(".weight")
        tensors.pop(f"{layer}.input_scale", None)
        # Gemma 4 has a factor for each expert whatever the type, and its router holds it.
        if file.architecture == "gemma4" and layer.endswith(".ffn_down_exps"):
            continue
        if (scale := tensors.pop(f"{layer}.scale", None)) is not None:
            if scale.type.name != "F32" or scale.data.nbytes != 4 * math.prod(tensor.shape[:-2]):
                raise bad(file.path, f"has the tensor {scale.name!r} of a shape or type that does not fit {name!r}.")
            factors = scale.data.view("<f4").reshape(*tensor.shape[:-2], 1)
            tensors[name] = tensor._replace(factors=np.broadcast_to(factors, tensor.shape[:-1]))


def _shards(one: Header) -> list[Header]:
    """Read all shards of a model, in order, given one of them."""
    count = _count(one.metadata, "split.count", 1)
    if count <= 1:
        return [one]
    number = _count(one.metadata, "split.no", 0)
    files = names.shards(one.path.name)
    if not files:
        name = f"…-{number + 1:05}-of-{count:05}.gguf"
        raise bad(
            one.path, f"is shard {number + 1} of {count}; name it {name} as before, so that the others are found."
        )
    if len(files) != count or not 0 <= number < count or files[number] != one.path.name:
        raise bad(one.path, f"is shard {number + 1} of {count} by its header, but its name says otherwise. Rename it.")
    missing = [name for name in files if not (one.path.parent / name).exists()]
    if missing:
        others = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise bad(one.path, f"is one of {count} shards; missing: {', '.join(missing[:3])}{others}. Download them, too.")
    headers = [one if shard == number else read_header(one.path.with_name(name)) for shard, name in enumerate(files)]
    for shard, header in enumerate(headers):
        theirs = (_count(header.metadata, "split.no", 0), _count(header.metadata, "split.count", 1))
        if theirs != (shard, count):
            own = f"is shard {theirs[0] + 1} of {theirs[1]} by its header"
            raise bad(header.path, f"{own}, but {shard + 1} of {count} by its name. Download it again.")
    return headers


def _check_tensor_count(headers: list[Header]) -> None:
    total = sum(len(header.tensors) for header in headers)
    if (promise := _count(headers[0].metadata, "split.tensors.count", total)) != total:
        raise bad(headers[0].path, f"promises {promise} tensors, but its shards have {total}. Download them again.")


def _count(metadata: Mapping[str, Any], key: str, default: int) -> int:
    number = metadata.get(key, default)
    return number if type(number) is int else default
