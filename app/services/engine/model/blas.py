"""Has MLX compute with a fast BLAS on the Linux CPU, and sets how many threads that uses.

MLX's wheel for Linux brings the reference BLAS, which takes up to fifty times as long for a prompt. A BLAS with the
usual names, as systems have it, is used if it is loaded before MLX. The one of the package scipy-openblas32 has names
of its own: MLX's library is loaded, and told to call that one instead (`import_table`). Of both, products of few rows
go another way (`row_products`).
"""

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog

from app.services.engine.model import row_products
from app.services.engine.model.import_table import UnknownLayout, replace_imports

log = structlog.get_logger()

ADVICE = "apt-get install libopenblas0-pthread (Debian, Ubuntu) or dnf install openblas (Fedora)."
REFERENCE = "reference"  # the BLAS of MLX's wheel
_LIBRARIES = ("libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.2", "libmkl_rt.so")
_PACKAGE, _PREFIX = "scipy-openblas32", "scipy_"  # its name, and what those of its functions begin with
_REAL: dict[str, Any] = {"cblas_sgemm": ctypes.c_float, "cblas_dgemm": ctypes.c_double}
_PRODUCTS = (*_REAL, "cblas_cgemm")  # all that MLX calls for products of matrices
_ROWS, _PLAIN = 101, 111  # CBLAS: the order of matrices, and that none is transposed


class _Threads:
    """The BLAS threads of the whole process. Their number can be changed with OpenBLAS, else nothing happens.

    Decoding reserves cores for what is not BLAS; prefill takes all of them for as long as it runs.
    """

    def __init__(self) -> None:
        self._set: Callable[[int], None] | None = None
        self._all = self._current = 1

    def manage(self, library: ctypes.CDLL) -> None:
        """Manage the threads of a library. The number that it has now is the most that it will have."""
        for prefix in ("", _PREFIX):
            if hasattr(library, f"{prefix}openblas_set_num_threads"):
                self._set = getattr(library, f"{prefix}openblas_set_num_threads")
                self._all = self._current = getattr(library, f"{prefix}openblas_get_num_threads")()

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
def preload(choice: str = "auto") -> str | None:
    """Choose the BLAS that MLX computes with on the Linux CPU: call it before the first import of MLX.

    `auto` takes the machine's (the system's, a Python package's, conda's), else that of scipy-openblas32; `system` the
    machine's alone; `none` leaves MLX its own. Returns the name of what is used, `REFERENCE` for MLX's own, or None
    where that is no question of ours: on a Mac.

    Never loads a second one: their threads would fight for the cores. So the first that loads is kept, whatever its
    speed, and one that the process has already, by LD_PRELOAD say, comes before all.
    """
    if sys.platform != "linux":
        return None
    if choice == "none":
        return _loaded() or REFERENCE
    return _machines() or (choice == "auto" and _packaged()) or REFERENCE


def _machines() -> str | None:
    """Load the machine's BLAS, if it has one."""
    for name in [library] if (library := _loaded()) else _candidates():
        try:
            blas = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:  # not there, or without what it needs: cmeel's wants libgfortran.so.5
            continue
        threads.manage(blas)
        _take_row_products(blas)
        return name
    return None


def _take_row_products(blas: ctypes.CDLL) -> None:
    """Have MLX call another function of ours for products of few rows, if that is compiled."""
    mlx, product = _file_of("mlx", "libmlx.so"), row_products.product(blas)
    if mlx is None or product is None:
        return
    try:
        replace_imports(ctypes.CDLL(str(mlx)), mlx, {"cblas_sgemm": product})
    except (OSError, UnknownLayout) as error:
        log.info("few rows are computed as many", reason=str(error)[:200])


def _packaged() -> str | None:
    """Have MLX call the BLAS of scipy-openblas32, if it computes rightly and MLX's library is as we know it."""
    library = _file_of("scipy_openblas32", "libscipy_openblas.so")
    mlx = _file_of("mlx", "libmlx.so")
    if library is None or mlx is None:
        return None
    try:
        blas = ctypes.CDLL(str(library))
        if b"USE64BITINT" in _config(blas):
            raise UnknownLayout("its integers have 64 bits")
        functions = {name: getattr(blas, _PREFIX + name) for name in _PRODUCTS}
        if not all(_multiplies(functions[name], number) for name, number in _REAL.items()):
            raise UnknownLayout("it computes something else")
        addresses = {name: ctypes.cast(function, ctypes.c_void_p).value or 0 for name, function in functions.items()}
        if product := row_products.product(blas, _PREFIX):
            addresses["cblas_sgemm"] = product
        replace_imports(ctypes.CDLL(str(mlx)), mlx, addresses)
    except (OSError, AttributeError, UnknownLayout) as error:
        log.info("the BLAS of a package cannot be used", package=_PACKAGE, reason=str(error)[:200])
        return None
    threads.manage(blas)
    return _PACKAGE


def _file_of(package: str, name: str) -> Path | None:
    """Where a package, which is not imported, has a library."""
    spec = find_spec(package)
    locations = spec.submodule_search_locations if spec is not None else None
    paths = [Path(location) / "lib" / name for location in locations or ()]
    return next((path for path in paths if path.is_file()), None)


def _config(blas: ctypes.CDLL) -> bytes:
    """How an OpenBLAS was built, in its own words."""
    function = getattr(blas, f"{_PREFIX}openblas_get_config")
    function.restype = ctypes.c_char_p
    return bytes(function())


def _multiplies(function: Any, number: Any) -> bool:
    """Whether a function multiplies matrices of such numbers: 5 rows of 7 by 7 rows of 3."""
    a, b, product = (number * 35)(*range(35)), (number * 21)(*range(21)), (number * 15)(*[math.nan] * 15)
    function(_ROWS, _PLAIN, _PLAIN, 5, 3, 7, number(1), a, 7, b, 3, number(0), product, 3)
    expected = [sum(a[7 * row + k] * b[3 * k + column] for k in range(7)) for row in range(5) for column in range(3)]
    return list(product) == expected


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
