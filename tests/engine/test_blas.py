"""Which BLAS MLX computes with, and with how many threads."""

import ctypes
import subprocess
import sys
from ctypes.util import find_library

import pytest

from app.services.engine.model.blas import preload, threads

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX has a fast BLAS")


@pytest.fixture
def openblas() -> ctypes.CDLL:
    name = preload()
    library = ctypes.CDLL(name) if name else None
    if library is None or not hasattr(library, "openblas_get_num_threads"):
        pytest.skip("there is no OpenBLAS")
    threads.reserve_cores(0)  # whoever computed before may have left some to others
    return library


def test_cores_are_reserved_and_given_back_but_one_always_computes(openblas: ctypes.CDLL) -> None:
    every = openblas.openblas_get_num_threads()
    for reserved in (1, 0, 1, every, every + 5, 0):
        threads.reserve_cores(reserved)
        assert openblas.openblas_get_num_threads() == max(1, every - reserved)
    assert every == openblas.openblas_get_num_threads()


def test_all_cores_compute_for_a_while_and_then_as_many_as_before(openblas: ctypes.CDLL) -> None:
    every = openblas.openblas_get_num_threads()
    threads.reserve_cores(1)
    with threads.all():
        assert openblas.openblas_get_num_threads() == every
    assert openblas.openblas_get_num_threads() == max(1, every - 1)
    threads.reserve_cores(0)


def test_a_library_that_the_process_has_already_stays_the_only_one(openblas: ctypes.CDLL) -> None:
    """A second one would compute with threads of its own, on the same cores."""
    script = (
        "from app.services.engine.model import blas\n"
        "from pathlib import Path\n"
        "first = blas.preload()\n"
        "blas.preload.cache_clear()\n"
        "again = blas.preload()\n"
        "lines = Path('/proc/self/maps').read_text().splitlines()\n"
        "paths = {line.split()[-1] for line in lines if 'openblas' in line}\n"
        "print(Path(again).name.startswith('libopenblas'), len(paths))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["True", "1"]


def packaged(script: str, before: str = "") -> list[str]:
    """What a script prints in a process whose system has no BLAS, after the choice; it may be disturbed before."""
    lines = (
        "from app.services.engine.model import blas",
        "blas._machines = lambda: None",
        before,
        "name = blas.preload()",
        "import mlx.core as mx, numpy as np",
        "mx.set_default_device(mx.cpu)",
        script,
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@linux
def test_without_a_system_s_blas_mlx_computes_with_the_package_s() -> None:
    """Every product that MLX leaves to a BLAS is what numpy says."""
    script = (
        "rng = np.random.default_rng(1)\n"
        "for dtype in (np.float32, np.complex64):\n"
        "    for rows, inner, columns in ((1, 640, 2000), (33, 70, 51), (256, 128, 3), (7, 1, 9)):\n"
        "        a, b = (rng.standard_normal(s).astype(dtype) for s in ((2, rows, inner), (2, inner, columns)))\n"
        "        for left, right in ((a, b), (a.transpose(0, 2, 1).copy().transpose(0, 2, 1), b)):\n"
        "            c = np.array(mx.array(left) @ mx.array(right))\n"
        "            assert np.abs(c - left @ right).max() < 1e-3, (dtype, rows)\n"
        "maps = open('/proc/self/maps').read().splitlines()\n"
        "files = {line.split()[-1] for line in maps}\n"
        "print(name, sum(f.endswith('libmlx.so') for f in files), sum('libscipy_openblas.so' in f for f in files))"
    )
    assert packaged(script) == ["scipy-openblas32", "1", "1"]


@linux
def test_the_threads_of_the_package_s_blas_are_managed() -> None:
    script = (
        "library = __import__('ctypes').CDLL(str(blas._file_of('scipy_openblas32', 'libscipy_openblas.so')))\n"
        "count = library.scipy_openblas_get_num_threads\n"
        "library.scipy_openblas_set_num_threads(3)\n"
        "others = type(blas.threads)()\n"
        "others.manage(library)\n"
        "others.reserve_cores(1)\n"
        "print(count())\n"
        "with others.all(): print(count())\n"
        "print(count())"
    )
    assert packaged(script) == ["2", "3", "2"]


@linux
@pytest.mark.parametrize(
    "broken",
    [
        "blas._multiplies = lambda *_: False",
        "blas._config = lambda _: b'OpenBLAS USE64BITINT'",
        "blas._PRODUCTS = ('cblas_sgemm', 'cblas_hgemm')",
        "blas._file_of = lambda package, name: None",
        "blas._file_of = lambda package, name, real=blas._file_of: real('scipy_openblas32', 'libscipy_openblas.so')",
        "blas._file_of = lambda package, name: __import__('pathlib').Path(__import__('os').devnull)",
    ],
)
def test_a_blas_in_doubt_is_not_used(broken: str) -> None:
    """Whatever is not as it should be, the server computes with what it has."""
    script = "print(name, (mx.array([[1.0, 2.0]]) @ mx.array([[3.0], [4.0]])).item())"
    assert packaged(script, broken)[-2:] == ["reference", "11.0"]


@linux
def test_the_choice_decides_what_is_used() -> None:
    script = "print(blas.preload('system'), blas.preload('none'))"
    assert packaged(script) == ["reference", "reference"]


def test_without_such_a_library_nothing_happens() -> None:
    others = type(threads)()
    others.manage(ctypes.CDLL(find_library("c")))
    others.reserve_cores(1)
    with others.all():
        pass
