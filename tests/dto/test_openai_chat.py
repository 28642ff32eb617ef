"""OpenAI's words to the common vocabulary and back, without a server."""

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from app.dto.openai.chat import ChatRequest
from app.dto.openai.chat_reply import ChatCompletion, ChatStream
from app.dto.shared.base import RequestLimits
from app.dto.shared.logprobs import ChoiceLogprobs
from app.services.errors import InvalidRequest, UnprocessableBody
from app.services.generation import (
    Completion,
    Event,
    Finished,
    GenerationRequest,
    Message,
    Progress,
    Reasoning,
    Sampling,
    Started,
    Text,
    Timings,
    TokenLogprob,
    ToolCall,
)

USER = {"role": "user", "content": "Hi"}
TIMES = Timings(
    cached_tokens=3,
    prompt_tokens=7,
    prompt_ms=14.0,
    completion_tokens=5,
    completion_ms=8.0,
    first_token_ms=15.0,
    total_ms=25.0,
)
CALL = ToolCall(0, "call_1", "add", '{"a": 1}')


def request(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"messages": [USER]} | more)


def generation(**more: Any) -> GenerationRequest:
    return request(**more).to_generation(RequestLimits())


def feed(events: list[Event], **more: Any) -> list[dict[str, Any]]:
    stream = ChatStream(request(**more))
    return [msgspec.to_builtins(chunk) for event in events for chunk in stream.feed(event)]


def test_a_bare_request_leaves_everything_to_the_model() -> None:
    assert generation() == GenerationRequest(messages=(Message("user", "Hi"),))


CALLED = {"role": "assistant", "function_call": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (CALLED, Message("assistant", tool_calls=(ToolCall(0, "", "add", '{"a": 1}'),))),
        ({"role": "function", "name": "add", "content": "2"}, Message("tool", "2", name="add")),
        ({"role": "tool", "tool_call_id": "c", "content": None}, Message("tool", tool_call_id="c")),
        ({"role": "assistant", "content": None, "refusal": "No."}, Message("assistant", "No.")),
        ({"role": "assistant", "content": None, "tool_calls": [], "audio": None}, Message("assistant")),
    ],
)
def test_old_and_empty_messages_are_taken(message: dict[str, Any], expected: Message) -> None:
    body = request(messages=[USER, message, USER])
    assert body.to_generation(RequestLimits()).messages[1] == expected
    assert body.ignored == ""


def test_every_sampling_parameter_arrives() -> None:
    asked = generation(
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        min_p=0.1,
        xtc_probability=0.4,
        xtc_threshold=0.2,
        seed=-5,
        repetition_penalty=1.2,
        presence_penalty=0.3,
        frequency_penalty=0.4,
        repeat_last_n=64,
        logit_bias={"5": -100, "6": 2.5},
    )
    assert asked.sampling == Sampling(0.5, 7, 0.9, 0.1, 0.4, 0.2, -5, 1.2, 0.3, 0.4, 64, {5: -100.0, 6: 2.5})


def test_the_other_samplers_arrive_in_the_common_vocabulary() -> None:
    asked = generation(
        typical_p=0.3,
        top_n_sigma=1.5,
        dynatemp_range=0.5,
        dynatemp_exponent=2,
        min_keep=3,
        dry_multiplier=0.8,
        dry_base=1.5,
        dry_allowed_length=4,
        dry_penalty_last_n=128,
        dry_sequence_breakers=["."],
        samplers=["top_k", "dry"],
    )
    assert asked.sampling == Sampling(
        typical_p=0.3,
        top_n_sigma=1.5,
        dynatemp_range=0.5,
        dynatemp_exponent=2,
        min_keep=3,
        dry_multiplier=0.8,
        dry_base=1.5,
        dry_allowed_length=4,
        dry_window=128,
        dry_breakers=(".",),
        samplers=("top_k", "dry"),
    )


def test_a_text_that_breaks_repetitions_is_one() -> None:
    for text in ("", "\ud83d"):
        with pytest.raises(ValidationError, match="may not be empty"):
            request(dry_sequence_breakers=[".", text])


ALL = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")


