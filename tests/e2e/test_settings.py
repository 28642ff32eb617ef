"""What people set, and what the operator set for them."""

import json
from pathlib import Path

from playwright.sync_api import expect

from tests.conftest import Server, running
from tests.e2e.conftest import Visit

SAMPLING = {  # nothing that the server does by itself, which the page leaves out
    "top_k": 12,
    "top_p": 0.85,
    "min_p": 0.02,
    "typ_p": 0.95,
    "xtc_probability": 0.1,
    "xtc_threshold": 0.2,
    "repeat_last_n": 32,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "dry_multiplier": 0.1,
    "dry_base": 1.8,
    "dry_allowed_length": 3,
    "dry_penalty_last_n": 48,
    "dynatemp_range": 0.1,
    "dynatemp_exponent": 1.1,
}


def test_every_sampling_field_is_taken(demo: Server, visit: Visit) -> None:
    person = visit(demo, **SAMPLING, temperature=0.7, samplers="top_k;typ_p;top_p;min_p;temperature")
    person.opens()
    person.writes("Hello")
    person.waits_for_the_end()
    sent = person.wire.chat
    assert sent.status == 200
    assert {name: sent.body[name] for name in SAMPLING} == SAMPLING
    assert sent.body["samplers"] == ["top_k", "typ_p", "top_p", "min_p", "temperature"]
    assert sent.said() or sent.said("tool_calls")


def test_a_system_message_comes_first(demo: Server, visit: Visit) -> None:
    person = visit(demo, systemMessage="You are Bobby.")
    person.opens()
    answer = person.asks("Hello")
    roles = [message["role"] for message in person.wire.chat.body["messages"]]
    assert roles == ["system", "user"]
    assert answer == person.wire.chat.said().strip() != ""


def test_a_title_is_made_by_the_model(demo: Server, visit: Visit) -> None:
    person = visit(demo, titleGenerationUseLLM=True)
    person.opens()
    person.asks("Hello")
    expect(person.page.get_by_role("navigation", name="Open conversations").get_by_role("link")).not_to_have_text(
        "Hello"
    )
    question, title = person.wire.chats
    (message,) = title.body["messages"]
    assert "User: Hello" in message["content"]
    assert title.body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "tools" not in title.body
    assert "x-conversation-id" not in title.headers
    shown = person.page.get_by_role("navigation", name="Open conversations").get_by_role("link").inner_text()
    assert title.said().strip().startswith(shown.rstrip("….").strip()[:10])
    assert question.body["messages"] == [{"role": "user", "content": "Hello"}]


def test_the_conversation_is_computed_ahead_when_that_is_wanted(demo: Server, visit: Visit) -> None:
    person = visit(demo, preEncodeConversation=True)
    person.opens()
    with person.page.expect_response(lambda answer: '"n_predict":0' in (answer.request.post_data or "")) as ahead:
        person.asks("Hello")
    assert ahead.value.status == 200
    assert person.wire.last("/slots").status == 200
    person.asks("What is your name?")
    question = [call for call in person.wire.chats if call.body["stream"]][-1]  # what follows is computed ahead, too
    timings = question.events[-1]["timings"]
    assert timings["cache_n"] > timings["prompt_n"]


def test_the_operators_defaults_are_there_at_the_first_visit(visit: Visit, ui: Path, tmp_path: Path) -> None:
    defaults = tmp_path / "ui.json"
    defaults.write_text(json.dumps({"theme": "dark", "systemMessage": "You are Bobby."}))
    with running(tmp_path, "--demo", "--webui", str(ui), "--ui-settings", str(defaults)) as server:
        person = visit(server, keeps_settings=False)
        person.opens()
        expect(person.page.locator("html.dark")).to_have_count(1)
        person.writes("Hello")
        expect(person.answer).to_be_visible()
        person.waits_for_the_end()
        assert person.wire.chat.body["messages"][0] == {"role": "system", "content": "You are Bobby."}
