"""Which paths lead where: judged by name alone, then held to by descriptors."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.memory import paths
from app.services.memory.paths import Refused
from tests.memory.conftest import SECRET, Place

ODD = st.sampled_from(
    [
        "..",
        ".",
        "",
        "/",
        "a",
        "people",
        "a.md",
        "...",
        ".git",
        "\\",
        "\0",
        "\u200b",
        "\uff0e\uff0e",
        "\uff0f",
        "~",
        "é",
        " ",
        "..\u2044",
    ]
)
PATHS = st.one_of(st.text(max_size=40), st.lists(ODD, max_size=8).map("/".join), st.lists(ODD, max_size=8).map("".join))
quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(PATHS)
def test_what_is_taken_is_a_list_of_plain_names(path: str) -> None:
    try:
        parts = paths.split(path)
    except Refused:
        return
    assert not path.startswith("/")
    for part in parts:
        assert part not in {"", ".", ".."}
        for spelling in (part, unicodedata.normalize("NFKC", part)):
            assert not spelling.startswith(".")
            assert not set(spelling) & {"/", "\\", "\0"}
        assert not {unicodedata.category(character) for character in part} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert len(part.encode()) <= paths.LONGEST_NAME


@quick
@given(PATHS)
def test_splitting_again_changes_nothing(path: str) -> None:
    try:
        parts = paths.split(path)
    except Refused:
        return
    assert paths.split("/".join(parts)) == parts


@quick
@given(PATHS)
def test_a_path_that_is_taken_stays_in_the_folder_as_the_system_sees_it(path: str) -> None:
    try:
        parts = paths.split(path)
    except Refused:
        return
    assert os.path.normpath(os.path.join("/memory", *parts)) == "/".join(["/memory", *parts])  # noqa: PTH118


@quick
@given(PATHS, st.sampled_from(["create_file", "create_dir", "read_file", "delete_file", "go_to_link", "get_size"]))
def test_no_path_reaches_beside_the_memory(place: Place, path: str, function: str) -> None:
    notes, before = place.notes(), place.seen()
    try:
        said = notes.call(function, [path], {})
    except (OSError, ValueError, TypeError) as error:
        said = str(error)
    notes.close()
    assert place.seen() == before
    assert SECRET not in str(said)
    assert str(place.around) not in str(said)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("user.md", ("user.md",)),
        ("./user.md", ("user.md",)),
        ("people//Anna.md", ("people", "Anna.md")),
        ("people/", ("people",)),
        ("", ()),
        ("Käse & Brot.md", ("Käse & Brot.md",)),
        ("日記/今日.md", ("日記", "今日.md")),
        ("~draft.md", ("~draft.md",)),
    ],
)
def test_ordinary_names_are_taken(path: str, parts: tuple[str, ...]) -> None:
    assert paths.split(path) == parts


def test_a_folder_that_becomes_a_link_is_not_opened(place: Place) -> None:
    (place.memory / "people").symlink_to(place.outside)
    root = paths.open_root(place.memory)
    try:
        for make in (False, True):
            with pytest.raises(OSError), paths.opened(root, ("people",), make=make):
                pass
    finally:
        os.close(root)


def test_no_descriptor_is_left_open(place: Place) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc").exists() else 0
    notes = place.notes()
    for path in ("a/b/c.md", "../x", "a/b/c.md/d", ".git", "a"):
        for function in ("create_file", "read_file", "delete_file", "create_dir", "check_if_dir_exists"):
            try:
                notes.call(function, [path], {})
            except OSError:
                continue
    notes.close()
    if Path("/proc").exists():
        assert len(list(Path("/proc/self/fd").iterdir())) == before
