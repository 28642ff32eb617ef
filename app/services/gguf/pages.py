"""Memory of a mapped file: what was read of it counts as the process's until it is let go."""

import mmap

import numpy as np


def let_go(data: np.ndarray) -> None:
    """Drop the pages that a view of a mapped file has read. What is looked at again is read again."""
    content = _mapping(data)
    if content is None or not data.size:
        return
    start = data.ctypes.data - np.frombuffer(content, np.uint8, 1).ctypes.data
    first = start - start % mmap.PAGESIZE
    content.madvise(mmap.MADV_DONTNEED, first, start + data.nbytes - first)


def _mapping(data: object) -> mmap.mmap | None:
    while isinstance(data, np.ndarray | memoryview):
        data = data.base if isinstance(data, np.ndarray) else data.obj
    return data if isinstance(data, mmap.mmap) else None
