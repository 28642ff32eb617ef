"""Anthropic's words to the common vocabulary and back, without a server."""

import json
from typing import Any

import msgspec
import pytest

from app.dto.anthropic.messages import MessagesRequest
from app.dto.anthropic.replies import MessageStream
from app.dto.shared.base import RequestLimits
from app.services.errors import InvalidRequest, PromptTooLong, Unavailable, UnprocessableBody
from app.services.generation import Constraint, Event, GenerationRequest, Message, Sampling, ToolArguments, ToolCall
from tests.scripted import answer, thought

USER = {"role": "user", "content": "Hi"}
TOOL = {"name": "add", "description": "Adds", "input_schema": {"type": "object"}}
CALL = ToolCall(0, "call_1", "add", '{"a": 1}')
EXTRAS = {
    "finish": "end_token",
    "cache": {"cached_tokens": 0, "reason": "not_stored", "first_diff": None, "changed": None},
}
NESTED = '{"a": ' + "[" * 5000 + "]" * 5000 + "}"


def request(**more: Any) -> MessagesRequest:
    return MessagesRequest.model_validate({"messages": [USER]} | more)


def generation(**more: Any) -> GenerationRequest:
    return request(**more).to_generation(RequestLimits())


def messages(*turns: Any, **more: Any) -> tuple[Message, ...]:
    return generation(messages=list(turns), **more).messages


def test_a_bare_request_leaves_everything_to_the_model() -> None:
    assert generation() == GenerationRequest(messages=(Message("user", "Hi"),))


def test_every_parameter_arrives() -> None:
    asked = generation(temperature=0.5, top_k=7, top_p=0.9, seed=5, max_tokens=9, stop_sequences=["a", "b"])
    assert asked.sampling == Sampling(temperature=0.5, top_k=7, top_p=0.9, seed=5)
    assert (asked.max_tokens, asked.stop) == (9, ("a", "b"))
    assert generation(top_k=-1).sampling.top_k == 0
    assert generation(max_tokens=-1).max_tokens is None
    assert generation(max_tokens=0).max_tokens == 0


@pytest.mark.parametrize(
    ("thinking", "kwargs"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, {"enable_thinking": True}),
        ({"type": "disabled"}, {"enable_thinking": False}),
        ({"type": "adaptive"}, {}),
    ],
)
def test_thinking_is_the_templates(thinking: dict[str, Any], kwargs: dict[str, bool]) -> None:
    asked = generation(thinking=thinking)
    assert asked.template_kwargs == kwargs
    assert asked.thinking_budget == {"enabled": 1024, "disabled": 0, "adaptive": None}[thinking["type"]]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("Be brief.", "Be brief."),
        ([{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}], "Be brief.\n\nBe kind."),
        (
            [
                {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=ab12;"},
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
            ],
            "Be brief.",
        ),
        ("x-anthropic-billing-header: cch=1;\nBe brief.", "Be brief."),
        ("x-anthropic-billing-header: cch=1;\n\nBe brief.\nx-anthropic says hi", "Be brief.\nx-anthropic says hi"),
    ],
)
def test_the_system_prompt_comes_without_the_line_that_changes(system: Any, expected: str) -> None:
    assert messages(USER, system=system) == (Message("system", expected), Message("user", "Hi"))


@pytest.mark.parametrize("system", ["", "x-anthropic-billing-header: cch=1;", [{"type": "text", "text": " "}], []])
def test_an_empty_system_prompt_is_none(system: Any) -> None:
    assert messages(USER, system=system) == (Message("user", "Hi"),)


def test_a_conversation_arrives_with_all_it_carries() -> None:
    said = messages(
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "redacted_thinking", "data": "zzz"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}},
                {"type": "tool_use", "id": "call_2", "name": "now"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
                {"type": "tool_result", "tool_use_id": "call_1", "content": "no such file", "is_error": True},
                {"type": "tool_result", "tool_use_id": "call_3"},
                {"type": "text", "text": "Go on."},
            ],
        },
        {"role": "system", "content": "Be brief from now on."},
        {"role": "assistant", "content": "Noon"},
    )
    assert said == (
        Message("user", "a\nb"),
        Message(
            "assistant",
            "Let me see.",
            reasoning="hm",
            tool_calls=(CALL, ToolCall(1, "call_2", "now", "{}")),
        ),
        Message("tool", "noon", tool_call_id="call_2"),
        Message("tool", "Error: no such file", tool_call_id="call_1"),
        Message("tool", "", tool_call_id="call_3"),
        Message("user", "Go on."),
        Message("system", "Be brief from now on."),
        Message("assistant", "Noon"),
    )


def test_a_last_message_of_the_assistant_is_continued() -> None:
    end = {"role": "assistant", "content": "Hel"}
    assert generation(messages=[USER, end]).continue_final_message
    assert generation(messages=[USER, end, end]).continue_final_message
    assert not generation().continue_final_message


