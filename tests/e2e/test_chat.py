"""Chats as most of them go."""

import re

from playwright.sync_api import expect

from tests.conftest import Server
from tests.e2e.conftest import Visit

# As "Custom JSON": an answer that has no end of its own.
SONG = '{"regex": "(tra la la, )+", "ignore_eos": true, "tools": null}'


def test_start_up(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    expect(person.page.get_by_role("button", name="tiles-nano")).to_be_visible()
    assert person.wire.last("/props").status == 200
    person.page.wait_for_load_state("networkidle")
    asked = person.wire.calls("/props") + person.wire.calls("/v1/models")
    assert {call.status for call in asked} == {200}
    assert {"autoload=false", "model=tiles-nano&autoload=false"} <= {call.query for call in asked}
    assert len(asked) < 10
    assert {call.status for call in person.wire.calls("/tools")} == {403}
    assert person.wire.hosts() == {demo.url.removeprefix("http://")}


def test_a_chat(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    answer = person.asks("Hello")
    sent = person.wire.chat
    assert answer == sent.said().strip() != ""
    assert sent.body["messages"] == [{"role": "user", "content": "Hello"}]
    assert sent.body["temperature"] == 0
    assert (sent.body["stream"], sent.body["return_progress"], sent.body["timings_per_token"]) == (True, True, True)
    assert "model" not in sent.body
    assert sent.request.response().headers["content-type"].startswith("text/event-stream")
    assert sent.events[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_second_turn_knows_the_first(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    first = person.asks("My name is Zoë.")
    second = person.asks("What is my name?")
    assert "Zoë" in second
    roles = [message["role"] for message in person.wire.chat.body["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert person.wire.chat.body["messages"][1]["content"].strip() == first
    last = person.wire.chat.events[-1]["timings"]
    assert last["cache_n"] > 0


def test_speed_and_context_are_shown_while_it_answers(demo: Server, visit: Visit) -> None:
    person = visit(demo, customJson=SONG, max_tokens=4000)
    person.opens()
    person.writes("Hello")
    expect(person.stop).to_be_visible()
    expect(person.answer.get_by_text(re.compile(r"[\d.]+ t/s"))).to_be_visible()
    gauge = person.page.get_by_role("button", name="Context usage")
    gauge.hover()
    expect(person.page.get_by_role("status").filter(has_text="Context")).to_have_text(re.compile(r"\dK?\s+/ 8\.19K"))
    speeds = {person.answer.get_by_text(re.compile(r"[\d.]+ t/s")).inner_text()}
    expect(person.answer.get_by_text(re.compile(r"[\d.]+ t/s"))).not_to_have_text(speeds.pop())
    person.stop.click()
    person.waits_for_the_end()


def test_stop_keeps_what_was_said_and_frees_the_server(demo: Server, visit: Visit) -> None:
    person = visit(demo, customJson=SONG, max_tokens=4000)
    person.opens()
    person.writes("Hello")
    expect(person.text).to_have_text(re.compile("(tra la la, ){3}"))  # no longer the thoughts before it
    person.stop.click()
    person.waits_for_the_end()
    kept = person.text.inner_text()
    assert kept
    assert person.wire.chat.body["ignore_eos"] is True
    assert len(person.wire.chats) == 1
    person.page.reload()
    expect(person.text).to_contain_text(kept.strip())  # the last words are shown a moment after the end


def test_regenerate_makes_another_answer_to_the_same_question(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    first = person.asks("Hello")
    with person.asks_anew():
        person.answer.get_by_role("button", name="Regenerate").click()
    person.sees("2/2")
    second = person.reads()
    assert len(person.wire.chats) == 2
    assert person.wire.chats[0].body["messages"] == person.wire.chats[1].body["messages"]
    assert second == first  # greedy


def test_edit_asks_anew(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    person.asks("Hello")
    question = person.questions.first
    question.get_by_role("button", name="Edit").click()
    question.get_by_role("textbox").fill("My name is Ada.")
    with person.asks_anew():
        question.get_by_role("button", name="Send", exact=True).click()
    person.sees("2/2")
    answer = person.reads()
    assert person.wire.chat.body["messages"] == [{"role": "user", "content": "My name is Ada."}]
    assert answer == person.wire.chat.said().strip() != ""


def test_continue_goes_on_where_it_ended_and_says_nothing_twice(demo: Server, visit: Visit) -> None:
    person = visit(demo, customJson=SONG, max_tokens=60, enableContinueGeneration=True)
    person.opens()
    first = person.asks("Hello")
    assert first == person.wire.chat.said().strip()
    person.answer.get_by_role("button", name="Continue").click()
    expect(person.text).to_have_text(re.compile(f"^.{{{len(first) + 40},}}"))
    person.waits_for_the_end()
    sent = person.wire.chat.body
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    said = person.wire.chats[0].said()
    assert (sent["messages"][-1]["role"], sent["messages"][-1]["content"]) == ("assistant", said)
    expect(person.text).to_have_text("".join(call.said() for call in person.wire.chats).strip())
    assert len(person.wire.chats) == 2


def test_processing_is_told_from_nothing_on(demo: Server, visit: Visit) -> None:
    person = visit(demo, customJson=SONG, max_tokens=20)
    person.opens()
    person.writes(" ".join(f"The number {number} is here." for number in range(200)))
    expect(person.answer.get_by_text(re.compile(r"Processing.*\d+%"))).to_be_visible()
    person.waits_for_the_end()
    told = [event["prompt_progress"] for event in person.wire.chat.events if "prompt_progress" in event]
    assert told[0]["processed"] == told[0]["cache"]
    assert told[-1]["processed"] == told[-1]["total"] > 1500
    assert [step["processed"] for step in told] == sorted(step["processed"] for step in told)
