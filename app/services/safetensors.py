"""Headers of safetensors files: which tensors a model has, and whether their data is all there."""

import math
from pathlib import Path
from typing import Annotated

import msgspec

from app.services.files import bad, read_object

WEIGHTS = "model*.safetensors"
LARGEST_HEADER = 100_000_000  # bytes; the safetensors format's own limit
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


class Tensor(msgspec.Struct, frozen=True):
    """What a safetensors header says of one tensor; `data_offsets` are bytes from the end of the header."""

    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data_offsets: tuple[Annotated[int, msgspec.Meta(ge=0)], int]

    @property
    def bytes(self) -> int:
        """Size of its data."""
        return self.data_offsets[1] - self.data_offsets[0]

    @property
    def is_sound(self) -> bool:
        """Whether its shape and its place in the file agree."""
        whole = DTYPE_BYTES.get(self.dtype)
        return self.bytes >= 0 if whole is None else self.bytes == whole * math.prod(self.shape)


def shards(folder: Path) -> list[Path]:
    """The weight files of a folder, once all that its index lists are there. Raises LoadFailed."""
    index = folder / "model.safetensors.index.json"
    listed = _listed(index) if index.exists() else set()
    for name in sorted(listed):
        if not (folder / name).exists():
            raise bad(folder / name, "is missing; model.safetensors.index.json lists it.")
    return sorted(folder.glob(WEIGHTS))


def read_header(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, by name, with the file checked against its header. Raises LoadFailed."""
    if not path.exists():
        raise bad(path, "points to a file that is not there: its download has not finished.")
    size = path.stat().st_size
    if size == 0:
        raise bad(path, "is empty.")
    with path.open("rb") as file:
        start = file.read(8)
        length = _header_length(path, start, size)
        tensors = _parsed(path, file.read(length))
    return _fitting(path, tensors, size - 8 - length)


def _listed(index: Path) -> set[str]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(_is_name(name) for name in weight_map.values()):
        raise bad(index, "has no weight_map from tensors to files.")
    return set(weight_map.values())


def _is_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and "\0" not in name


def _header_length(path: Path, start: bytes, size: int) -> int:
    """Length of the header in bytes, once it is sure that the file holds all of it."""
    length = int.from_bytes(start, "little")
    if start == b"version ":
        raise bad(path, "is a Git LFS pointer, not the weights; fetch them with `git lfs pull` or `tiles-server pull`.")
    if size >= 8 and length > LARGEST_HEADER:
        raise bad(path, "is no safetensors file.")
    missing = 8 + length - size if size >= 8 else 8 - size
    if missing > 0:
        raise bad(path, f"is cut short: at least {missing} bytes of its header are missing. Download it again.")
    return length


def _parsed(path: Path, header: bytes) -> dict[str, Tensor]:
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        return {name: msgspec.json.decode(entry, type=Tensor) for name, entry in entries.items()}
    except (ValueError, RecursionError) as error:
        raise bad(path, f"has a broken header: {error}.") from error


def _fitting(path: Path, tensors: dict[str, Tensor], data_bytes: int) -> dict[str, Tensor]:
    """Give the tensors back once their data is all in the file."""
    for name, tensor in tensors.items():
        if not tensor.is_sound:
            raise bad(path, f"has a broken header: shape and place of the tensor {name!r} do not agree.")
    missing = max((tensor.data_offsets[1] for tensor in tensors.values()), default=0) - data_bytes
    if missing > 0:
        raise bad(path, f"is cut short: {missing} bytes are missing. Download it again.")
    return tensors
