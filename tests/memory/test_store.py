"""The file that keeps a conversation: whole, for its owner, and only for its session."""

import json
import stat
from pathlib import Path

import pytest

from app.services import session
from app.services.memory import store
from app.services.memory.conversation import Conversation
from app.services.session import Session

SESSION = Session("model", "/models/model", "/notes", "Be brief.")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    conversation = Conversation()
    conversation.begin("", "My name is Ädä. \u2028")
    conversation.answer("<reply>Hello</reply>")
    conversation.begin("", "two")
    path = session.conversation_file(tmp_path / "folder" / "server_session.json")
    store.write(path, SESSION, conversation)
    return path


def test_it_lies_beside_the_session_file_for_its_owner_alone(file: Path) -> None:
    assert file.name == "server_session.conversation.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_it_comes_back_with_its_turns(file: Path) -> None:
    kept = store.read(file, SESSION)
    assert kept is not None
    assert len(kept.turns) == 2
    assert [(m.role, m.content) for m in kept.messages()] == [
        ("user", "My name is Ädä. \u2028"),
        ("assistant", "<reply>Hello</reply>"),
        ("user", "two"),
    ]


def test_another_session_does_not_get_it(file: Path) -> None:
    assert store.read(file, Session("model", "/models/model", "/other-notes", "Be brief.")) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": 1}', "\x00", "[" * 100_000, "null"])
def test_a_file_that_is_torn_or_anothers_is_ignored_and_left(file: Path, content: str) -> None:
    file.write_text(content)
    assert store.read(file, SESSION) is None
    assert file.read_text() == content


def test_a_newer_file_is_not_read(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 2}))
    assert store.read(file, SESSION) is None


def test_what_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store.write(tmp_path / "file" / "x.json", SESSION, Conversation())
    session.forget_conversation(tmp_path / "nothing.json")
