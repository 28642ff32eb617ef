import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.services import session
from app.services.session import Session

SAVED = Session(
    model="org/tiny", model_cache_path="/models/tiny", memory_path="/memory", system_prompt="Sei höflich. 🙂"
)
OBJECT = {"model": "m", "model_cache_path": "p", "memory_path": "", "system_prompt": "s"}


def warnings_of(path: Path) -> list[str]:
    with capture_logs() as logs:
        assert session.read(path) is None
    return [entry["event"] for entry in logs if entry["log_level"] == "warning"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert session.write(tmp_path / "s.json", SAVED)
    assert session.read(tmp_path / "s.json") == SAVED


def test_the_file_is_an_object_of_exactly_the_four_strings(tmp_path: Path) -> None:
    session.write(tmp_path / "s.json", SAVED)
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "model": "org/tiny",
        "model_cache_path": "/models/tiny",
        "memory_path": "/memory",
        "system_prompt": "Sei höflich. 🙂",
    }


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    session.write(tmp_path / "new" / "s.json", SAVED)
    assert (tmp_path / "new" / "s.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_an_absent_file_is_no_session_and_no_warning(tmp_path: Path) -> None:
    assert warnings_of(tmp_path / "s.json") == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        json.dumps(OBJECT).encode()[:-1],
        json.dumps(OBJECT | {"model": 1}).encode(),
        json.dumps(OBJECT | {"model": None}).encode(),
        json.dumps(OBJECT | {"more": "x"}).encode(),
        json.dumps({key: OBJECT[key] for key in list(OBJECT)[:3]}).encode(),
    ],
)
def test_a_file_that_is_no_session_is_ignored_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.json").write_bytes(content)
    assert warnings_of(tmp_path / "s.json") == ["session file ignored"]
    assert (tmp_path / "s.json").read_bytes() == content


def test_a_warning_keeps_what_the_file_says_to_itself(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(OBJECT | {"system_prompt": ["a secret"]}))
    with capture_logs() as logs:
        session.read(tmp_path / "s.json")
    assert "a secret" not in repr(logs)


def test_folders_devices_and_pipes_are_neither_read_nor_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        assert warnings_of(path) == ["session file ignored"]
        assert not session.write(path, SAVED)
        assert not path.is_file()


@pytest.mark.parametrize("place", ["file/s.json", "s" * 300])
def test_a_place_that_cannot_be_written_is_a_warning(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with capture_logs() as logs:
        assert not session.write(tmp_path / place, SAVED)
    assert [entry["event"] for entry in logs] == ["session not saved"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_session_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    session.write(tmp_path / "s.json", SAVED)
    monkeypatch.setattr(*{"fsync": (os, "fsync", full), "replace": (Path, "replace", full)}[step])
    assert not session.write(tmp_path / "s.json", Session("other"))
    assert session.read(tmp_path / "s.json") == SAVED
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_a_linked_session_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "s.json")
    session.write(tmp_path / "link.json", SAVED)
    assert (tmp_path / "link.json").is_symlink()
    assert session.read(tmp_path / "s.json") == SAVED


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*OBJECT, "x"]), inner, max_size=5),
    max_leaves=8,
)


@settings(deadline=None)
@given(content=st.binary(max_size=99) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_content_is_a_session_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    found = session.read(path)
    assert found is None or json.loads(content) == {name: getattr(found, name) for name in OBJECT}


@settings(deadline=None)
@given(st.builds(Session, *[st.text(max_size=20)] * 4))
def test_any_session_survives_the_file(tmp_path_factory: pytest.TempPathFactory, saved: Session) -> None:
    path = tmp_path_factory.getbasetemp() / "survives.json"
    assert session.write(path, saved)
    assert session.read(path) == saved
