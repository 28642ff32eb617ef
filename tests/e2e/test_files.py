"""Files that go along with a message."""

from pathlib import Path

from playwright.sync_api import expect

from tests.conftest import Server, running
from tests.e2e.conftest import Visit


def test_a_text_file_is_read(demo: Server, visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("The password of the garden is kumquat.\n")
    person = visit(demo)
    person.opens()
    person.page.locator("input[type=file]").set_input_files(tmp_path / "note.txt")
    person.sees("note.txt")
    person.writes("Hello")
    expect(person.answer).to_be_visible()
    (message,) = person.wire.chat.body["messages"]
    parts = [part["text"] for part in message["content"]]
    assert "--- File: note.txt ---" in parts[0]
    assert "kumquat" in parts[0]
    assert parts[-1] == "Hello"


def test_an_image_is_refused_where_nothing_can_see_it(tiny: Path, ui: Path, visit: Visit, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny), "--webui", str(ui)) as unseeing:
        person = visit(unseeing)
        person.opens()
        person.keeps_a_picture(tmp_path / "image.png")
        person.page.locator("input[type=file]").set_input_files(tmp_path / "image.png")
        expect(person.dialog).to_contain_text("File Upload Error")
        expect(person.dialog).to_contain_text("image.png")
        assert person.wire.last("/props").status == 200
        assert person.wire.chats == []
