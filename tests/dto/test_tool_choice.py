"""Tools in every dialect: how a choice of them is said, and how a call is told while its arguments come."""

import json
from typing import Any

import msgspec
import pytest

import app.services.generation as gen
from app.dto.anthropic.messages import MessagesRequest
from app.dto.anthropic.replies import MessageStream
from app.dto.openai.chat import ChatRequest
from app.dto.openai.chat_reply import ChatCompletion, ChatStream
from app.dto.openai.responses import ResponsesRequest
from app.dto.openai.responses_stream import ResponseStream
from app.dto.shared.base import RequestLimits
from app.services.errors import InvalidRequest
from tests.scripted import answer

NAMES = ("add", "now")
USER = [{"role": "user", "content": "Hi"}]


def chat(strict: tuple[str, ...] = (), **more: Any) -> gen.ToolChoice:
    tools = [{"type": "function", "function": {"name": name, "strict": name in strict}} for name in NAMES]
    body = {"messages": USER, "tools": tools} | more
    return ChatRequest.model_validate(body).to_generation(RequestLimits()).tool_choice


def responses(strict: tuple[str, ...] = (), **more: Any) -> gen.ToolChoice:
    tools = [{"type": "function", "name": name, "strict": name in strict} for name in NAMES]
    body = {"input": "Hi", "tools": tools} | more
    return ResponsesRequest.model_validate(body).to_generation(RequestLimits()).tool_choice


def messages(strict: tuple[str, ...] = (), **more: Any) -> gen.ToolChoice:
    tools = [{"name": name, "input_schema": {}, "strict": name in strict} for name in NAMES]
    body = {"messages": USER, "tools": tools} | more
    return MessagesRequest.model_validate(body).to_generation(RequestLimits()).tool_choice


ADD_OF_CHAT = {"type": "function", "function": {"name": "add"}}
ADD = {"type": "function", "name": "add"}


@pytest.mark.parametrize("dialect", [chat, responses, messages])
def test_the_model_chooses_unless_something_is_asked(dialect: Any) -> None:
    assert dialect() == gen.ToolChoice()


@pytest.mark.parametrize("dialect", [chat, responses])
def test_openais_choices(dialect: Any) -> None:
    assert dialect(tool_choice="auto") == gen.ToolChoice()
    assert dialect(tool_choice="none") == gen.ToolChoice("none")
    assert dialect(tool_choice="required") == gen.ToolChoice("required")
    assert dialect(parallel_tool_calls=False) == gen.ToolChoice(parallel=False)
    for named in (ADD_OF_CHAT, ADD):
        assert dialect(tool_choice=named) == gen.ToolChoice("required", names=("add",), parallel=False)


def test_openais_allowed_tools() -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [ADD_OF_CHAT]}}
    assert chat(tool_choice=allowed) == gen.ToolChoice("required", names=("add",))
    flat = {"type": "allowed_tools", "mode": "auto", "tools": [ADD]}
    assert responses(tool_choice=flat) == gen.ToolChoice("auto", names=("add",))


def test_anthropics_choices() -> None:
    assert messages(tool_choice={"type": "auto"}) == gen.ToolChoice()
    assert messages(tool_choice={"type": "none"}) == gen.ToolChoice("none")
    assert messages(tool_choice={"type": "any"}) == gen.ToolChoice("required")
    single = {"type": "auto", "disable_parallel_tool_use": True}
    assert messages(tool_choice=single) == gen.ToolChoice(parallel=False)
    named = {"type": "tool", "name": "add"}
    assert messages(tool_choice=named) == gen.ToolChoice("required", names=("add",), parallel=False)


@pytest.mark.parametrize(
    ("dialect", "param"),
    [(chat, "tools.1.function.strict"), (responses, "tools.1.strict"), (messages, "tools.1.strict")],
)
def test_strict_tools_are_noted_with_what_makes_them_so(dialect: Any, param: str) -> None:
    assert dialect(("now",)) == gen.ToolChoice(strict=frozenset({"now"}), param=param)


