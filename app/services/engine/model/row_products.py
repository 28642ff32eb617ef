"""Puts a product of matrices that is faster for few rows before that of an OpenBLAS, in C (`row_products.c`).

It is compiled when the server is installed, where there is a compiler (`hatch_build.py`).
"""

import ctypes
from functools import cache
from hashlib import blake2b
from pathlib import Path

_LIBRARY = Path(__file__).with_name("librow_products.so")


def is_compiled() -> bool:
    """Whether there is such a product, compiled for this processor of what the sources are now."""
    return _library() is not None


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        version = (ctypes.c_char * 16).in_dll(library, "tiles_version")
    except (OSError, ValueError):  # it is not there, of another machine, or older than its version
        return None
    return library if version.raw.decode(errors="replace") == _version() else None


def _version() -> str:
    """Hash the sources, as `hatch_build.py` does."""
    sources = sorted(_LIBRARY.parent.glob("row_products*.[ch]"))
    return blake2b(b"".join(source.read_bytes() for source in sources), digest_size=8).hexdigest()


def product(blas: ctypes.CDLL, prefix: str = "") -> int | None:
    """Give the address of a function that takes the place of an OpenBLAS' cblas_sgemm, and calls that for many rows.

    `prefix` is what the names of its functions begin with. None where nothing is compiled, or for another BLAS. There
    is one such function in a process: the last BLAS computes.
    """
    names = [f"{prefix}{name}" for name in ("cblas_sgemm", "openblas_get_num_threads")]
    library = _library()
    if library is None or not all(hasattr(blas, name) for name in names):
        return None
    library.tiles_set_routines(*(_address(getattr(blas, name)) for name in names))
    return _address(library.tiles_sgemm).value


def _address(function: object) -> ctypes.c_void_p:
    return ctypes.cast(function, ctypes.c_void_p)  # type: ignore[arg-type]
