"""A fast BLAS for MLX on the Linux CPU, loaded before the first import of MLX."""

import ctypes
import sys

# The wheels bring the reference BLAS; the symbols of whatever is loaded before them win.
_LIBRARIES = ("libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.2", "libmkl_rt.so")


def preload() -> str | None:
    """Load a fast BLAS if this is Linux and has one. Returns its file name, None where there is none or no need."""
    if sys.platform != "linux":
        return None
    for name in _LIBRARIES:
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return name
    return None
