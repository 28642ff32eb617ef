"""Several models, each loaded when it is wanted."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.conftest import Server, running
from tests.e2e.conftest import Visit
from tests.e2e.person import Person

NANO = Path(__file__).parents[2] / "app" / "tiles_nano"


@pytest.fixture(scope="module")
def router(ui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A router over two models, which are the demo model twice."""
    models = tmp_path_factory.mktemp("several")
    for name in ("first", "second"):
        shutil.copytree(NANO, models / name)
    home = tmp_path_factory.mktemp("router")
    with running(home, "--models-dir", str(models), "--webui", str(ui)) as server:
        yield server
        assert server.errors() == []


def test_models_are_loaded_by_a_chat_and_switched(router: Server, visit: Visit) -> None:
    person = visit(router)
    person.opens()
    assert person.wire.last("/props", "GET").query == "autoload=false"
    assert statuses(router) == {"first": "unloaded", "second": "unloaded"}
    person.asks("Hello")
    assert person.wire.chat.body["model"] == "first"
    assert {event["model"] for event in person.wire.chat.events} == {"first"}
    chooses(person, "first", "second")
    person.asks("Hello")
    assert person.wire.chat.body["model"] == "second"
    assert person.wire.chat.headers["x-conversation-id"].endswith("::second")
    assert {event["model"] for event in person.wire.chat.events} == {"second"}
    assert statuses(router) == {"first": "loaded", "second": "loaded"}
    loads = person.wire.calls("/models/load", "POST")
    assert [call.body["model"] for call in loads] == ["second"]
    (feed,) = person.wire.calls("/models/sse", "GET")
    assert feed.status == 200


def chooses(person: Person, shown: str, wanted: str) -> None:
    selector = person.page.locator("form")
    selector.get_by_role("button", name=shown, exact=True).click()
    person.page.get_by_role("option", name=wanted).click()
    expect(selector.get_by_role("button", name=wanted, exact=True)).to_be_visible()


def statuses(router: Server) -> dict[str, str]:
    return {row["id"]: row["status"]["value"] for row in router.client.get("/v1/models").json()["data"]}
