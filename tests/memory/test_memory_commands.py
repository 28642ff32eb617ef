"""tiles-server memory: what people do with the notes."""

import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.commands.cli import cli
from app.services import session
from app.services.session import Session
from tests.memory.conftest import Place


@pytest.fixture
def written(place: Place) -> Place:
    notes = place.notes()
    notes.create_file("people/Ada.md", "one")
    notes.create_file("people/Ada.md", "two")
    notes.create_file("gone.md", "x")
    notes.delete_file("gone.md")
    notes.close()
    return place


def run(place: Place, *args: str) -> Result:
    return CliRunner().invoke(cli, ["memory", "--path", str(place.memory), *args])


def test_ls_lists_notes_and_what_was_deleted(written: Place) -> None:
    listed = run(written, "ls").output.splitlines()
    assert [line.split()[-1] for line in listed] == ["people/Ada.md", "gone.md"]
    assert "deleted" in listed[1]


def test_ls_of_an_empty_memory_says_so(place: Place) -> None:
    assert run(place, "ls").output == "There are no notes.\n"


def test_show_prints_a_note(written: Place) -> None:
    assert run(written, "show", "people/Ada.md").output == "two"


def test_undo_goes_back_and_forth(written: Place) -> None:
    note = written.memory / "people" / "Ada.md"
    assert "is restored" in run(written, "undo", "people/Ada.md").output
    assert note.read_text() == "one"
    run(written, "undo", "people/Ada.md")
    assert note.read_text() == "two"
    assert run(written, "undo", "gone.md").exit_code == 0
    assert (written.memory / "gone.md").read_text() == "x"


def test_export_writes_a_zip_and_never_over_a_file(written: Place) -> None:
    archive = written.around / "notes.zip"
    assert "1 notes" in run(written, "export", str(archive)).output
    with zipfile.ZipFile(archive) as zipped:
        assert {name: zipped.read(name) for name in zipped.namelist()} == {"people/Ada.md": b"two"}
    assert "exists already" in run(written, "export", str(archive)).output


@pytest.mark.parametrize("command", ["show", "undo"])
@pytest.mark.parametrize("note", ["../outside/secret.md", "nope.md", "", ".tiles-backup/x", "people"])
def test_a_wrong_note_is_one_line_and_an_exit_code(written: Place, command: str, note: str) -> None:
    ended = run(written, command, note)
    assert ended.exit_code == 1
    assert len(ended.output.splitlines()) == 1
    assert ended.output.startswith("Error: ")


def test_the_folder_is_that_of_the_last_session(written: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written.around / "session.json"
    monkeypatch.setenv("TILES_SESSION_FILE", str(file))
    refused = CliRunner().invoke(cli, ["memory", "ls"])
    assert (refused.exit_code, "--path" in refused.output) == (1, True)
    session.write(file, Session("model", memory_path=str(written.memory)))
    assert "people/Ada.md" in CliRunner().invoke(cli, ["memory", "ls"]).output
    missing = CliRunner().invoke(cli, ["memory", "--path", str(Path("/nowhere/at/all")), "ls"])
    assert (missing.exit_code, missing.output) == (1, "Error: /nowhere/at/all: No such file or directory\n")
