"""Memory that was freed, given back to the system."""

import ctypes
from collections.abc import Callable
from functools import cache


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