def test_tools_become_functions() -> None:
    function = {"name": "add", "description": "Adds", "parameters": {"type": "object"}}
    asked = generation(tools=[TOOL, {"name": "bare", "type": "custom"}])
    assert asked.tools == (
        {"type": "function", "function": function},
        {"type": "function", "function": {"name": "bare", "parameters": {}}},
    )


def test_a_format_is_a_constraint() -> None:
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    for more, param in (
        ({"output_config": {"format": schema, "effort": "low"}}, "output_config.format"),
        ({"output_format": schema}, "output_format"),
    ):
        assert generation(**more).constraint == Constraint("json_schema", '{"type": "object"}', param)
        assert generation(tools=[TOOL], **more).constraint == generation(**more).constraint


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ([{"type": "text", "text": "Look"}, {"type": "file", "source": {}}], "messages.0.content.1"),
        ([{"type": "document", "source": {}}], "messages.0.content.0"),
        ([{"type": "text"}], "messages.0.content.0"),
        ([{"type": "tool_result", "content": "4"}], "messages.0.content.0"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(content: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        messages({"role": "user", "content": content})
    assert refusal.value.param == param


@pytest.mark.parametrize(
    "end",
    [
        [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "add", "input": {}}]}],
        [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "input": {}}]}, USER],
    ],
)
def test_conversations_that_cannot_be_answered_are_refused(end: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidRequest):
        messages(USER, *end)


def test_limits_hold() -> None:
    small = RequestLimits(messages=2, stop_strings=2, stop_length=4)
    for more in ({"messages": [USER] * 3}, {"stop_sequences": ["a"] * 3}, {"stop_sequences": ["abcde"]}):
        with pytest.raises(UnprocessableBody):
            request(**more).to_generation(small)


def test_what_has_no_effect_is_named() -> None:
    more = {
        "thinking": {"type": "enabled", "budget_tokens": 2000, "new": 1},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": "x"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
        "speed": "standard",
        "betas": [],
        "new_in_2027": 1,
    }
    named = "context_management, metadata, new_in_2027, thinking.new"
    assert request(**more).ignored == named
    assert request(thinking={"type": "disabled"}).ignored == ""


# Events to what is streamed, and to the whole.


def feed(events: list[Event], **more: Any) -> list[dict[str, Any]]:
    stream = MessageStream("req_1", **more)
    return [msgspec.to_builtins(reply) for event in events for reply in stream.feed(event)]


def whole(events: list[Event], **more: Any) -> dict[str, Any]:
    stream = MessageStream("req_1", **more)
    for event in events:
        stream.add(event)
    body: dict[str, Any] = json.loads(msgspec.json.encode(stream.message))
    return body


def test_a_stream_says_one_block_after_the_other() -> None:
    said = feed(answer(thought("H"), thought("m", 2), "Hel", "lo", CALL, "Bye"))
    start, *blocks, delta, stop = said
    usage = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "input_tokens": 7, "output_tokens": 0}
    message = start["message"]
    assert message.pop("id").startswith("msg_")
    assert start == {
        "type": "message_start",
        "message": {
            "type": "message",
            "role": "assistant",
            "model": "scripted",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        },
    }
    assert blocks == [
        begin(0, {"type": "thinking", "thinking": "", "signature": ""}),
        more(0, {"type": "thinking_delta", "thinking": "H"}),
        more(0, {"type": "thinking_delta", "thinking": "m"}),
        more(0, {"type": "signature_delta", "signature": "tiles"}),
        {"type": "content_block_stop", "index": 0},
        begin(1, {"type": "text", "text": ""}),
        more(1, {"type": "text_delta", "text": "Hel"}),
        more(1, {"type": "text_delta", "text": "lo"}),
        {"type": "content_block_stop", "index": 1},
        begin(2, {"type": "tool_use", "id": "call_1", "name": "add", "input": {}}),
        more(2, {"type": "input_json_delta", "partial_json": '{"a": 1}'}),
        {"type": "content_block_stop", "index": 2},
        begin(3, {"type": "text", "text": ""}),
        more(3, {"type": "text_delta", "text": "Bye"}),
        {"type": "content_block_stop", "index": 3},
    ]
    assert delta == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": usage | {"output_tokens": 7},
        "tiles": EXTRAS,
    }
    assert stop == {"type": "message_stop"}


def begin(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def more(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def test_the_whole_says_what_the_stream_says() -> None:
    body = whole(answer(thought("Hm"), "Hel", "lo", CALL, "Bye"))
    assert body.pop("id").startswith("msg_")
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "tiles"},
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}},
            {"type": "text", "text": "Bye"},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 3,
            "output_tokens": 6,
        },
        "tiles": EXTRAS,
    }


