"""The real Web UI in a real browser, on real servers with the demo model."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import Server, running
from tests.e2e.build import built_ui
from tests.e2e.person import PATIENCE, Person

PICTURES = Path(__file__).parents[2] / "build" / "e2e"
SETTINGS = {"temperature": 0, "max_tokens": 48}  # the same answer each time, and an end to each

Visit = Callable[..., Person]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("TILES_E2E_BROWSER") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def ui() -> Path:
    """The built Web UI."""
    return built_ui()


@pytest.fixture(scope="session")
def demo(ui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the demo model and the UI. Whatever happens in the browser, it may log no error."""
    with running(tmp_path_factory.mktemp("demo"), "--demo", "--webui", str(ui)) as server:
        yield server
        assert server.errors() == []


@pytest.fixture
def visit(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Let somebody come with a fresh browser profile; at the end there is a picture, and the console was silent."""
    people: list[Person] = []
    with ExitStack() as contexts:

        def come(server: Server, *, keeps_settings: bool = True, **settings: Any) -> Person:
            context = browser.new_context(
                viewport={"width": 1280, "height": 800}, locale="en-GB", timezone_id="Europe/Berlin"
            )
            contexts.callback(context.close)
            person = Person(context.new_page(), server.url, SETTINGS | settings if keeps_settings else {})
            people.append(person)
            return person

        yield come
        for person in people:
            person.keeps_a_picture(PICTURES / f"{picture_name(request.node.name, people.index(person))}.png")
    assert [complaint for person in people for complaint in person.complaints] == []


def picture_name(test: str, number: int) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", test.removeprefix("test_").lower()).strip("-")
    return f"{name}-{number + 1}" if number else name
