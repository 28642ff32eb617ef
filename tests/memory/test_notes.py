"""The functions that the agent's code may call."""

import os
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from app.services.memory import notes as limits
from app.services.memory.backups import FOLDER
from app.services.memory.notes import Notes
from tests.memory.conftest import Place


@pytest.fixture
def notes(place: Place) -> Iterator[Notes]:
    opened = place.notes()
    yield opened
    opened.close()


def test_a_note_is_created_read_updated_and_deleted(notes: Notes, place: Place) -> None:
    assert notes.create_file("people/Anna.md", "# Anna\n- city: Oslo\n") is True
    assert notes.read_file("people/Anna.md") == "# Anna\n- city: Oslo\n"
    assert notes.update_file("people/Anna.md", "Oslo", "Bergen") is True
    assert (place.memory / "people" / "Anna.md").read_text() == "# Anna\n- city: Bergen\n"
    assert notes.delete_file("people/Anna.md") is True
    assert notes.delete_file("people/Anna.md") is False
    assert notes.check_if_dir_exists("people") is True


def test_creating_again_writes_over(notes: Notes) -> None:
    notes.create_file("user.md", "one")
    notes.create_file("user.md", "two")
    assert notes.read_file("user.md") == "two"


def test_only_the_first_occurrence_is_replaced(notes: Notes) -> None:
    notes.create_file("a.md", "x x")
    notes.update_file("a.md", "x", "y")
    assert notes.read_file("a.md") == "y x"


@pytest.mark.parametrize(
    ("function", "args", "says"),
    [
        ("read_file", ["nope.md"], "Error: file nope.md does not exist"),
        ("read_file", ["people"], "Error: people is not a file"),
        ("read_file", ["bytes.md"], "Error: bytes.md is not a text file"),
        ("read_file", ["big.md"], "Error: file too large"),
        ("read_file", [""], "Error: that is the memory itself, not a file in it"),
        ("read_file", ["user.md/x"], "Error: file user.md/x does not exist"),
        ("update_file", ["nope.md", "a", "b"], "Error: file nope.md does not exist"),
        ("update_file", ["user.md", "zzz", "b"], "Error: old_content is not in user.md"),
        ("update_file", ["user.md", "", "b"], "Error: old_content is empty"),
        ("go_to_link", ["[[nope]]"], "Error: file nope.md does not exist"),
        ("go_to_link", [3], "Error: a link is a str"),
    ],
)
def test_errors_are_texts_that_say_what_is_wrong(
    notes: Notes, place: Place, function: str, args: list[Any], says: str
) -> None:
    (place.memory / "people").mkdir()
    (place.memory / "user.md").write_text("hello")
    (place.memory / "bytes.md").write_bytes(b"\xff\xfe")
    (place.memory / "big.md").write_bytes(b"x" * (limits.MOST_IN_FILE + 1))
    assert notes.call(function, args, {}) == says


def test_links_lead_to_notes(notes: Notes) -> None:
    notes.create_file("people/Anna.md", "# Anna\n")
    bracketed = ("[[people/Anna]]", " [[people/Anna.md]] ", "[[people/Anna|my sister]]", "[[people/Anna#born]]")
    for link in (*bracketed, "people/Anna", "people/Anna.md"):
        assert notes.go_to_link(link) == "# Anna\n"


def test_the_tree_is_drawn_without_hidden_files(notes: Notes, place: Place) -> None:
    notes.create_file("user.md", "x")
    notes.create_file("people/Anna.md", "x")
    notes.create_file("people/old/Bo.md", "x")
    notes.create_dir("empty")
    (place.memory / ".git").mkdir()
    (place.memory / "__pycache__").mkdir()
    (place.memory / "link.md").symlink_to("user.md")
    assert notes.list_files() == (
        "./\n├── empty/ (empty)\n├── people/\n│   ├── old/\n│   │   └── Bo.md\n│   └── Anna.md\n└── user.md"
    )


def test_an_empty_memory_is_a_tree_too(notes: Notes) -> None:
    assert notes.list_files() == "./"


def test_existence_and_sizes(notes: Notes) -> None:
    notes.create_file("people/Anna.md", "12345")
    notes.create_file("user.md", "123")
    assert notes.check_if_file_exists("user.md") is True
    assert notes.check_if_file_exists("people") is False
    assert notes.check_if_dir_exists("people") is True
    assert notes.check_if_dir_exists("user.md") is False
    assert notes.check_if_dir_exists("") is True
    assert (notes.get_size("user.md"), notes.get_size("people"), notes.get_size("")) == (3, 5, 8)
    with pytest.raises(FileNotFoundError):
        notes.get_size("nope.md")


