"""Loads a fast BLAS for MLX on the Linux CPU, before the first import of MLX, and sets how many threads it uses."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The wheels bring the reference BLAS; the symbols of whatever is loaded before them win.
_LIBRARIES = ("libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.2", "libmkl_rt.so")


class _Threads:
    """The BLAS threads of the whole process. Their number can be changed with OpenBLAS, else nothing happens.

    Decoding reserves cores for what is not BLAS; prefill takes all of them for as long as it runs.
    """

    def __init__(self) -> None:
        self._set: Callable[[int], None] | None = None
        self._all = self._current = 1

    def manage(self, library: ctypes.CDLL) -> None:
        """Manage the threads of a library. The number that it has now is the most that it will have."""
        if hasattr(library, "openblas_set_num_threads"):
            self._set = library.openblas_set_num_threads
            self._all = self._current = library.openblas_get_num_threads()

    def reserve_cores(self, cores: int) -> None:
        """Leave so many cores to other threads, until the next call: that many BLAS threads fewer, but one at least."""
        self._use(max(1, self._all - cores))

    @contextmanager
    def all(self) -> Iterator[None]:
        """Compute on all cores; what starts here has to be over at the end, as it is after `mx.eval`."""
        before = self._current
        self._use(self._all)
        try:
            yield
        finally:
            self._use(before)

    def _use(self, threads: int) -> None:
        if self._set is not None and threads != self._current:
            self._set(threads)
            self._current = threads


threads = _Threads()


def preload() -> str | None:
    """Load a fast BLAS if this is Linux and has one. Returns its file name, or None."""
    if sys.platform != "linux":
        return None
    for name in _LIBRARIES:
        try:
            threads.manage(ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL))
        except OSError:
            continue
        return name
    return None
