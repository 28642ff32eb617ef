"""OpenAI's Responses to the common vocabulary and back, without a server."""

import json
from typing import Any

import msgspec
import pytest

from app.dto.openai.responses import ResponsesRequest
from app.dto.openai.responses_items import InputItem
from app.dto.openai.responses_stored import StoredResponse
from app.dto.openai.responses_stream import ResponseStream
from app.dto.shared.base import RequestLimits
from app.services.errors import InvalidRequest, ServerError, Unavailable, UnprocessableBody, UnsupportedParameter
from app.services.generation import (
    Constraint,
    Event,
    GenerationRequest,
    Message,
    Sampling,
    Text,
    TokenLogprob,
    ToolCall,
)
from tests.scripted import answer, thought, timings

TOOL = {"type": "function", "name": "add", "description": "Adds", "parameters": {"type": "object"}}
CALL = ToolCall(0, "call_1", "add", '{"a": 1}')
CALL_ITEM = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'}


def request(asked: Any = "Hi", **more: Any) -> ResponsesRequest:
    return ResponsesRequest.model_validate({"input": asked} | more)


def generation(asked: Any = "Hi", **more: Any) -> GenerationRequest:
    return request(asked, **more).to_generation(RequestLimits())


def messages(*items: Any, **more: Any) -> tuple[Message, ...]:
    return generation(list(items), **more).messages


def said(role: str, text: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def test_a_bare_request_leaves_everything_to_the_model() -> None:
    assert generation() == GenerationRequest(messages=(Message("user", "Hi"),))


def test_every_parameter_arrives() -> None:
    asked = generation(temperature=0.5, top_p=0.9, seed=5, max_output_tokens=9)
    assert asked.sampling == Sampling(temperature=0.5, top_p=0.9, seed=5)
    assert asked.max_tokens == 9
    assert generation(max_output_tokens=-1).max_tokens is None


@pytest.mark.parametrize(
    ("effort", "kwargs", "budget"),
    [
        (None, {}, None),
        ("none", {"enable_thinking": False}, 0),
        ("minimal", {"enable_thinking": True, "reasoning_effort": "low"}, 128),
        ("medium", {"enable_thinking": True, "reasoning_effort": "medium"}, 2048),
        ("xhigh", {"enable_thinking": True, "reasoning_effort": "high"}, None),
    ],
)
def test_effort_turns_thinking_on_and_off_and_bounds_it(
    effort: str | None, kwargs: dict[str, Any], budget: int | None
) -> None:
    asked = generation(reasoning={"effort": effort})
    assert (asked.template_kwargs, asked.effort_budget) == (kwargs, budget)


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "name": "a", "schema": {"type": "array"}, "strict": True}, {"type": "array"}),
    ],
)
def test_a_format_is_a_constraint(form: dict[str, Any], schema: dict[str, Any]) -> None:
    asked = {"text": {"format": form}}
    assert generation(**asked).constraint == Constraint("json_schema", json.dumps(schema), "text.format")
    assert whole(answer("a"), **asked)["text"]["format"].items() >= form.items()
    assert generation(tools=[TOOL], **asked).constraint == generation(**asked).constraint
    assert generation(text={"format": {"type": "text"}}).constraint is None


def test_a_conversation_arrives_with_all_it_carries() -> None:
    conversation = messages(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        said("assistant", "Let me see.", "output_text") | {"id": "msg_1", "status": "completed", "phase": None},
        CALL_ITEM,
        CALL_ITEM | {"call_id": "call_2", "id": None},
        {"type": "function_call_output", "call_id": "call_2", "output": "4"},
        {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "2"}]},
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "short"}],
            "content": [{"type": "reasoning_text", "text": "long"}],
        },
        said("assistant", "Two.", "output_text"),
        {"role": "system", "content": "And kind."},
        {"role": "user", "content": "Thanks"},
        instructions="First of all.",
    )
    second = ToolCall(1, "call_2", "add", '{"a": 1}')
    assert conversation == (
        Message("system", "First of all."),
        Message("system", "Be brief."),
        Message("user", "a\nb"),
        Message("assistant", "Let me see.", reasoning="hm", tool_calls=(CALL, second)),
        Message("tool", "4", tool_call_id="call_2"),
        Message("tool", "2", tool_call_id="call_1"),
        Message("assistant", "Two.", reasoning="long"),
        Message("system", "And kind."),
        Message("user", "Thanks"),
    )


