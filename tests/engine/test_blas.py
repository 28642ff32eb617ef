"""How many threads the BLAS computes with."""

import ctypes
import subprocess
import sys
from ctypes.util import find_library

import pytest

from app.services.engine.model.blas import preload, threads


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


def test_without_such_a_library_nothing_happens() -> None:
    others = type(threads)()
    others.manage(ctypes.CDLL(find_library("c")))
    others.reserve_cores(1)
    with others.all():
        pass