@pytest.mark.parametrize(
    ("samplers", "order", "others"),
    [
        (None, ALL, ""),
        ("", ALL, ""),
        ([], (), ""),
        ("edskypmxt", ALL, ""),
        (list(ALL), ALL, ""),
        ("top_k;temperature", ("top_k", "temperature"), ""),
        (" Top-K ; TEMP;", ("top_k", "temperature"), ""),
        ("temperature", ("temperature",), ""),
        ("tk", ("temperature", "top_k"), ""),
        (["nucleus", "typ", "minp", "top-n-sigma"], ("top_p", "typ_p", "min_p", "top_n_sigma"), ""),
        (["top_k", "typical_p", "typ_p", "top_k"], ("top_k", "typ_p"), ""),
        (["penalties", "tfs_z", "adaptive_p"], ("penalties",), "samplers.adaptive_p, samplers.tfs_z"),
        ("ki", ("top_k",), "samplers.i"),
        (["temprature", "a b"], (), "samplers.temprature"),
    ],
)
def test_an_order_of_samplers_is_written_in_many_ways(samplers: Any, order: tuple[str, ...], others: str) -> None:
    body = request(samplers=samplers)
    assert body.sampling().samplers == order
    assert body.ignored == others


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"typ_p": 0.4}, Sampling(typical_p=0.4)),
        ({"typ_p": 0.4, "typical_p": 0.5}, Sampling(typical_p=0.5)),
        ({"dry_base": 0.5}, Sampling(dry_base=1.75)),
        ({"dry_penalty_last_n": -1}, Sampling(dry_window=None)),
        ({"dry_penalty_last_n": 0}, Sampling(dry_window=0)),
        ({"top_k": -1}, Sampling(top_k=0)),
        ({"seed": -1}, Sampling()),
        ({"repeat_penalty": 1.1}, Sampling(repetition_penalty=1.1)),
        ({"repetition_penalty": 1.3, "repeat_penalty": 1.1}, Sampling(repetition_penalty=1.3)),
        ({"repeat_last_n": -1}, Sampling()),
        (
            {"repeat_last_n": 0, "repeat_penalty": 2, "presence_penalty": 1, "frequency_penalty": 1},
            Sampling(repetition_penalty=1.0, penalty_window=0),
        ),
    ],
)
def test_special_values_have_their_meaning(given: dict[str, Any], expected: Sampling) -> None:
    assert generation(**given).sampling == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 4),
        ({"max_tokens": 3, "max_completion_tokens": 4, "n_predict": 5}, 5),
        ({"max_tokens": 3, "n_predict": -1}, None),
    ],
)
def test_limits_of_length(given: dict[str, Any], expected: int | None) -> None:
    assert generation(**given).max_tokens == expected


@pytest.mark.parametrize(("stop", "expected"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ()), (None, ())])
def test_stop_strings(stop: Any, expected: tuple[str, ...]) -> None:
    assert generation(stop=stop).stop == expected


def test_messages_arrive_with_all_they_carry() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ada"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "call_1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": ""},
    ]
    assert generation(messages=messages).messages == (
        Message("system", "Be brief."),
        Message("user", "a\nb", name="ada"),
        Message("assistant", "", reasoning="hm", tool_calls=(CALL,)),
        Message("tool", "2", tool_call_id="call_1"),
        Message("assistant", "No."),
        Message("user", ""),
    )


def test_tools_reach_the_template_as_they_came() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "x-own": [1]}}}
    marked = {"function": {"name": "bare", "cache_control": {"type": "ephemeral"}}, "cache_control": {"type": "x"}}
    asked = generation(tools=[tool, marked])
    assert asked.tools == (tool, {"type": "function", "function": {"name": "bare"}})


def test_a_last_message_of_the_assistant_is_continued() -> None:
    ends = {"messages": [USER, {"role": "assistant", "content": "Hel"}]}
    assert generation(**ends).continue_final_message
    assert generation(**ends, continue_final_message=True, add_generation_prompt=False).continue_final_message
    assert generation(messages=[*ends["messages"], ends["messages"][1]]).continue_final_message
    assert not generation().continue_final_message
    for more in (
        {"continue_final_message": True},
        ends | {"continue_final_message": True, "add_generation_prompt": True},
    ):
        with pytest.raises(InvalidRequest):
            generation(**more)


def test_what_stands_already_is_told_unless_a_stream_was_asked_to_go_on_with_it() -> None:
    last = {"role": "assistant", "content": "Hel", "reasoning_content": "Greet."}
    asked = request(messages=[USER, last])
    assert (asked.answer_prefix().reasoning, asked.answer_prefix().text) == ("Greet.", "Hel")
    assert request().answer_prefix() == Completion()
    for goes_on, expected in ((False, "Hello"), (True, "lo")):
        stream = ChatStream(asked.model_copy(update={"continue_final_message": goes_on}))
        chunks = [chunk for event in [Started("m", 3), Text("lo", TIMES)] for chunk in stream.feed(event)]
        assert (
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices[0].delta.content)
            == expected
        )


def test_limits_hold() -> None:
    small = RequestLimits(messages=2, stop_strings=2, stop_length=4)
    assert request(messages=[USER] * 2, stop=["abcd", "éé"]).to_generation(small)
    for more in ({"messages": [USER] * 3}, {"stop": ["a"] * 3}, {"stop": "abcde"}, {"stop": ["ééé"]}):
        with pytest.raises(UnprocessableBody):
            request(**more).to_generation(small)


