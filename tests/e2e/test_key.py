"""A server with a key."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.conftest import KEY, Server, running
from tests.e2e.conftest import Visit


@pytest.fixture(scope="module")
def locked(ui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("locked"), "--demo", "--webui", str(ui), "--api-key", KEY) as server:
        yield server
        assert server.errors() == []


def test_the_key_is_asked_for_and_checked(locked: Server, visit: Visit) -> None:
    person = visit(locked)
    person.expected |= {(401, "/tools"), (401, "/props"), "Invalid API Key"}
    person.page.goto(locked.url)
    person.sees("Access denied")
    assert {call.status for call in person.wire.calls("/props")} == {401}
    person.presses("Enter API Key")
    field = person.page.get_by_role("textbox")
    field.fill("wrong")
    person.presses("Save & Retry")
    person.sees("Invalid API key")
    assert person.wire.last("/props").headers["authorization"] == "Bearer wrong"
    person.keeps_a_picture(locked.home / "wrong.png")
    field.fill(KEY)
    person.presses("Save & Retry")
    expect(person.box).to_be_visible()
    answer = person.asks("Hello")
    assert answer == person.wire.chat.said().strip() != ""
    assert person.wire.chat.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in locked.log
