"""A fast BLAS for MLX on the Linux CPU, loaded before the first import of MLX."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The wheels bring the reference BLAS; the symbols of whatever is loaded before them win.
_LIBRARIES = ("libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.2", "libmkl_rt.so")


class _Threads:
    """The threads that the BLAS of this process computes with, if it is one whose number can be changed: OpenBLAS.

    Decoding reserves cores for what is not BLAS; prefill takes all of them for as long as it runs.
    """

    def __init__(self) -> None:
        self._set: Callable[[int], None] | None = None
        self._all = self._now = 1

    def of(self, library: ctypes.CDLL) -> None:
        """Take charge of a library's threads, as many as it has chosen or was told to have."""
        if hasattr(library, "openblas_set_num_threads"):
            self._set = library.openblas_set_num_threads
            self._all = self._now = library.openblas_get_num_threads()

    def reserve_cores(self, cores: int) -> None:
        """Leave so many cores to others from now on, so that it holds for what is computed after this returns."""
        self._use(max(1, self._all - cores))

    @contextmanager
    def all(self) -> Iterator[None]:
        """Compute on all cores; what is begun here has to be over at the end, as it is after `mx.eval`."""
        before = self._now
        self._use(self._all)
        try:
            yield
        finally:
            self._use(before)

    def _use(self, threads: int) -> None:
        if self._set is not None and threads != self._now:
            self._set(threads)
            self._now = threads


threads = _Threads()


def preload() -> str | None:
    """Load a fast BLAS if this is Linux and has one. Returns its file name, None where there is none or no need."""
    if sys.platform != "linux":
        return None
    for name in _LIBRARIES:
        try:
            threads.of(ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL))
        except OSError:
            continue
        return name
    return None
