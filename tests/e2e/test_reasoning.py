"""Thinking aloud, and not any longer."""

import json
import re

from playwright.sync_api import expect

from tests.conftest import Server
from tests.e2e.conftest import Visit
from tests.e2e.person import Person
from tests.e2e.test_chat import SONG


def chooses_effort(person: Person, effort: str) -> None:
    person.presses("Add files, prompts, tools or MCP Servers")
    # at its left end: in its middle the tooltip of the item below lies over it
    person.page.get_by_role("menuitem", name="Reasoning").hover(position={"x": 12, "y": 12})
    person.page.get_by_role("menuitem", name=re.compile(f"^{effort}")).click()


def test_reasoning_has_a_block_of_its_own(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    chooses_effort(person, "Low")
    person.asks("Hello")
    sent = person.wire.chat
    assert sent.body["chat_template_kwargs"] == {"enable_thinking": True}
    assert (sent.body["thinking_budget_tokens"], sent.body["reasoning_control"]) == (512, True)
    thought = sent.said("reasoning_content").strip()
    assert thought
    assert "<think>" not in sent.said()
    person.answer.get_by_role("button", name=re.compile("^Reasoning")).click()
    expect(person.answer).to_contain_text(thought)
    assert person.text.inner_text().strip() == sent.said().strip()
    person.asks("Hello")
    earlier = person.wire.chat.body["messages"][1]
    assert earlier["reasoning_content"].strip() == thought


def test_reasoning_can_be_turned_off(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    chooses_effort(person, "Off")
    person.asks("Hello")
    assert person.wire.chat.body["chat_template_kwargs"] == {"enable_thinking": False}
    assert person.wire.chat.said("reasoning_content") == ""


def test_reasoning_that_takes_too_long_is_skipped(demo: Server, visit: Visit) -> None:
    tags = demo.client.post("/tokenize", json={"content": "<think></think>"}).json()["tokens"]
    assert len(tags) == 2
    # it thinks until somebody ends that, and then sings, which a grammar asks of answers and not of thoughts
    endless = {"logit_bias": [[tag, False] for tag in tags], "tools": None}
    person = visit(demo, customJson=json.dumps(json.loads(SONG) | endless), max_tokens=1200)
    person.opens()
    chooses_effort(person, "Max")
    person.writes("Hello")
    skip = person.page.get_by_role("button", name="Skip reasoning", exact=True)
    expect(skip).to_be_visible()
    skip.dispatch_event("click")  # at once: where the page is slow, it moves until the answer is over
    answer = person.reads()
    control = person.wire.last("/v1/chat/completions/control")
    assert (control.status, json.loads(control.answer)["success"]) == (200, True)
    assert control.body["action"] == "reasoning_end"
    assert control.body["id"] == person.wire.chat.events[0]["id"]
    assert person.wire.chat.said("reasoning_content")
    assert answer == person.wire.chat.said().strip()
    assert answer.startswith("tra la la, ")