@pytest.mark.parametrize(
    ("dialect", "more"),
    [
        *(
            (chat, {"tool_choice": choice})
            for choice in ("sometimes", {}, {"type": "web_search"}, {"type": "function"})
        ),
        (chat, {"tool_choice": {"type": "function", "function": {"name": "sub"}}}),
        (chat, {"tool_choice": {"type": "allowed_tools", "allowed_tools": 3}}),
        (chat, {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [3]}}}),
        (chat, {"tool_choice": "required", "tools": []}),
        (responses, {"tool_choice": {"type": "function", "name": "sub"}}),
        (messages, {"tool_choice": {"type": "tool"}}),
        (messages, {"tool_choice": {"type": "any"}, "tools": []}),
    ],
)
def test_a_choice_that_cannot_be_is_refused(dialect: Any, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        dialect(**more)
    assert refusal.value.param == "tool_choice"


# Told piece by piece.

PIECES = ['{"a"', ": 1", "}"]
CALLS = answer(
    "Well.",
    gen.ToolCall(0, "call_1", "add", ""),
    *(gen.ToolArguments(0, piece) for piece in PIECES),
    gen.ToolCall(1, "call_2", "now", ""),
    gen.ToolArguments(1, "{}"),
)
CUT = answer(gen.ToolCall(0, "call_1", "add", ""), gen.ToolArguments(0, '{"a": "x'), reason="length")


def folded(events: list[gen.Event]) -> gen.Completion:
    said = gen.Completion()
    for event in events:
        said.add(event)
    return said


def told(stream: Any, events: list[gen.Event]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(reply) for event in events for reply in stream.feed(event)]


def test_chat_tells_which_call_and_then_its_arguments() -> None:
    chunks = told(ChatStream(ChatRequest.model_validate({"messages": USER})), CALLS)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert calls == [
        [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": ""}}],
        *([{"index": 0, "function": {"arguments": piece}}] for piece in PIECES),
        [{"index": 1, "id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}}],
        [{"index": 1, "function": {"arguments": "{}"}}],
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    message = msgspec.to_builtins(ChatCompletion.of([folded(CALLS)]))["choices"][0]["message"]
    assert message["content"] == "Well."
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "add", "arguments": '{"a": 1}'},
        {"name": "now", "arguments": "{}"},
    ]
    assert "tool_calls" not in msgspec.to_builtins(ChatCompletion.of([folded(answer("Hi"))]))["choices"][0]["message"]


def response(events: list[gen.Event]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    stream = ResponseStream(ResponsesRequest.model_validate({"input": "Hi"}))
    return told(stream, events), msgspec.to_builtins(stream.response)


def test_responses_tell_arguments_as_they_come() -> None:
    events, whole = response(CALLS)
    deltas = [(event["output_index"], event["delta"]) for event in events if event["type"].endswith("arguments.delta")]
    assert deltas == [*((1, piece) for piece in PIECES), (2, "{}")]
    done = [(event["name"], event["arguments"]) for event in events if event["type"].endswith("arguments.done")]
    assert done == [("add", '{"a": 1}'), ("now", "{}")]
    added = [event["item"] for event in events if event["type"].endswith("item.added")]
    assert [(item["name"], item["arguments"], item["status"]) for item in added[1:]] == [
        ("add", "", "in_progress"),
        ("now", "", "in_progress"),
    ]
    ended = [event["item"] for event in events if event["type"].endswith("item.done")]
    assert ended == whole["output"]
    assert [item["status"] for item in ended] == ["completed"] * 3


def test_a_cut_call_of_responses_is_incomplete_and_never_said_to_be_done() -> None:
    events, whole = response(CUT)
    assert not [event for event in events if event["type"].endswith("arguments.done")]
    (call,) = whole["output"]
    assert (call["arguments"], call["status"]) == ('{"a": "x', "incomplete")
    assert whole["status"] == "incomplete"


def message(events: list[gen.Event]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    stream = MessageStream()
    return told(stream, events), json.loads(msgspec.json.encode(stream.message))


def test_messages_tell_input_as_it_comes() -> None:
    events, whole = message(CALLS)
    deltas = [(event["index"], event["delta"]["partial_json"]) for event in events if "partial_json" in str(event)]
    assert deltas == [*((1, piece) for piece in PIECES), (2, "{}")]
    begun = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert begun[1:] == [
        {"type": "tool_use", "id": "call_1", "name": "add", "input": {}},
        {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
    ]
    assert [block.get("input") for block in whole["content"]] == [None, {"a": 1}, {}]
    assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0, 1, 2]
    assert whole["stop_reason"] == "tool_use"


def test_a_cut_call_of_messages_says_why_it_is_cut() -> None:
    events, whole = message(CUT)
    assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0]
    assert whole["stop_reason"] == "max_tokens"
    (call,) = whole["content"]
    assert json.dumps(call["input"]) == json.dumps({"arguments": '{"a": "x'})


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_mode_may_stand_in_an_object(choice: str) -> None:
    for dialect in (chat, responses):
        assert dialect(tool_choice={"type": choice}) == dialect(tool_choice=choice)


def test_a_name_alone_is_a_function() -> None:
    assert (
        chat(tool_choice={"function": {"name": "add"}}).names
        == responses(tool_choice={"name": "add"}).names
        == ("add",)
    )