def test_a_file_over_the_limit_is_not_written_and_what_was_there_stays(notes: Notes) -> None:
    notes.create_file("user.md", "before")
    large = "x" * (limits.MOST_IN_FILE + 1)
    with pytest.raises(ValueError, match="file too large"):
        notes.create_file("user.md", large)
    assert str(notes.update_file("user.md", "before", large)).startswith("Error: file too large")
    assert notes.read_file("user.md") == "before"
    assert notes.create_file("full.md", "x" * limits.MOST_IN_FILE) is True


def test_a_folder_and_the_memory_have_limits(notes: Notes, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        notes.create_file(f"folder/{number}.md", "x" * limits.MOST_IN_FILE)
    with pytest.raises(ValueError, match="folder full"):
        notes.create_file("folder/sub/more.md", "x")
    assert not (place.memory / "folder" / "sub").exists()
    notes.create_file("folder/9.md", "x" * 10)  # smaller than it was
    monkeypatch.setattr(limits, "MOST_IN_MEMORY", notes.get_size("") + 5)
    with pytest.raises(ValueError, match="memory full"):
        notes.create_file("other.md", "123456")
    monkeypatch.setattr(limits, "MOST_ENTRIES", 12)
    assert notes.create_dir("one") is True
    assert notes.create_dir("two/three") is False
    with pytest.raises(ValueError, match="memory full"):
        notes.create_file("b.md")


def test_wrong_arguments_are_said_without_our_insides(notes: Notes) -> None:
    with pytest.raises(TypeError, match=r"^create_file\(\) missing a required argument: 'file_path'$"):
        notes.call("create_file", [], {})
    with pytest.raises(TypeError, match="a path is a str, not int"):
        notes.call("create_file", [1], {})
    with pytest.raises(TypeError, match="content is a str, not bytes"):
        notes.call("create_file", ["a.md", b"x"], {})
    with pytest.raises(NameError):
        notes.call("close", [], {})
    with pytest.raises(NameError):
        notes.call("_read", [("a",)], {})


def test_a_new_note_is_its_owners_alone_and_an_old_one_keeps_its_mode(notes: Notes, place: Place) -> None:
    notes.create_file("new.md", "x")
    (place.memory / "old.md").write_text("x")
    (place.memory / "old.md").chmod(0o644)
    notes.create_file("old.md", "y")
    modes = {name: stat.S_IMODE((place.memory / name).stat().st_mode) for name in ("new.md", "old.md")}
    assert modes == {"new.md": 0o600, "old.md": 0o644}


def test_nothing_half_written_is_left(notes: Notes, place: Place) -> None:
    (place.memory / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        notes.create_file("folder", "x")
    notes.create_file("a.md", "x")
    assert sorted(os.listdir(place.memory)) == [FOLDER, "a.md", "folder"]  # noqa: PTH208
    assert os.listdir(place.memory / FOLDER) == []  # noqa: PTH208


def test_the_backup_is_the_last_content_and_undo_exchanges_the_two(notes: Notes, place: Place) -> None:
    file = place.memory / "a" / "b.md"
    notes.create_file("a/b.md", "one")
    notes.create_file("a/b.md", "two")
    notes.update_file("a/b.md", "two", "three")
    backups = place.backups()
    assert [parts for _, parts in backups.list_backups()] == [("a", "b.md")]
    assert backups.undo(("a", "b.md")) is True
    assert file.read_text() == "two"
    backups.undo(("a", "b.md"))
    assert file.read_text() == "three"
    notes.delete_file("a/b.md")
    assert backups.undo(("a", "b.md")) is True
    assert file.read_text() == "three"
    assert backups.undo(("nothing.md",)) is False


def test_undo_of_a_new_note_takes_it_away_and_brings_it_back(notes: Notes, place: Place) -> None:
    notes.create_file("new.md", "x")
    backups = place.backups()
    assert backups.undo(("new.md",)) is True
    assert not (place.memory / "new.md").exists()
    backups.undo(("new.md",))
    assert (place.memory / "new.md").read_text() == "x"


def test_a_note_deleted_and_written_anew_can_still_be_had_back(notes: Notes, place: Place) -> None:
    notes.create_file("user.md", "all that I know")
    notes.delete_file("user.md")
    notes.create_file("user.md", "")
    place.backups().undo(("user.md",))
    assert (place.memory / "user.md").read_text() == "all that I know"


def test_old_backups_go_when_they_are_too_many(notes: Notes, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.memory.backups._MOST_BYTES", 40)
    for number in range(10):
        notes.create_file(f"{number}.md", "x" * 10)
        notes.delete_file(f"{number}.md")
    backups = place.backups()
    backups.trim()
    assert 1 <= len(backups.list_backups()) <= 4
