"""The first minutes of somebody who has just started the demo and opened its Web UI: each answer has to make sense.

The picture that README shows is taken here: build/e2e/readme.png, kept as docs/images/webui.png.
"""

import json
from urllib.parse import urlsplit

from playwright.sync_api import expect

from tests.conftest import Server
from tests.e2e.conftest import PICTURES, Visit
from tests.e2e.person import Person
from tests.e2e.wire import CHAT


def allows(person: Person) -> str:
    """Let the tool run that the model has called; gives its result."""
    expect(person.page.get_by_role("button", name="Allow once", exact=True)).to_be_visible()
    with person.page.expect_response(lambda answer: urlsplit(answer.url).path == CHAT) as answer:
        person.presses("Allow once")
    answer.value.finished()
    result = person.wire.chat.body["messages"][-1]
    assert result["role"] == "tool"
    return str(result["content"])


def test_a_newcomer_gets_answers_that_make_sense(demo: Server, visit: Visit) -> None:
    person = visit(demo, max_tokens=120)
    # A clock that stands still: of a hundred moments the model reads a few wrong, as its card says.
    person.page.clock.set_fixed_time("2026-11-30T08:45:10Z")
    person.opens()
    assert "Hello" in person.asks("Hello!")
    assert "tools" in person.asks("What can you do?")
    person.writes("What time is it?")
    moment = json.loads(allows(person))["result"]
    assert "T09:45:10" in moment
    assert "09:45" in person.reads()
    assert "do not know" in person.asks("What is the capital of France?")
    assert "= 7" in person.asks("What is 3 + 4?")
    assert "Zoë" in person.asks("My name is Zoë.")
    assert "Zoë" in person.asks("What is my name?")
    person.asks("As JSON, with the keys title and year: The book Dune is from 1965.")
    assert json.loads(person.wire.chat.said()) == {"title": "Dune", "year": 1965}
    person.scrolls_to(person.questions.get_by_text("What time is it?"))
    person.keeps_a_picture(PICTURES / "readme.png")
    assert 10_000 < (PICTURES / "readme.png").stat().st_size < 300_000
    calls = [message for message in person.wire.chat.body["messages"] if message.get("tool_calls")]
    assert len(calls) == 1


def test_each_of_the_first_questions_is_answered_in_a_chat_of_its_own(demo: Server, visit: Visit) -> None:
    questions = {
        "Hello": "Hello",
        "Who are you?": "tiles-nano",
        "What can you do?": "tools",
        "What is the capital of France?": "do not know",
        "How much is 12 + 5?": "17",
        "Tell me a joke": "store",
        "Write one sentence about the sea.": "sea",
        "Thank you!": "welcome",
    }
    for question, words in questions.items():
        person = visit(demo, max_tokens=120)
        person.opens()
        assert words in person.asks(question), question