def test_reasoning_stays_in_the_text_where_that_is_asked() -> None:
    assert generation().split_reasoning
    assert generation(reasoning_format="deepseek").split_reasoning
    assert not generation(reasoning_format="none").split_reasoning


# Events to chunks and to a body.

EVENTS: list[Event] = [
    Started("m", 10),
    Progress(3, 10, 3, 0.0),
    Progress(10, 10, 3, 14.7),
    Reasoning("Hm", TIMES),
    Text("Hel", TIMES),
    Text("lo", TIMES),
    CALL,
    Finished("tool_calls", None, TIMES),
]


def test_a_stream_begins_with_the_role_and_ends_with_the_reason() -> None:
    chunks = feed(EVENTS)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm"},
        {"content": "Hel"},
        {"content": "lo"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 1}'},
                }
            ]
        },
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 5 + ["tool_calls"]
    assert {chunk["model"] for chunk in chunks} == {"m"}
    assert [chunk for chunk in chunks if "timings" in chunk or "metrics" in chunk] == chunks[-1:]


def test_an_empty_answer_has_a_role_too() -> None:
    chunks = feed([Started("m", 1), Finished("length", None, TIMES)])
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"role": "assistant", "content": ""}, {}]


def test_progress_comes_before_the_role_where_it_is_asked_for() -> None:
    chunks = feed(EVENTS, return_progress=True)
    told = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert told == [
        {"total": 10, "cache": 3, "processed": 3, "time_ms": 0},
        {"total": 10, "cache": 3, "processed": 10, "time_ms": 14},
    ]
    assert ["prompt_progress" in chunk for chunk in chunks][:3] == [True, True, False]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:2])


def test_usage_comes_last_and_without_choices_where_it_is_asked_for() -> None:
    *_, last, usage = feed(EVENTS, stream_options={"include_usage": True})
    assert last["choices"][0]["finish_reason"] == "tool_calls"
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def test_timings_come_with_every_token_where_they_are_asked_for() -> None:
    chunks = feed(EVENTS, timings_per_token=True)
    spoken = [chunk for chunk in chunks if {"content", "reasoning_content"} & chunk["choices"][0]["delta"].keys()]
    assert ["timings" in chunk for chunk in spoken] == [False, True, True, True]  # the role is no token


def fold(events: list[Event]) -> dict[str, Any]:
    completion = Completion()
    for event in events:
        completion.add(event)
    body: dict[str, Any] = msgspec.to_builtins(ChatCompletion.of([completion]))
    return body


def test_a_body_says_what_the_stream_says() -> None:
    body, chunks = fold(EVENTS), feed(EVENTS, stream_options={"include_usage": True})
    (choice,) = body["choices"]
    assert choice["message"]["content"] == "Hello"
    assert choice["message"]["reasoning_content"] == "Hm"
    call = chunks[4]["choices"][0]["delta"]["tool_calls"][0]
    assert choice["message"]["tool_calls"] == [{name: call[name] for name in ("id", "type", "function")}]
    assert choice["finish_reason"] == "tool_calls"
    assert body["usage"] == chunks[-1]["usage"]
    assert (body["timings"], body["metrics"]) == (chunks[-2]["timings"], chunks[-2]["metrics"])


def test_numbers_add_up() -> None:
    body = fold(EVENTS)
    assert body["timings"] == {
        "cache_n": 3,
        "prompt_n": 7,
        "prompt_ms": 14.0,
        "prompt_per_token_ms": 2.0,
        "prompt_per_second": 500.0,
        "predicted_n": 5,
        "predicted_ms": 8.0,
        "predicted_per_token_ms": 2.0,
        "predicted_per_second": 500.0,
    }
    assert body["metrics"] == {
        "ttft_ms": 15.0,
        "total_tokens": 5,
        "tokens_per_second": 200.0,
        "total_latency_s": 0.025,
    }


def test_an_answer_without_tokens_divides_by_nothing() -> None:
    nothing = Timings(0, 1, 0.0, 0, 0.0, 0.0, 0.0)
    body = fold([Started("m", 1), Finished("length", None, nothing)])
    assert body["timings"]["predicted_per_second"] == 0
    assert body["metrics"]["tokens_per_second"] == 0
    assert "reasoning_content" not in body["choices"][0]["message"]
    assert "tool_calls" not in body["choices"][0]["message"]


def test_the_text_of_a_token_leaves_out_a_character_that_is_not_whole() -> None:
    scores = [TokenLogprob(1, data, -0.5) for data in ("é".encode(), b"a\xf0\x9f", b"\x98\x80")]
    told = ChoiceLogprobs.of(scores).content
    assert [score.token for score in told] == ["é", "a", "\ufffd\ufffd"]
    assert [bytes(score.bytes) for score in told] == [score.data for score in scores]
