"""Functions that a library imports can be replaced in it, and nothing is written where that is in doubt."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.model.import_table import UnknownLayout, import_offsets, replace_imports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is about Linux' libraries")

CALLER = "int imported(int); int twice(int n) { return 2 * imported(n); }"
IMPORTED = "int imported(int n) { return n; }"
TEN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda number: 10 * number)
ADDRESS = ctypes.cast(TEN, ctypes.c_void_p).value or 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    return tmp_path_factory.mktemp("libraries")


def library(folder: Path, name: str, *flags: str, source: str = CALLER) -> Path:
    """Compile a library; one that imports is linked with one that has what it imports."""
    imported = folder / "libimported.so"
    if not imported.exists():
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(imported)]
        subprocess.run(command, input=IMPORTED, text=True, check=True)
    path = folder / f"lib{name}.so"
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-x", "none", str(imported), *flags, "-o", str(path)]
    subprocess.run([*command, f"-Wl,-rpath,{folder}"], input=source, text=True, check=True)
    return path


@pytest.fixture(scope="module")
def lazy(folder: Path) -> Path:
    return library(folder, "lazy", "-Wl,-z,lazy")


def test_a_library_calls_the_replacement_before_its_first_call_and_after(lazy: Path) -> None:
    shutil.copy(lazy, other := lazy.with_name("libother.so"))
    for path in (lazy, other):
        loaded = ctypes.CDLL(str(path))
        if path == other:
            assert loaded.twice(7) == 14  # bound now
        replace_imports(loaded, path, {"imported": ADDRESS})
        assert loaded.twice(7) == 140


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["-Wl,-z,relro,-z,now"], "cannot be written"),
        (["-fno-plt", "-Wl,-z,relro,-z,now"], "no table of imports"),
    ],
)
def test_a_table_that_is_read_only_is_left_alone(folder: Path, flags: list[str], reason: str) -> None:
    path = library(folder, f"strict{len(flags)}", *flags)
    loaded = ctypes.CDLL(str(path))
    with pytest.raises(UnknownLayout, match=reason):
        replace_imports(loaded, path, {"imported": ADDRESS})
    assert loaded.twice(7) == 14


def test_of_several_functions_all_are_replaced_or_none(lazy: Path, folder: Path) -> None:
    path = shutil.copy(lazy, folder / "libnone.so")
    loaded = ctypes.CDLL(str(path))
    with pytest.raises(UnknownLayout, match="does not import missing"):
        replace_imports(loaded, path, {"imported": ADDRESS, "missing": ADDRESS})
    assert loaded.twice(7) == 14


def test_a_library_that_is_not_loaded_from_that_file_is_left_alone(lazy: Path, folder: Path) -> None:
    path = shutil.copy(lazy, folder / "libfirst.so")
    elsewhere = shutil.copy(lazy, folder / "libsecond.so")
    loaded = ctypes.CDLL(str(path))
    with pytest.raises(UnknownLayout, match="cannot be written"):
        replace_imports(loaded, elsewhere, {"imported": ADDRESS})
    assert loaded.twice(7) == 14


def test_what_has_no_imports_says_so(folder: Path) -> None:
    own = library(
        folder, "own", source="static int imported(int n) { return n; } int twice(int n) { return imported(n); }"
    )
    assert "imported" not in offsets(own)
    (script := folder / "libscript.so").write_text("INPUT(libm.so.6)")
    (empty := folder / "libempty.so").touch()
    for path in (script, empty, folder / "libmissing.so", folder):
        with pytest.raises(UnknownLayout):
            import_offsets(path)


def offsets(path: Path) -> dict[str, int]:
    """The imports, none where there is no table."""
    try:
        return import_offsets(path)
    except UnknownLayout:
        return {}


@settings(max_examples=300, deadline=None)
@given(cut=st.integers(0, 20_000), flips=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=30))
def test_a_damaged_file_is_read_or_refused(lazy: Path, cut: int, flips: list[tuple[int, int]]) -> None:
    data = bytearray(lazy.read_bytes())
    for position, value in flips:
        data[position % 1024 if value % 2 else position % len(data)] = value  # the headers come first
    (damaged := lazy.with_name("libdamaged.so")).write_bytes(data[: max(1, len(data) - cut)])
    offsets(damaged)