@pytest.mark.parametrize(
    ("events", "reason", "sequence"),
    [
        (answer("a"), "end_turn", None),
        (answer("a", stop="###"), "stop_sequence", "###"),
        (answer("a", reason="length"), "max_tokens", None),
        (answer("a", reason="length", cause="max_tokens"), "max_tokens", None),
        (answer("a", reason="length", cause="context"), "model_context_window_exceeded", None),
        (answer("a", reason="length", cause="repetition"), "end_turn", None),
        (answer("a", reason="length", cause="memory"), "max_tokens", None),
        (answer(CALL), "tool_use", None),
    ],
)
def test_it_says_why_it_ended(events: list[Event], reason: str, sequence: str | None) -> None:
    body = whole(events)
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, sequence)
    assert feed(events)[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


def test_an_empty_answer_has_no_blocks() -> None:
    assert [reply["type"] for reply in feed(answer())] == ["message_start", "message_delta", "message_stop"]
    assert whole(answer())["content"] == []


def test_thoughts_are_left_out_where_that_is_asked() -> None:
    events = answer(thought("Hm"), "Hello")
    hidden = whole(events, hide_thinking=True)["content"][0]
    assert (hidden["thinking"], "Hm" in hidden["signature"]) == ("", False)
    deltas = [
        reply["delta"]["type"] for reply in feed(events, hide_thinking=True) if reply["type"].endswith("block_delta")
    ]
    assert deltas[:2] == ["signature_delta", "text_delta"]


@pytest.mark.parametrize("text", ["Hm", "é 🙂\n", "a" * 9999])
def test_thoughts_that_were_left_out_come_back_with_their_signature(text: str) -> None:
    content = whole(answer(thought(text), "Hello", thought("So"), CALL), hide_thinking=True)["content"]
    streamed = [
        reply["delta"]["signature"]
        for reply in feed(answer(thought(text), "Hello", thought("So"), CALL), hide_thinking=True)
        if reply.get("delta", {}).get("type") == "signature_delta"
    ]
    assert streamed == [block["signature"] for block in content if block["type"] == "thinking"]
    said = messages(USER, {"role": "assistant", "content": content[:1]}, USER)[1]
    assert said == Message("assistant", reasoning=text)


@pytest.mark.parametrize("signature", ["tiles", "tiles.", "tiles.%", "tiles./w==", "EqQBCkYIBxgC", ""])
def test_a_signature_of_anybody_else_says_nothing(signature: str) -> None:
    block = {"type": "thinking", "thinking": "", "signature": signature}
    said = messages(USER, {"role": "assistant", "content": [block, {"type": "text", "text": "Hello"}]}, USER)[1]
    assert said == Message("assistant", "Hello")


@pytest.mark.parametrize(
    "arguments", ["[1]", "no json", "5", '{"a": NaN}', '{"a": "cut', '{"a": %s}' % ("9" * 5000), NESTED]
)
def test_arguments_that_are_no_object_are_handed_over_whole(arguments: str) -> None:
    call = ToolCall(0, "call_1", "add", arguments)
    assert whole(answer(call))["content"][0]["input"] == {"arguments": arguments}


@pytest.mark.parametrize(
    "arguments",
    [
        r'{"a": "\ud83d", "\udc00": 1}',
        '{"a": 123456789012345678901234567890, "b": 1e999, "c": -0.0}',
        '{"a": ' + "[" * 200 + "]" * 200 + "}",
        '{\n "a": "é\\n🙂"\n}',
    ],
)
def test_arguments_stay_as_the_model_wrote_them(arguments: str) -> None:
    for events in (
        answer(ToolCall(0, "call_1", "add", arguments)),
        answer(ToolCall(0, "call_1", "add", ""), ToolArguments(0, arguments)),
        answer(ToolCall(0, "call_1", "add", arguments[:4]), ToolArguments(0, arguments[4:])),
    ):
        assert whole(events)["content"][0]["input"] == json.loads(arguments)
        deltas = [reply["delta"] for reply in feed(events) if reply["type"] == "content_block_delta"]
        assert "".join(delta["partial_json"] for delta in deltas) == arguments


def test_silence_and_failure_have_events() -> None:
    stream = MessageStream("req_1")
    assert msgspec.to_builtins(stream.silence()) == {"type": "ping"}
    assert msgspec.to_builtins(stream.failure(Unavailable("Going down"))) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Going down"},
        "request_id": "req_1",
    }
    too_long = msgspec.to_builtins(stream.failure(PromptTooLong(9000, 8192)))
    assert too_long["error"] == {
        "type": "invalid_request_error",
        "message": "prompt is too long: 9000 tokens > 8192 maximum",
        "n_prompt_tokens": 9000,
        "n_ctx": 8192,
    }
