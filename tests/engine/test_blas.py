"""Which BLAS MLX computes with, and with how many threads."""

import ctypes
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder
from hypothesis import given
from hypothesis import strategies as st

from app.services.engine.model import row_products
from app.services.engine.model.blas import preload, threads

Product = Callable[..., None]
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


@pytest.fixture(scope="module")
def product() -> Product:
    """The function that takes the place of cblas_sgemm."""
    if not row_products.is_compiled():
        pytest.skip("nothing is compiled: there was no C compiler when the server was installed")
    address = row_products.product(ctypes.CDLL(preload()))
    if address is None:
        pytest.skip("there is no OpenBLAS")
    number, pointer = ctypes.c_int, ctypes.c_void_p
    types = [*[number] * 6, ctypes.c_float, pointer, number, pointer, number, ctypes.c_float, pointer, number]
    return ctypes.CFUNCTYPE(None, *types)(address)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 20), st.integers(1, 400), st.integers(1, 400)),
        st.tuples(st.integers(1, 17), st.integers(300, 700), st.integers(300, 700)),
    ),
    padding=st.tuples(*[st.integers(0, 3)] * 3),
    transposed=st.tuples(st.booleans(), st.booleans()),
    factors=st.sampled_from([(1.0, 0.0), (0.5, 1.0), (-2.0, 0.25)]),
    by_columns=st.booleans(),
)
def test_a_product_of_few_rows_is_that_of_numpy(
    product: Product,
    shape: tuple[int, int, int],
    padding: tuple[int, int, int],
    transposed: tuple[bool, bool],
    factors: tuple[float, float],
    by_columns: bool,
) -> None:
    """Also between strangers: rows lie apart, and what lies between them stays as it is."""
    rows, columns, inner = shape
    sizes = [(inner, rows) if transposed[0] else (rows, inner), (columns, inner) if transposed[1] else (inner, columns)]
    random = np.random.default_rng(1)

    def matrix(size: tuple[int, int], space: int) -> tuple[np.ndarray, np.ndarray]:
        height, width = size[::-1] if by_columns else size
        whole = random.standard_normal((height, width + space)).astype(np.float32)
        part = whole[:, :width]
        return whole, part.T if by_columns else part

    (a, left), (b, right), (c, result) = map(matrix, [*sizes, (rows, columns)], padding)
    before, expected = (
        c.copy(),
        factors[0] * ((left.T if transposed[0] else left) @ (right.T if transposed[1] else right)),
    )
    expected = expected + factors[1] * result
    flags = [112 if flag else 111 for flag in transposed]
    pointers = [(array.ctypes.data, array.shape[1]) for array in (a, b, c)]
    product(
        102 if by_columns else 101, *flags, *shape, factors[0], *pointers[0], *pointers[1], factors[1], *pointers[2]
    )
    assert np.allclose(result, expected, rtol=1e-4, atol=1e-3)
    width = rows if by_columns else columns
    assert np.array_equal(c[:, width:], before[:, width:])


def test_a_library_of_other_sources_is_not_used(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as an older one, where the server is run from its sources: its functions may have other arguments."""
    for path in row_products._LIBRARY.parent.glob("*row_products*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(row_products, "_LIBRARY", tmp_path / row_products._LIBRARY.name)
    monkeypatch.setattr(row_products, "_library", row_products._library.__wrapped__)
    assert row_products.is_compiled()
    with (tmp_path / "row_products.c").open("a") as source:
        source.write("\n")
    assert not row_products.is_compiled()
    assert row_products.product(ctypes.CDLL(preload())) is None


@given(count=st.integers(1, 16), size=st.tuples(st.integers(1, 3000), st.integers(1, 700)))
def test_a_row_is_the_same_alone_and_beside_others(product: Product, count: int, size: tuple[int, int]) -> None:
    """To the last bit, however many threads compute it."""
    random = np.random.default_rng(count)
    weights = random.standard_normal(size).astype(np.float32)
    rows = random.standard_normal((count, size[1])).astype(np.float32)
    together = multiply(product, rows, weights)
    for index in range(count):
        assert np.array_equal(multiply(product, rows[index : index + 1], weights)[0], together[index])


def test_products_of_several_threads_at_once_are_right(product: Product) -> None:
    random = np.random.default_rng(0)
    weights = [random.standard_normal((size, 640)).astype(np.float32) for size in (2000, 3000, 5000)]
    rows = random.standard_normal((3, 640)).astype(np.float32)
    expected = [multiply(product, rows, one) for one in weights]

    def repeat(index: int) -> bool:
        return all(np.array_equal(multiply(product, rows, weights[index]), expected[index]) for _ in range(200))

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(repeat, range(3)))


def multiply(product: Product, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """rows @ weights.T by that function."""
    result = np.full((len(rows), len(weights)), np.nan, np.float32)
    (count, inner), columns = rows.shape, len(weights)
    pointers = rows.ctypes.data, inner, weights.ctypes.data, inner
    product(101, 111, 112, count, columns, inner, 1.0, *pointers, 0.0, result.ctypes.data, columns)
    return result


@linux
@pytest.mark.parametrize("compiler", ["", "false", "/no/such/cc"])
def test_the_wheel_has_the_products_where_there_is_a_compiler(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiler and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler")
    root = tmp_path / "source"
    shutil.copytree(
        "app/services/engine/model", root / "app/services/engine/model", ignore=shutil.ignore_patterns("*.so")
    )
    shutil.copy("app/__init__.py", root / "app")
    for name in ("pyproject.toml", "hatch_build.py", "README.md"):
        shutil.copy(name, root)
    monkeypatch.setenv("CC", compiler)
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    libraries = [Path(name).name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    assert libraries == ([] if compiler else ["librow_products.so"])
    assert wheel.endswith("py3-none-any.whl") == bool(compiler)
    assert len(list(root.rglob("*.so*"))) == len(libraries)
