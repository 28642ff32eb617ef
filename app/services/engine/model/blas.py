"""Loads a fast BLAS for MLX on the Linux CPU, before the first import of MLX, and sets how many threads it uses."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ADVICE = "apt-get install libopenblas0-pthread (Debian, Ubuntu) or dnf install openblas (Fedora)."
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


@cache
def preload() -> str | None:
    """Load a fast BLAS if this is Linux and has one: the system's, a Python package's, or conda's.

    Returns what was loaded, or None. Never loads a second one: their threads would fight for the cores. So the first
    that loads is kept, whatever its speed, and one that the process has already, by LD_PRELOAD say, comes before all.
    """
    if sys.platform != "linux":
        return None
    if library := _loaded():
        threads.manage(ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL))
        return library
    for name in _candidates():
        try:
            handle = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:  # not there, or without what it needs: cmeel's wants libgfortran.so.5
            continue
        threads.manage(handle)
        return name
    return None


def _loaded() -> str | None:
    """Find a fast BLAS that is in the process, with its usual names: numpy's own has others and computes for numpy."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = (fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6)
    return next((path for path in paths if Path(path).name.startswith(("libopenblas", "libmkl_rt"))), None)


def _candidates() -> Iterator[str]:
    """Give names and paths to try: first what the system's loader finds, then files of packages."""
    yield from _LIBRARIES
    folders = []
    if (spec := find_spec("cmeel")) is not None and spec.submodule_search_locations:
        folders += [Path(location).parent / "cmeel.prefix" / "lib" for location in spec.submodule_search_locations]
    folders += [
        Path(prefix) / "lib" for prefix in dict.fromkeys((sys.prefix, os.environ.get("CONDA_PREFIX"))) if prefix
    ]
    for folder in folders:
        yield from (str(path) for name in _LIBRARIES if (path := folder / name).is_file())