def test_a_thought_after_words_begins_another_message() -> None:
    thought_item = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    words = said("assistant", "One.", "output_text")
    assert messages(thought_item, words, thought_item, words, said("user", "?")) == (
        *(Message("assistant", "One.", reasoning="hm") for _ in range(2)),
        Message("user", "?"),
    )


def test_tools_become_functions() -> None:
    asked = generation(tools=[TOOL, {"type": "function", "name": "bare", "strict": None}])
    assert asked.tools == (
        {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "bare", "description": "", "parameters": {}}},
    )


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"background": True}, "background"),
    ],
)
def test_what_is_not_supported_is_refused(more: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        generation(**more)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}, "input.0.content.0"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input.0.content.0"),
        ({"role": "user"}, "input.0.content"),
        ({"content": "Hi"}, "input.0.role"),
        ({"type": "function_call", "call_id": "a", "arguments": "{}"}, "input.0.name"),
        ({"type": "function_call_output", "output": "4"}, "input.0.call_id"),
        ({"type": "item_reference", "id": "msg_1"}, "input.0"),
        (CALL_ITEM, "input"),
    ],
)
def test_items_that_cannot_be_are_refused_with_their_place(item: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        messages(item)
    assert refusal.value.param == param


def test_limits_hold() -> None:
    with pytest.raises(UnprocessableBody):
        request([said("user", "a")] * 3).to_generation(RequestLimits(messages=2))
    with pytest.raises(UnprocessableBody):
        request().to_generation(RequestLimits(messages=2), [InputItem(role="user", content="a")] * 2)


def test_what_has_no_effect_is_named() -> None:
    more = {
        "prompt_cache_key": "x",
        "include": ["reasoning.encrypted_content"],
        "text": {"verbosity": "low", "format": {"type": "text"}},
        "user": "ada",
        "reasoning": {"effort": "low", "mode": "pro"},
        "stream_options": {"include_obfuscation": False},
        "new_in_2027": 1,
    }
    named = "new_in_2027, prompt_cache_key, reasoning.mode, text.verbosity, user"
    assert request(**more).ignored == named
    assert request(text={"format": {"type": "text"}}, metadata={"a": "b"}, parallel_tool_calls=True).ignored == ""


# Events to what is streamed, and to the whole.


def feed(events: list[Event], **more: Any) -> list[dict[str, Any]]:
    stream = ResponseStream(request(**more))
    return [msgspec.to_builtins(reply) for event in events for reply in stream.feed(event)]


def whole(events: list[Event], **more: Any) -> dict[str, Any]:
    stream = ResponseStream(request(**more))
    for event in events:
        stream.add(event)
    body: dict[str, Any] = msgspec.to_builtins(stream.response)
    return body


EVENTS = answer(thought("H"), thought("m", 2), "Hel", "lo", CALL, "Bye")


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


MESSAGE = [
    *("output_item.added", "content_part.added", "output_text.delta"),
    *("output_text.done", "content_part.done", "output_item.done"),
]


def test_a_stream_says_one_item_after_the_other() -> None:
    events = feed(EVENTS)
    assert kinds(events) == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *(MESSAGE[:3] + MESSAGE[2:]),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        *MESSAGE,
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_a_summary_is_streamed_where_one_is_asked_for() -> None:
    events = feed(answer(thought("H"), thought("m", 2), "Hello"), reasoning={"summary": "auto"})
    assert kinds(events)[2:9] == [
        *("output_item.added", "reasoning_summary_part.added"),
        *("reasoning_summary_text.delta", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
    ]
    item = events[-1]["response"]["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "Hm"}]
    assert item["content"] == []
    assert events[-1]["response"]["reasoning"] == {"effort": None, "summary": "auto"}


def test_every_event_of_an_item_says_whose_it_is() -> None:
    open_items: dict[int, str] = {}
    for event in feed(EVENTS):
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(open_items)
            assert event["item"]["status"] == "in_progress"
            assert not event["item"].get("content") and not event["item"].get("arguments")
            open_items[event["output_index"]] = event["item"]["id"]
        elif kind == "response.output_item.done":
            assert event["item"]["id"] == open_items[event["output_index"]]
            assert event["item"]["status"] == "completed"
        elif "item_id" in event:
            assert event["item_id"] == open_items[event["output_index"]]
            assert event.get("content_index", 0) == event.get("summary_index", 0) == 0
    assert len(set(open_items.values())) == 4
    assert [identity.split("_")[0] for identity in open_items.values()] == ["rs", "msg", "fc", "msg"]


def test_deltas_add_up_to_what_is_done() -> None:
    events = feed(EVENTS)
    for name, field in (("output_text", "text"), ("reasoning_text", "text"), ("function_call_arguments", "arguments")):
        deltas: dict[str, str] = {}
        for event in events:
            if event["type"] == f"response.{name}.delta":
                deltas[event["item_id"]] = deltas.get(event["item_id"], "") + event["delta"]
        done = {event["item_id"]: event[field] for event in events if event["type"] == f"response.{name}.done"}
        assert deltas == done


def nameless(value: Any) -> Any:
    """Without ids and times, which are others each time."""
    if isinstance(value, dict):
        own = {"id", "created_at", "completed_at"}
        return {name: nameless(item) for name, item in value.items() if name not in own}
    return [nameless(item) for item in value] if isinstance(value, list) else value


def test_the_whole_says_what_the_stream_says() -> None:
    body = whole(EVENTS)
    assert nameless(body) == nameless(feed(EVENTS)[-1]["response"])
    assert nameless(body["output"]) == [
        {
            "type": "reasoning",
            "status": "completed",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Hm"}],
            "encrypted_content": "",
        },
        message("Hello"),
        {
            "type": "function_call",
            "call_id": "call_1",
            "name": "add",
            "arguments": '{"a": 1}',
            "status": "completed",
        },
        message("Bye"),
    ]
    assert body["status"] == "completed"
    assert body["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 17,
    }


@pytest.mark.parametrize("more", [{}, {"reasoning": {"summary": "auto"}}])
def test_sealed_reasoning_is_read_where_nothing_else_of_it_comes_back(more: dict[str, Any]) -> None:
    thoughts = whole(EVENTS, include=["reasoning.encrypted_content"], **more)["output"][0]
    bare = {"type": "reasoning", "summary": [], "encrypted_content": thoughts["encrypted_content"]}
    changed = thoughts | {"summary": [], "content": [{"type": "reasoning_text", "text": "Ah"}]}
    foreign = bare | {"encrypted_content": "gAAAA"}
    for item, reasoning, ignored in (
        (thoughts, "Hm", ""),
        (bare, "Hm", ""),
        (changed, "Ah", ""),
        (foreign, None, "input.encrypted_content"),
    ):
        (_, answered, _) = messages(said("user", "Hi"), item, said("assistant", "Hello"), said("user", "And?"))
        assert answered.reasoning == reasoning
        assert request([item]).ignored == ignored


def message(text: str, status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {"type": "message", "role": "assistant", "status": status, "content": [part]}


def test_a_cut_answer_is_incomplete() -> None:
    events = feed(answer("Hel", reason="length"))
    assert kinds(events)[-2:] == ["output_item.done", "incomplete"]
    response = events[-1]["response"]
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert nameless(response["output"]) == [message("Hel", "incomplete")]
    assert kinds(feed(answer(reason="length"))) == ["created", "in_progress", "incomplete"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ('{"a": ' + "[" * 5000 + '"]{"' + "]" * 5000 + "}", "completed"),
        ('{"a": ' + "[" * 5000 + "]" * 4999 + "}", "incomplete"),
        ('{"a": %s}' % ("9" * 5000), "completed"),
        (r'{"a": "\ud83d"}', "completed"),
        ('{"a": "b', "incomplete"),
        ("[]", "incomplete"),
    ],
)
def test_a_call_is_whole_however_large_its_arguments_are(arguments: str, status: str) -> None:
    (item,) = whole(answer(ToolCall(0, "call_1", "add", arguments)))["output"]
    assert (item["arguments"], item["status"]) == (arguments, status)


def test_a_response_says_what_was_asked() -> None:
    asked = {
        "instructions": "Be brief.",
        "max_output_tokens": 5,
        "metadata": {"a": "b"},
        "previous_response_id": "resp_1",
        "reasoning": {"effort": "low"},
        "temperature": 0.5,
        "top_p": 0.9,
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
    }
    response = whole(answer("a"), **asked, tools=[TOOL])
    assert {name: response[name] for name in asked} == asked | {"reasoning": {"effort": "low", "summary": None}}
    assert response["tools"] == [TOOL | {"strict": False}]


def test_silence_and_failure_have_events() -> None:
    stream = ResponseStream(request())
    events = answer("Hel")
    before = [reply for event in events[:-1] for reply in stream.feed(event)]
    ping = msgspec.to_builtins(stream.silence())
    assert (ping["type"], ping["sequence_number"]) == ("response.in_progress", len(before))
    assert ping["response"]["id"] == stream.response.id
    failed = msgspec.to_builtins(stream.failure(ServerError()))
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", len(before) + 1)
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "internal error"}
    unavailable = ResponseStream(request()).failure(Unavailable("Going down"))
    assert msgspec.to_builtins(unavailable)["response"]["error"]["message"] == "Going down"


# What is kept.


def kept(*items: Any, earlier: list[InputItem] | None = None) -> StoredResponse:
    asked = request(list(items))
    stream = ResponseStream(asked)
    for event in EVENTS:
        stream.add(event)
    stored = StoredResponse.read(StoredResponse.of(earlier or [], asked.items, stream.response).encode())
    assert stored is not None
    return stored


def test_a_conversation_goes_on_from_what_was_kept() -> None:
    first = kept(said("user", "One?"))
    output = {"type": "function_call_output", "call_id": "call_1", "output": "2"}
    asked = request([output]).to_generation(RequestLimits(), first.conversation())
    assert asked.messages == (
        Message("user", "One?"),
        Message("assistant", "Hello\nBye", reasoning="Hm", tool_calls=(CALL,)),
        Message("tool", "2", tool_call_id="call_1"),
    )
    second = kept(output, earlier=first.conversation())
    assert [item.type for item in second.conversation()] == [
        *("message", "reasoning", "message", "function_call", "message"),
        *("function_call_output", "reasoning", "message", "function_call", "message"),
    ]


def test_instructions_are_not_gone_on_with() -> None:
    earlier = kept(said("user", "One?")).conversation()
    asked = request("Two?", instructions="New.").to_generation(RequestLimits(), earlier)
    assert [message.content for message in asked.messages if message.role == "system"] == ["New."]


def test_input_items_have_ids_and_come_in_pages() -> None:
    stored = kept({"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}, said("user", "?"))
    everything = stored.page(limit=20, newest_first=False, after=None)
    assert [item["content"][0] for item in everything.data] == [
        {"type": "input_text", "text": "One?"},
        {"type": "output_text", "text": "1"},
        {"type": "input_text", "text": "?"},
    ]
    ids = [item["id"] for item in everything.data]
    assert all(identity.startswith("msg_") for identity in ids)
    assert (everything.first_id, everything.last_id, everything.has_more) == (ids[0], ids[-1], False)
    page = stored.page(limit=1, newest_first=True, after=None)
    assert ([item["id"] for item in page.data], page.has_more) == (ids[2:], True)
    page = stored.page(limit=5, newest_first=True, after=ids[2])
    assert ([item["id"] for item in page.data], page.has_more) == (ids[1::-1], False)
    assert stored.page(limit=5, newest_first=True, after=ids[0]).first_id is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2, "input": [], "response": {"output": []}}',
        b'{"version": 1, "input": [{"role": 5}], "response": {"output": []}}',
        b'{"version": 1, "input": [{"role": "user", "content": "a"}], "response": {}}',
        b'{"version": 1, "input": [{"role": "user", "content": "a"}], "response": 5}',
    ],
)
def test_what_is_torn_or_of_another_version_is_not_read(content: bytes) -> None:
    assert StoredResponse.read(content) is None


def test_logprobs_stand_with_the_text_that_they_are_of() -> None:
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    assert generation(**asked).logprobs == 1
    assert generation(include=["reasoning.encrypted_content"]).logprobs is None
    with pytest.raises(InvalidRequest) as refusal:
        generation(top_logprobs=1)
    assert refusal.value.param == "top_logprobs"
    scores = [
        TokenLogprob(n, word.encode(), -0.5, (TokenLogprob(9, b"x", -0.25),)) for n, word in enumerate(("Hel", "lo"))
    ]
    events = answer(*(Text(score.data.decode(), timings(n), (score,)) for n, score in enumerate(scores, 1)))
    told = [
        {"id": n, "token": word, "bytes": list(word.encode()), "logprob": -0.5, "top_logprobs": [top]}
        for n, word in enumerate(("Hel", "lo"))
        for top in ({"id": 9, "token": "x", "bytes": [120], "logprob": -0.25},)
    ]
    pieces = feed(events, **asked)
    deltas = [event["logprobs"] for event in pieces if event["type"].endswith("output_text.delta")]
    assert deltas == [[told[0]], [told[1]]]
    (done,) = [event["logprobs"] for event in pieces if event["type"].endswith("output_text.done")]
    body = whole(events, **asked)
    assert done == body["output"][0]["content"][0]["logprobs"] == told
    assert body["top_logprobs"] == 1
