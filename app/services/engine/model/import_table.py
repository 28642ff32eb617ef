"""Has a loaded shared library call other functions than those it was linked with, on 64-bit Linux.

The names under which a library calls others stand in its file, next to where in memory the address of each is kept:
its table of imports (ELF's global offset table). Writing another address there does for one library what LD_PRELOAD
does for all, and works for a function with another name. All is checked before the first address is written.

Source: System V ABI, "Dynamic Linking", with its supplements for x86-64 and AArch64.
"""

import ctypes
import mmap
import struct
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

_Data = bytes | mmap.mmap

_SEGMENT_LOADED, _SEGMENT_DYNAMIC = 1, 2
_END, _IMPORTS_SIZE, _STRINGS, _SYMBOLS, _IMPORTS_TYPE, _IMPORTS = 0, 2, 5, 6, 20, 23  # tags of the dynamic segment
_WITH_ADDENDS = 7
_IMPORT = {62: 7, 183: 1026}  # the relocation of an imported function, by machine: x86-64, AArch64
_LINK_MAP = 2  # what dlinfo is asked for


class UnknownLayout(Exception):
    """A library is not laid out as it has to be, so nothing was changed; the message says what is different."""


class _Segment(NamedTuple):
    type: int
    flags: int
    offset: int  # in the file
    address: int  # relative to where the library is loaded
    physical_address: int
    file_size: int
    memory_size: int
    alignment: int


class _Mapping(NamedTuple):
    """A range of addresses of this process."""

    start: int
    end: int
    rights: str  # such as r-xp
    path: str


def replace_imports(library: ctypes.CDLL, path: Path, functions: Mapping[str, int]) -> None:
    """Have a library, loaded from a file, call the functions at these addresses for those that it imports by name.

    Raises UnknownLayout, with nothing changed, where any of them is not imported or cannot be replaced.
    """
    offsets = import_offsets(path)
    if missing := sorted(functions.keys() - offsets.keys()):
        raise UnknownLayout(f"{path.name} does not import {', '.join(missing)}")
    base = _base(library)
    mappings = list(_mappings())
    entries = {name: base + offsets[name] for name in functions}
    for name, entry in entries.items():
        # After loading, a library may have made its table read-only: writing would end the process.
        if not (_is_in(entry, mappings, "rw-p", path) and _is_in(entry + 7, mappings, "rw-p", path)):
            raise UnknownLayout(f"the entry of {name} cannot be written")
        if not _is_in(ctypes.c_uint64.from_address(entry).value, mappings, "r-xp"):
            raise UnknownLayout(f"the entry of {name} holds no function")
    for name, entry in entries.items():
        ctypes.c_uint64.from_address(entry).value = functions[name]


def import_offsets(path: Path) -> dict[str, int]:
    """Where a library keeps the addresses of the functions that it imports, relative to where it is loaded, by name.

    Raises UnknownLayout for a file that is none of a 64-bit Linux library, or a damaged one.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return dict(_imports(data))
    except (OSError, ValueError, KeyError, OverflowError, struct.error) as error:
        raise UnknownLayout(f"{path.name}: {str(error) or type(error).__name__}") from error


def _imports(data: _Data) -> Iterator[tuple[str, int]]:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("it is no library of a 64-bit machine")
    (machine,) = struct.unpack_from("<H", data, 18)
    if machine not in _IMPORT:
        raise ValueError(f"machine {machine} is unknown")
    segments = _segments(data)
    tags = _dynamic_tags(data, segments)
    if tags.get(_IMPORTS_TYPE) != _WITH_ADDENDS:
        raise ValueError("it has no table of imports, or one of another form")
    strings, symbols = (_file_offset(tags[tag], segments) for tag in (_STRINGS, _SYMBOLS))
    imports = _file_offset(tags[_IMPORTS], segments)
    for position in range(imports, imports + tags[_IMPORTS_SIZE], 24):
        offset, info = struct.unpack_from("<QQ", data, position)
        if info & 0xFFFFFFFF == _IMPORT[machine]:
            (name,) = struct.unpack_from("<I", data, symbols + 24 * (info >> 32))
            yield _text(data, strings + name), offset


def _segments(data: _Data) -> list[_Segment]:
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return [_Segment(*struct.unpack_from("<IIQQQQQQ", data, offset + index * size)) for index in range(count)]


def _dynamic_tags(data: _Data, segments: list[_Segment]) -> dict[int, int]:
    dynamic = next((segment for segment in segments if segment.type == _SEGMENT_DYNAMIC), None)
    if dynamic is None:
        raise ValueError("it is linked statically")
    positions = range(dynamic.offset, dynamic.offset + dynamic.file_size, 16)
    pairs = (struct.unpack_from("<qQ", data, position) for position in positions)
    return dict(takewhile(lambda pair: pair[0] != _END, pairs))


def _file_offset(address: int, segments: list[_Segment]) -> int:
    for segment in segments:
        if segment.type == _SEGMENT_LOADED and segment.address <= address < segment.address + segment.file_size:
            return address - segment.address + segment.offset
    raise ValueError("a table lies outside of the file")


def _text(data: _Data, start: int) -> str:
    end = data.find(b"\0", start)
    if not 0 <= start < end:
        raise ValueError("a name has no end")
    return data[start:end].decode()


def _base(library: ctypes.CDLL) -> int:
    """Where a library is loaded."""
    link_map = ctypes.POINTER(ctypes.c_uint64)()  # its first field is the address
    information = getattr(ctypes.CDLL(None), "dlinfo", None)
    if information is None or information(ctypes.c_void_p(library._handle), _LINK_MAP, ctypes.byref(link_map)):
        raise UnknownLayout("the system does not say where a library is loaded")
    return int(link_map[0])


def _mappings() -> Iterator[_Mapping]:
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError as error:
        raise UnknownLayout("the system does not say what is mapped") from error
    for line in lines:
        addresses, rights, _, _, _, *path = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in addresses.split("-"))
        yield _Mapping(start, end, rights, *path or [""])


def _is_in(address: int, mappings: list[_Mapping], rights: str, path: Path | None = None) -> bool:
    """Whether an address is in memory with these rights, and that of a file if there is one."""
    mapping = next((mapping for mapping in mappings if mapping.start <= address < mapping.end), None)
    if mapping is None or mapping.rights != rights:
        return False
    return path is None or mapping.path == str(path.resolve())
