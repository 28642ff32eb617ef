"""The header of one GGUF file: its metadata and which tensors lie where, each checked against the file's size.

The format is llama.cpp's (`ggml/docs/gguf.md`): a magic, a version, two counts, the metadata, the tensors, and from the
next multiple of the alignment on their data. Numbers are little-endian.
"""

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.services.files import bad
from app.services.gguf.types import TYPES, WITHDRAWN, TensorType

MOST_KEYS, MOST_TENSORS = 1 << 16, 1 << 18  # far more than any model has; each costs more memory than its bytes
MOST_DIMENSIONS = 4
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    number: struct.Struct("<" + code)
    for number, code in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "B",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_U32, _U64 = _SCALARS[4], _SCALARS[10]


class Position(NamedTuple):
    """What a file says of one tensor; `offset` is in bytes from the start of the file."""

    shape: tuple[int, ...]  # rows first, as numpy has it
    type: TensorType
    offset: int
    size: int  # bytes


class Metadata(Mapping[str, Any]):
    """The metadata of a file. Numbers and texts are read at once; an array when it is asked for.

    Arrays of texts are `list[str]`, those of numbers read-only numpy arrays. Asking for a text that is no UTF-8 raises
    LoadFailed.
    """

    def __init__(self, values: dict[str, Callable[[], Any]]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values


class Header(NamedTuple):
    """One file: what it says, and its bytes."""

    path: Path
    metadata: Metadata
    tensors: dict[str, Position]
    content: mmap.mmap


def parse(path: Path, content: mmap.mmap) -> Header:
    """Read the header of a file that begins as a GGUF file does. Raises LoadFailed."""
    return _Parser(path, content).header()


class _Parser:
    """Reads on from a position in the file, and never past its end."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._size = len(content)
        self._at = 8  # behind the magic and the version

    def header(self) -> Header:
        tensor_count, key_count = self._number(_U64), self._number(_U64)
        # The shortest tensor has an empty name and no dimension, the shortest key no text and one byte of value.
        self._check_count("tensors", tensor_count, MOST_TENSORS, least=24)
        self._check_count("keys", key_count, MOST_KEYS, least=13)
        values: dict[str, Callable[[], Any]] = {}
        for _ in range(key_count):
            key = self._name("a key")
            if key in values:
                raise self._broken(f"the key {key!r} occurs twice")
            values[key] = self._value(key, self._number(_U32))
        metadata = Metadata(values)
        positions: dict[str, Position] = {}
        for _ in range(tensor_count):
            name = self._name("a tensor's name")
            if name in positions:
                raise self._broken(f"the tensor {name!r} occurs twice")
            positions[name] = self._tensor(name)
        return Header(self._path, metadata, self._placed(positions, self._alignment(metadata)), self._content)

    def _skip(self, count: int) -> int:
        """Go on by so many bytes, and give where they begin."""
        start = self._at
        if count > self._size - start:
            raise bad(self._path, "is cut short: its header is not all there. Download it again.")
        self._at = start + count
        return start

    def _number(self, code: struct.Struct) -> Any:
        return code.unpack_from(self._content, self._skip(code.size))[0]

    def _check_count(self, what: str, count: int, most: int, least: int) -> None:
        if count > most:
            raise self._broken(f"it counts {count} {what}")
        if count * least > self._size - self._at:
            raise bad(self._path, f"is cut short: it counts {count} {what}, which it cannot hold. Download it again.")

    def _name(self, what: str) -> str:
        length = self._number(_U64)
        start = self._skip(length)
        return self._text(what, start, length)

    def _text(self, what: str, start: int, length: int) -> str:
        try:
            return self._content[start : start + length].decode()
        except UnicodeDecodeError as error:
            raise self._broken(f"{what} is no UTF-8") from error

    def _value(self, key: str, kind: int) -> Callable[[], Any]:
        what = f"the value of {key!r}"
        if kind == _STRING:
            length = self._number(_U64)
            start = self._skip(length)
            return lambda: self._text(what, start, length)
        if kind == _ARRAY:
            return self._array(key, what)
        if (code := _SCALARS.get(kind)) is None:
            raise self._broken(f"{what} has the type {kind}, which GGUF does not know")
        number = self._number(code)
        value = bool(number) if kind == _BOOL else number
        return lambda: value

    def _array(self, key: str, what: str) -> Callable[[], Any]:
        kind, count = self._number(_U32), self._number(_U64)
        if kind == _STRING:
            self._check_count(f"texts in {key!r}", count, self._size, least=8)
            start = self._at
            for _ in range(count):
                # As self._skip(self._number(_U64)), which takes three times as long; there are half a million of them.
                if (at := self._at + 8) > self._size:
                    self._skip(8)
                self._at = at
                self._skip(_U64.unpack_from(self._content, at - 8)[0])
            return lambda: self._texts(what, start, count)
        if kind == _ARRAY:
            raise self._broken(f"{what} is an array of arrays, which no model has")
        if (code := _SCALARS.get(kind)) is None:
            raise self._broken(f"{what} is an array of the type {kind}, which GGUF does not know")
        start = self._skip(code.size * count)
        dtype = "?" if kind == _BOOL else code.format
        return lambda: self._numbers(dtype, start, count)

    def _texts(self, what: str, start: int, count: int) -> list[str]:
        texts = []
        for _ in range(count):
            length = _U64.unpack_from(self._content, start)[0]
            start += 8
            texts.append(self._text(what, start, length))
            start += length
        return texts

    def _numbers(self, dtype: str, start: int, count: int) -> np.ndarray:
        # A truth is any byte but zero.
        numbers = np.frombuffer(self._content, "<u1" if dtype == "?" else dtype, count, start)
        return numbers != 0 if dtype == "?" else numbers

    def _alignment(self, metadata: Metadata) -> int:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise self._broken(f"general.alignment is {alignment!r}, no power of two")
        return alignment

    def _tensor(self, name: str) -> Position:
        """Read a tensor's entry; its offset counts from the start of the data as yet."""
        rank = self._number(_U32)
        if rank > MOST_DIMENSIONS:
            raise self._broken(f"the tensor {name!r} has {rank} dimensions")
        shape = tuple(self._number(_U64) for _ in range(rank))[::-1] or (1,)
        number, offset = self._number(_U32), self._number(_U64)
        if (kind := TYPES.get(number)) is None:
            raise bad(self._path, _unknown_type(name, number))
        if 0 in shape:
            raise self._broken(f"the tensor {name!r} has the shape {shape}")
        if shape[-1] % kind.block:
            raise self._broken(
                f"the tensor {name!r} has {shape[-1]} columns, no multiple of {kind.name}'s {kind.block}"
            )
        size = kind.block_bytes
        for dimension in (*shape[:-1], shape[-1] // kind.block):
            size *= dimension
        return Position(shape, kind, offset, size)

    def _placed(self, positions: dict[str, Position], alignment: int) -> dict[str, Position]:
        """Check that the tensors lie in the file, aligned and apart, and count offsets from the start of the file."""
        data = -(-self._at // alignment) * alignment
        end, previous = data, ""
        for name, position in sorted(positions.items(), key=lambda item: item[1].offset):
            start = data + position.offset
            if position.offset % alignment:
                raise self._broken(f"the tensor {name!r} does not begin at a multiple of {alignment} bytes")
            if start < end:
                raise self._broken(f"the tensors {previous!r} and {name!r} overlap")
            end, previous = start + position.size, name
        if end > self._size and positions:
            raise bad(self._path, f"is cut short: {end - self._size} bytes are missing. Download it again.")
        return {name: one._replace(offset=data + one.offset) for name, one in positions.items()}

    def _broken(self, what: str) -> Exception:
        return bad(self._path, f"has a broken header: {what}. Download it again.")


def _unknown_type(name: str, number: int) -> str:
    if number in WITHDRAWN:
        title, reason = WITHDRAWN[number]
        return f"has the tensor {name!r} in {title}, {reason}."
    return f"has the tensor {name!r} in a type (number {number}) that this server does not know; take another quant."
