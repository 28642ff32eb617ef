"""Writes GGUF files by hand, where `gguf.GGUFWriter` would not write what a test needs."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

UINT32, STRING, ARRAY = 4, 8, 9


def text(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return struct.pack("<Q", len(raw)) + raw


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(name: str | bytes, dimensions: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)


ARCHITECTURE = key("general.architecture", STRING, text("llama"))


def write(
    path: Path, keys: Sequence[bytes] = (), tensors: Sequence[bytes] = (), data: int = 4096, **counts: Any
) -> Path:
    """Write a file of these parts, with zeros as data; the counts and the version may be others than they are."""
    head = struct.pack(
        "<4sIQQ",
        b"GGUF",
        counts.get("version", 3),
        counts.get("tensor_count", len(tensors)),
        counts.get("key_count", len(keys) + 1),
    )
    header = head + ARCHITECTURE + b"".join((*keys, *tensors))
    path.write_bytes(header + bytes(-len(header) % 32) + bytes(data))
    return path
