"""A picture that goes along with a message, to a model that sees.

What the demo model sees is the picture that README shows: build/e2e/picture.png, kept as docs/images/picture.png.
"""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests import vision_models
from tests.conftest import Server, running
from tests.e2e.conftest import PICTURES, Visit
from tests.pictures import shapes


@pytest.fixture(scope="module")
def seeing(ui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = vision_models.build(tmp_path_factory.mktemp("models") / "seeing")
    with running(tmp_path_factory.mktemp("seeing"), "--model", str(folder), "--webui", str(ui)) as server:
        yield server
        assert server.errors() == []


def test_an_attached_picture_arrives_and_is_answered(seeing: Server, visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "squares.png").write_bytes(base64.b64decode(vision_models.png(1, width=160, height=120)))
    person = visit(seeing)
    person.opens()
    person.page.locator("input[type=file]").set_input_files(tmp_path / "squares.png")
    expect(person.page.get_by_alt_text("squares.png")).to_be_visible()
    person.asks("What is this?")
    (message,) = person.wire.chat.body["messages"]
    (picture,) = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    assert picture.startswith("data:image/png;base64,")
    assert person.wire.chat.status == 200
    assert person.wire.chat.said()
    without = seeing.client.post(
        "/v1/chat/completions/input_tokens", json={"messages": [{"role": "user", "content": "What is this?"}]}
    ).json()["input_tokens"]
    timings = [event["timings"] for event in person.wire.chat.events if "timings" in event][-1]
    first = timings["cache_n"] + timings["prompt_n"]
    assert first > without + 4
    person.asks("And now?")
    again = [event["timings"] for event in person.wire.chat.events if "timings" in event][-1]
    assert again["cache_n"] >= first
    person.page.reload()
    expect(person.page.get_by_alt_text("squares.png").first).to_be_visible()


def test_the_demo_model_says_what_is_in_an_attached_picture(demo: Server, visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "drawing.png").write_bytes(base64.b64decode(shapes("red circle", "blue star")))
    person = visit(demo)
    person.opens()
    person.page.locator("input[type=file]").set_input_files(tmp_path / "drawing.png")
    expect(person.page.get_by_alt_text("drawing.png")).to_be_visible()
    assert person.asks("What do you see?") == "A red circle and a blue star."
    assert person.asks("What is left of the blue star?") == "A red circle."
    assert person.asks("How many shapes are there?") == "Two."
    person.scrolls_to(person.page.get_by_alt_text("drawing.png").first)
    person.keeps_a_picture(PICTURES / "picture.png")
