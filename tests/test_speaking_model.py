"""A small trained model that thinks and calls tools: what random weights cannot show."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import Server, running, said

MODEL = Path(__file__).parents[1].parent / "shared" / "parity" / "models" / "chat"
pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason="the trained model is not on this machine")

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASK = "What is the weather in Oslo?"
GREEDY = {"temperature": 0, "max_tokens": 80}


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("speaker"), "--model", str(MODEL)) as server:
        yield server
        assert server.errors() == []


def message(server: Server, text: str, **more: Any) -> tuple[dict[str, Any], str]:
    choice = server.chat(text, **GREEDY | more).json()["choices"][0]
    return choice["message"], choice["finish_reason"]


def test_it_thinks_and_then_answers(speaker: Server) -> None:
    expected = {"role": "assistant", "content": "Hello there!", "reasoning_content": "Greet.\n"}
    assert message(speaker, "Hello") == (expected, "stop")
    chunks = speaker.stream("Hello", **GREEDY)
    assert (said(chunks, "reasoning_content"), said(chunks)) == ("Greet.\n", "Hello there!")
    kinds = [next(iter(chunk["choices"][0]["delta"]), "") for chunk in chunks[1:-1]]
    assert kinds == sorted(kinds, reverse=True)  # all of the reasoning comes before the content


def test_its_tags_stay_where_that_is_asked(speaker: Server) -> None:
    whole, _ = message(speaker, "Hello", reasoning_format="none")
    assert whole == {"role": "assistant", "content": "<think>\nGreet.\n</think>\n\nHello there!"}


def test_it_calls_a_tool(speaker: Server) -> None:
    answer, reason = message(speaker, ASK, tools=[WEATHER])
    assert reason == "tool_calls"
    assert answer["content"] == ""
    (call,) = answer["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "get_weather"
    assert set(json.loads(call["function"]["arguments"])) == {"city"}
    chunks = speaker.stream(ASK, tools=[WEATHER], **GREEDY)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    first, *rest = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert (first["index"], first["type"], first["function"]) == (
        0,
        "function",
        {"name": "get_weather", "arguments": ""},
    )
    assert len(rest) > 2
    assert "".join(piece["function"]["arguments"] for piece in rest) == call["function"]["arguments"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert "<tool_call>" not in said(chunks)


def test_a_call_that_is_cut_off_is_told_as_far_as_it_came(speaker: Server) -> None:
    whole, _ = message(speaker, ASK, tools=[WEATHER])
    arguments = whole["tool_calls"][0]["function"]["arguments"]
    seen = set()
    for limit in range(8, 40, 2):
        answer, reason = message(speaker, ASK, tools=[WEATHER], max_tokens=limit)
        for call in answer.get("tool_calls", []):
            assert arguments.startswith(call["function"]["arguments"])
            assert reason == "length" or call["function"]["arguments"] == arguments
            seen.add(call["function"]["arguments"])
    assert len(seen) > 2


def test_without_tools_a_call_stays_text(speaker: Server) -> None:
    answer, reason = message(speaker, ASK)
    assert "tool_calls" not in answer
    assert "<tool_call>" in answer["content"]
    assert reason == "stop"


def test_where_no_call_is_wanted_none_is_begun(speaker: Server) -> None:
    answer, _ = message(speaker, ASK, tools=[WEATHER], tool_choice="none")
    assert "tool_calls" not in answer
    assert "<tool_call>" not in answer["content"]


ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}


def test_another_tool_than_the_one_it_would_take_can_be_named(speaker: Server) -> None:
    named = {"type": "function", "function": {"name": "add"}}
    answer, reason = message(speaker, ASK, tools=[WEATHER, ADD], tool_choice=named, max_tokens=120)
    (call,) = answer["tool_calls"]
    assert call["function"]["name"] == "add"
    if reason == "tool_calls":
        assert json.loads(call["function"]["arguments"]).keys() == {"a", "b"}


def test_a_strict_tool_leaves_the_answer_free_until_it_is_called(speaker: Server) -> None:
    free, _ = message(speaker, "Hello", tools=[ADD | {}, WEATHER])
    plain, _ = message(speaker, "Hello", tools=[{**ADD, "function": ADD["function"] | {"strict": False}}, WEATHER])
    assert free.keys() == plain.keys()
    answer, reason = message(speaker, ASK, tools=[WEATHER, ADD])
    assert reason == "tool_calls"
    assert answer["tool_calls"][0]["function"]["name"] in {"add", "get_weather"}


def test_what_a_tool_gave_goes_back(speaker: Server) -> None:
    call, _ = message(speaker, ASK, tools=[WEATHER])
    result = {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "Sunny"}
    body = {"messages": [{"role": "user", "content": ASK}, call, result], "tools": [WEATHER]} | GREEDY
    answer = speaker.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("stop", "content"),
    [(" there", "Hello"), ("o t", "Hell"), ("Hello", ""), ("!", "Hello there"), ("zzz", "Hello there!")],
)
def test_a_stop_string_holds_across_tokens(speaker: Server, stop: str, content: str) -> None:
    assert message(speaker, "Hello", stop=stop)[0]["content"] == content
    assert said(speaker.stream("Hello", stop=["never", stop], **GREEDY)) == content


def test_characters_of_several_tokens_come_whole(speaker: Server) -> None:
    chunks = speaker.stream("Count to ten", **GREEDY)
    assert said(chunks) == "日本 😀 ü"
    assert all("\ufffd" not in said([chunk]) for chunk in chunks)


def test_the_official_client_reads_its_calls(speaker: Server) -> None:
    question: Any = {"messages": [{"role": "user", "content": ASK}], "tools": [WEATHER], "temperature": 0}
    with (
        openai.OpenAI(base_url=f"{speaker.url}/v1", api_key="none", max_retries=0) as client,
        client.chat.completions.stream(model="m", max_tokens=80, **question) as stream,
    ):
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert final.choices[0].finish_reason == "tool_calls"


def test_without_thinking_no_reasoning_is_said(speaker: Server) -> None:
    answer, _ = message(speaker, "Hello", chat_template_kwargs={"enable_thinking": False})
    assert "reasoning_content" not in answer
    assert answer["content"]
