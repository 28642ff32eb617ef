"""The memory of objects: what is not looked at for garbage, and what was freed, given back to the system."""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def permanent() -> Iterator[None]:
    """Look for no garbage in what a block makes, now or later: to do so while importing takes a seventh of the time.

    For blocks that make things which stay, such as modules. What is there already counts as permanent too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def trim() -> None:
    """Give it back; takes milliseconds, so not on the event loop. Does nothing where the C library is not glibc.

    Of what many small objects took, glibc keeps every page until it is told; macOS takes pages back by itself.
    """
    _trimmer()()


@cache
def _trimmer() -> Callable[[], object]:
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    malloc_trim.argtypes = [ctypes.c_size_t]  # bytes to keep
    return lambda: malloc_trim(0)
