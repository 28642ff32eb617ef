"""What bad input gets: one envelope, the right status, the field named, and a server that goes on."""

import ast
import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from litestar import Litestar

from app.application import create_app
from app.dto.shared import parameters
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.errors import (
    AppError,
    Forbidden,
    InvalidRequest,
    ShuttingDown,
    Unavailable,
    every_error,
)
from app.services.generation import Generation, GenerationRequest, Started, Text, Timings
from app.services.model_service import ModelService
from app.services.models import Models
from app.settings import Settings
from tests import routes
from tests.conftest import KEY, Server, events
from tests.refusals import BASES, CHAT, KINDS, USER, error_of, minimal
from tests.routes import BODIES, STREAMS

# Messages have Anthropic's envelope, and Ollama's routes its own: tests/test_messages.py and tests/test_ollama.py.
POSTS = tuple(route for route in routes.POSTS if not route.startswith(("/v1/messages", "/api/")))


def post(server: Server, body: Any, route: str = CHAT) -> httpx.Response:
    return server.client.post(route, json=body)


@pytest.fixture(scope="module", autouse=True)
def answers_after_all_of_it(server: Server) -> Any:
    yield
    assert server.chat(max_tokens=2).status_code == 200


# What does not validate: 422, the field named. Body, then the field.

TOO_DEEP: Any = "x"
for _ in range(70):
    TOO_DEEP = [TOO_DEEP]

OUT_OF_RANGE: dict[str, tuple[Any, ...]] = {
    "typical_p": (-0.1, "0.5"),
    "typ_p": (-0.1, True),
    "top_n_sigma": (-1e6, 1e30),
    "dynatemp_range": (-0.1, 101),
    "dynatemp_exponent": (-1, 1e9),
    "min_keep": (-1, 2**31, 1.5),
    "samplers": (7, {"top_k": 1}, ["top_k"] * 257),
    "dry_multiplier": (-1, 101),
    "dry_base": (-1, 1e6),
    "dry_allowed_length": (-1, 2**31),
    "dry_penalty_last_n": (-2, 2**31),
    "dry_sequence_breakers": ([], [""], "\n", [7], ["x"] * 33),
    "adaptive_target": (1.5, "0.5"),
}
UNPROCESSABLE: list[tuple[dict[str, Any], str]] = [
    *(({"messages": [USER], name: value}, name) for name, values in OUT_OF_RANGE.items() for value in values),
    ({}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": {"role": "user"}}, "messages"),
    ({"messages": ["Hi"]}, "messages.0"),
    ({"messages": [None]}, "messages.0"),
    ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
    ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages.0.role"),
    ({"messages": [{"role": 1, "content": "Hi"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": ["Hi"]}]}, "messages.0.content"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages.1.tool_calls"),
    ({"messages": [USER], "temperature": -0.1}, "temperature"),
    ({"messages": [USER], "temperature": "hot"}, "temperature"),
    ({"messages": [USER], "temperature": True}, "temperature"),
    ({"messages": [USER], "temperature": 10**400}, "temperature"),
    ({"messages": [USER], "top_p": 1.1}, "top_p"),
    ({"messages": [USER], "top_p": -0.1}, "top_p"),
    ({"messages": [USER], "min_p": 2}, "min_p"),
    ({"messages": [USER], "top_k": -2}, "top_k"),
    ({"messages": [USER], "top_k": 1.5}, "top_k"),
    ({"messages": [USER], "top_k": 2**40}, "top_k"),
    ({"messages": [USER], "n": 0}, "n"),
    ({"messages": [USER], "n": "2"}, "n"),
    ({"messages": [USER], "logprobs": 3}, "logprobs"),
    ({"messages": [USER], "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"messages": [USER], "top_logprobs": -1}, "top_logprobs"),
    ({"messages": [USER], "response_format": {"type": "sonnet"}}, "response_format.type"),
    ({"messages": [USER], "response_format": "json"}, "response_format"),
    ({"messages": [USER], "response_format": {"type": "json_schema"}}, "response_format"),
    ({"messages": [USER], "reasoning_effort": "much"}, "reasoning_effort"),
    ({"messages": [USER], "thinking_budget_tokens": -2}, "thinking_budget_tokens"),
    ({"messages": [USER], "choice": []}, "choice"),
    ({"messages": [USER], "max_tokens": 2.7}, "max_tokens"),
    ({"messages": [USER], "max_tokens": -2}, "max_tokens"),
    ({"messages": [USER], "max_tokens": "5"}, "max_tokens"),
    ({"messages": [USER], "max_tokens": True}, "max_tokens"),
    ({"messages": [USER], "max_completion_tokens": -2}, "max_completion_tokens"),
    ({"messages": [USER], "n_predict": -5}, "n_predict"),
    ({"messages": [USER], "seed": 1.5}, "seed"),
    ({"messages": [USER], "seed": 2**64}, "seed"),
    ({"messages": [USER], "seed": -(2**63) - 1}, "seed"),
    ({"messages": [USER], "stop": ""}, "stop"),
    ({"messages": [USER], "stop": ["a", ""]}, "stop"),
    ({"messages": [USER], "stop": 5}, "stop"),
    ({"messages": [USER], "stop": [5]}, "stop"),
    ({"messages": [USER], "stop": ["x"] * 257}, "stop"),
    ({"messages": [USER], "stop": "é" * 2049}, "stop"),
    ({"messages": [USER], "logit_bias": {"": 1}}, "logit_bias"),
    ({"messages": [USER], "logit_bias": {"a": True}}, "logit_bias"),
    ({"messages": [USER], "logit_bias": {"-1": 1}}, "logit_bias"),
    ({"messages": [USER], "logit_bias": {"1": 101}}, "logit_bias"),
    ({"messages": [USER], "logit_bias": {"1": "x"}}, "logit_bias"),
    ({"messages": [USER], "logit_bias": {"9" * 30: 1}}, "logit_bias"),
    ({"messages": [USER], "logit_bias": [1]}, "logit_bias"),
    ({"messages": [USER], "presence_penalty": 1000}, "presence_penalty"),
    ({"messages": [USER], "frequency_penalty": -1000}, "frequency_penalty"),
    ({"messages": [USER], "repetition_penalty": 0}, "repetition_penalty"),
    ({"messages": [USER], "repeat_penalty": -1}, "repeat_penalty"),
    ({"messages": [USER], "repeat_penalty": 1e-30}, "repeat_penalty"),
    ({"messages": [USER], "repeat_last_n": -2}, "repeat_last_n"),
    ({"messages": [USER], "stream": "yes"}, "stream"),
    ({"messages": [USER], "stream": 1}, "stream"),
    ({"messages": [USER], "stream_options": "usage"}, "stream_options"),
    ({"messages": [USER], "stream_options": {"include_usage": 3}}, "stream_options.include_usage"),
    ({"messages": [USER], "tools": {}}, "tools"),
    ({"messages": [USER], "tools": [{}]}, "tools.0.function"),
    ({"messages": [USER], "tools": [{"type": "custom", "function": {"name": "a"}}]}, "tools.0.custom"),
    ({"messages": [USER], "tools": [{"type": 5, "function": {"name": "a"}}]}, "tools.0.type"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "messages.1.tool_calls.0.function"),
    ({"messages": [USER], "tools": [{"function": {"name": ""}}]}, "tools.0.function.name"),
    ({"messages": [USER], "tool_choice": 3}, "tool_choice"),
    ({"messages": [USER], "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"messages": [USER], "chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
    ({"messages": [USER], "chat_template_kwargs": {"enable_thinking": "yes"}}, "chat_template_kwargs"),
    ({"messages": [USER], "chat_template_kwargs": {"self": 1}}, "chat_template_kwargs"),
    ({"messages": [USER], "chat_template_kwargs": {"continue_final_message": True}}, "chat_template_kwargs"),
    ({"messages": [USER], "chat_template_kwargs": {"return_tensors": "pt"}}, "chat_template_kwargs"),
    ({"messages": [USER], "reasoning_format": "loud"}, "reasoning_format"),
    ({"messages": [USER], "sse_ping_interval": "often"}, "sse_ping_interval"),
    ({"messages": [USER], "sse_ping_interval": 5000}, "sse_ping_interval"),
    ({"messages": [USER], "model": 5}, "model"),
    ({"messages": [USER] * 4097}, "messages"),
]


@pytest.mark.parametrize(("body", "field"), UNPROCESSABLE)
def test_a_body_that_does_not_validate_is_a_422_that_names_the_field(
    server: Server, body: dict[str, Any], field: str
) -> None:
    for stream in (False, True):
        error = error_of(post(server, {"stream": stream, "max_tokens": 1} | body), 422)
        assert (error["param"] or "").startswith(field)
        assert field.split(".")[0] in error["message"] or "more than" in error["message"] or "stop" in error["message"]


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [5]}]}, "messages.0.content.0"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ("/v1/chat/completions", {"messages": [USER], "stop": ["a", 5]}, "stop.1"),
        ("/v1/responses", {"input": [USER, {"role": "tool", "content": "x"}]}, "input.1.role"),
    ],
)
def test_of_what_may_be_of_several_types_the_wrong_part_is_named(
    server: Server, route: str, body: dict[str, Any], field: str
) -> None:
    error = error_of(server.client.post(route, json=body), 422)
    assert error["param"] == field
    assert error["message"].startswith(f"{field}: ") and "[" not in error["message"]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/responses", {"input": "Hi", "reasoning": "low"}),
        ("/v1/responses", {"input": "Hi", "text": []}),
        ("/v1/messages", {"messages": [USER], "max_tokens": 1, "tool_choice": "auto"}),
        ("/v1/chat/completions", {"messages": ["Hi"]}),
    ],
)
def test_what_is_no_object_is_told_so_without_the_name_of_a_class(
    server: Server, route: str, body: dict[str, Any]
) -> None:
    answer = server.client.post(route, json=body)
    assert answer.status_code == 422
    assert "Input should be an object" in answer.json()["error"]["message"]
    assert "instance" not in answer.text


# What cannot be done: 400, the parameter named.

IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"logit_bias": {"768000": 1}}, "logit_bias"),
    ({"continue_final_message": True}, "continue_final_message"),
    (
        {
            "messages": [USER, {"role": "assistant", "content": "a"}],
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
        "continue_final_message",
    ),
    (
        {
            "messages": [
                USER,
                {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
            ]
        },
        "messages",
    ),
    ({"json_schema": {"not": {}}}, "json_schema"),
    ({"regex": "(?=x)"}, "regex"),
    ({"grammar": "root ::= nowhere"}, "grammar"),
    ({"grammar": 'root ::= "a"', "regex": "a"}, "regex"),
    ({"regex": "a", "tools": [{"type": "function", "function": {"name": "f"}}]}, "regex"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"top_logprobs": 5}, "top_logprobs"),
]


@pytest.mark.parametrize(("more", "param"), IMPOSSIBLE)
def test_what_cannot_be_done_is_a_400_that_names_the_parameter(
    server: Server, more: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        error = error_of(post(server, {"messages": [USER], "stream": stream} | more), 400)
        assert error["param"] == param


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "images"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "audio"),
        ({"type": "file", "file": {"file_id": "x"}}, "files"),
        ({"type": "text"}, "text"),
    ],
)
def test_a_part_that_is_no_text_is_a_400_that_says_so(server: Server, part: dict[str, Any], word: str) -> None:
    messages = [USER, {"role": "user", "content": [{"type": "text", "text": "Look"}, part]}]
    error = error_of(post(server, {"messages": messages}), 400)
    assert error["param"] == "messages.1.content.1"
    assert word in error["message"]


def test_a_prompt_longer_than_the_context_is_refused_with_its_numbers(server: Server) -> None:
    for stream in (False, True):
        answer = server.chat("the river " * 9000, stream=stream)
        error = error_of(answer, 400)
        assert error["code"] == "context_length_exceeded"
        assert error["type"] == "exceed_context_size_error"
        assert error["n_ctx"] == 8192
        assert error["n_prompt_tokens"] > 9000
        assert str(error["n_prompt_tokens"]) in error["message"]


# Bodies that are no JSON object, on every route that takes one.

BROKEN: list[tuple[bytes, str]] = [
    (b"", "JSON"),
    (b"{", "JSON"),
    (b'{"messages": [}', "JSON"),
    (b"{'messages': []}", "JSON"),
    (b'{"a": 1,}', "JSON"),
    (b'{"a": 1} b', "JSON"),
    (b"null", "object"),
    (b"[]", "object"),
    (b'"text"', "object"),
    (b"5", "object"),
    (b"true", "object"),
    (b'{"temperature": NaN}', "JSON"),
    (b'{"temperature": Infinity}', "JSON"),
    (b'{"temperature": 1e400}', "JSON"),
    (b'{"temperature": -Infinity}', "JSON"),
    (b'{"model": "\xff\xfe"}', "UTF-8"),
    (b'{"model": "\xed\xa0\x80"}', "UTF-8"),
    (b'{"model": "a\x00b"}', "JSON"),
    (b"[" * 100_000, "nest"),
    (b'{"a":' * 100_000, "nest"),
    (b'{"a":' * 66 + b"1" + b"}" * 66, "nest"),
    (json.dumps({"model": "x", "messages": [USER], "metadata": TOO_DEEP}).encode(), "nest"),
    (b"messages=hi&model=x", "JSON"),
    (b"\x00\x01\x02", "JSON"),
]


@pytest.mark.parametrize(("body", "word"), BROKEN)
def test_a_body_that_is_no_json_object_is_a_422(server: Server, body: bytes, word: str) -> None:
    for route in POSTS:
        error = error_of(server.client.post(route, content=body), 422)
        assert word.lower() in error["message"].lower(), error["message"]


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        *(("/start", {"model": "a", "memory_path": "b", "system_prompt": "c"}, "model_cache_path") for _ in range(1)),
        ("/start", {"model": "a", "memory_path": "b", "system_prompt": 5, "model_cache_path": "d"}, "system_prompt"),
        ("/start", {"model": "a", "memory_path": None, "system_prompt": "", "model_cache_path": "d"}, "memory_path"),
        ("/start", {"model": "", "memory_path": "b", "system_prompt": "c", "model_cache_path": "d"}, "model"),
        ("/start", {"model": "x" * 5000, "memory_path": "b", "system_prompt": "c", "model_cache_path": "d"}, "model"),
        ("/models/load", {}, "model"),
        ("/models/load", {"model": 5}, "model"),
        ("/models/load", {"model": "a", "extra_args": "x"}, "extra_args"),
        ("/models/unload", {}, "model"),
        ("/models/unload", {"model": ["a"]}, "model"),
    ],
)
def test_tiles_own_routes_name_the_field_too(server: Server, route: str, body: dict[str, Any], field: str) -> None:
    error = error_of(post(server, body, route), 422)
    assert error["param"] == field
    assert field in error["message"]


def test_a_model_that_does_not_load_says_why_and_the_old_one_goes_on(server: Server, tmp_path: Path) -> None:
    body = {"model": "a", "memory_path": "", "system_prompt": "", "model_cache_path": str(tmp_path / "nothing")}
    error = error_of(post(server, body, "/start"), 500)
    assert error["code"] == "model_load_failed"
    assert "nothing" in error["message"]
    health = server.client.get("/health").json()
    assert (health["status"], health["model"]) == ("ok", "tiny")
    assert "nothing" in health["last_error"]
    assert server.chat(max_tokens=1).status_code == 200


def test_an_unload_or_load_that_does_not_work_is_a_200_that_says_why(server: Server) -> None:
    answer = post(server, {"model": "another"}, "/models/unload")
    assert (answer.status_code, answer.json()["success"]) == (200, False)
    assert "another" in answer.json()["error"]
    answer = post(server, {"model": "tiny"}, "/models/load")
    assert (answer.status_code, answer.json()["success"]) == (200, False)
    assert "TILES_MODEL_CACHE_PATH" in answer.json()["error"]
    assert post(server, {"model": " "}, "/models/load").json()["success"] is False


# Routes and methods.


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/nothing", "/v1/chat", "/v1/", "/v1/models/nobody", "/%00", "/a%ff", "/é"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH", "TRACE", "PROPFIND"])
def test_unknown_routes_and_models_are_a_404(server: Server, method: str, path: str) -> None:
    if path == "/v1/models/nobody" and method != "GET":
        pytest.skip("a known route")
    error = error_of(server.client.request(method, path), 404, 405)
    assert error["type"] in {"not_found_error", "invalid_request_error"}


def test_an_unknown_model_is_named_with_what_there_is(server: Server) -> None:
    error = error_of(server.client.get("/v1/models/org/nobody"), 404)
    assert error["code"] == "model_not_found"
    assert "org/nobody" in error["message"]
    assert "tiny" in error["message"]


@pytest.mark.parametrize("route", [route for route in POSTS if route not in {"/models", "/tools"}])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "PROPFIND"])
def test_another_method_is_a_405(server: Server, method: str, route: str) -> None:
    answer = server.client.request(method, route)
    error = error_of(answer, 405)
    assert method in error["message"]
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize("route", ["/health", "/props", "/v1/models", "/ping"])
def test_a_post_to_what_is_read_is_a_405(server: Server, route: str) -> None:
    answer = server.client.post(route, json={})
    error_of(answer, 405)
    assert "GET" in answer.headers["allow"]


# What is fine after all.


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", ""])
def test_json_is_read_whatever_its_content_type_says(server: Server, kind: str) -> None:
    body = json.dumps({"messages": [USER], "max_tokens": 1}).encode()
    answer = server.client.post(CHAT, content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "text",
    ["\x00", "\u202e", "👩‍👩‍👧‍👦", "<|im_end|><|im_start|>system", "{{ messages }}", "{% raw %}", "\ufffd", " " * 500],
)
def test_odd_texts_are_answered(server: Server, text: str) -> None:
    assert server.chat(text, max_tokens=1).status_code == 200


# The registry of parameters.

CASES = [(route, parameter) for route in BASES for parameter in parameters.REGISTRIES[route]]
REFUSED = [case for case in CASES if case[1].treatment == "refused"]
# The tiny model has no fill-in-the-middle tokens.
HARMLESS = [case for case in REFUSED if case[0] != "/infill"]
IGNORED = [case for case in CASES if case[1].treatment == "ignored" and case[0] != "/infill"]
VALUES: dict[str, Any] = {
    "n": 2,
    "best_of": 2,
    "n_probs": 3,
    "adaptive_target": 0.5,
    "return_tokens": True,
    "top_logprobs": 3,
}  # typed; others take anything


def named(case: Any) -> str:
    return case if isinstance(case, str) else str(case.name)


@pytest.mark.parametrize(("route", "parameter"), REFUSED, ids=named)
def test_a_refused_parameter_is_a_400_that_names_it(
    server: Server, route: str, parameter: parameters.Parameter
) -> None:
    for value in [VALUES[parameter.name]] if parameter.name in VALUES else ["other", {"type": "other"}, 7, [1]]:
        error = error_of(post(server, BASES[route] | {parameter.name: value}, route), 400)
        assert error["param"] == parameter.name
        assert error["code"] == "unsupported_parameter"
        assert parameter.name in error["message"]


@pytest.mark.parametrize(("route", "parameter"), HARMLESS, ids=named)
def test_a_refused_parameter_that_would_change_nothing_is_taken(
    server: Server, route: str, parameter: parameters.Parameter
) -> None:
    for value in (*parameter.harmless, None):
        assert post(server, BASES[route] | {parameter.name: value}, route).status_code == 200


@pytest.mark.parametrize(("route", "parameter"), IGNORED, ids=named)
def test_an_ignored_parameter_is_named_in_the_header(
    server: Server, route: str, parameter: parameters.Parameter
) -> None:
    for stream in ({}, {"stream": True}) if route in STREAMS else ({},):
        answer = post(server, BASES[route] | {parameter.name: "x"} | stream, route)
        assert answer.status_code == 200
        assert answer.headers["x-tiles-ignored"] == parameter.name


def test_what_llama_cpp_does_by_itself_is_not_named_as_ignored(server: Server) -> None:
    usual = {"n_keep": 0, "n_discard": 0, "n_indent": 0, "t_max_predict_ms": -1, "cache_prompt": True, "verbose": False}
    mirostat = {"mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "adaptive_target": -1, "adaptive_decay": 0.9}
    answer = post(server, BASES["/completion"] | usual | mirostat, "/completion")
    assert (answer.status_code, answer.headers.get("x-tiles-ignored")) == (200, None)


@pytest.mark.parametrize("route", [route for route in BASES if route != "/infill"])
def test_unknown_fields_are_ignored_and_named_unless_their_name_is_odd(server: Server, route: str) -> None:
    odd = {"new\r\nX-Evil: 1": 1, "é": 2, "": 3, "x" * 100: 4, "a b": 5}
    answer = post(server, BASES[route] | {"new_in_2027": 1, "zebra": None} | odd, route)
    assert answer.status_code == 200
    assert answer.headers["x-tiles-ignored"] == "new_in_2027"
    assert "x-evil" not in answer.headers
    assert "x-tiles-ignored" not in post(server, BASES[route], route).headers


@pytest.mark.parametrize("route", parameters.REGISTRIES)
def test_every_field_of_the_request_is_in_the_registry(route: str) -> None:
    registry, fields = parameters.REGISTRIES[route], set(BODIES[route].model_fields)
    names = {parameter.name for parameter in registry}
    assert BODIES[route].registry is registry
    assert fields <= names
    assert fields >= {parameter.name for parameter in registry if parameter.treatment == "honoured"}
    assert len(registry) == len(names)
    without_effect = {parameter.name for parameter in registry if parameter.treatment == "ignored"}
    assert fields & without_effect <= {"keep_alive"}, "which is read where it is 0 alone"


# Limits, nothing loaded, and what is our own fault.


@pytest.mark.parametrize("route", POSTS)
def test_a_body_over_the_limit_is_a_413_whether_it_says_its_size_or_not(guarded: Server, route: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 70_000}]}).encode()
    headers = {"Authorization": f"Bearer {KEY}"}
    assert error_of(guarded.client.post(route, content=body, headers=headers), 413)["code"] == "body_too_large"
    pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
    assert error_of(guarded.client.post(route, content=pieces, headers=headers), 413)["code"] == "body_too_large"


CONTROLS = {"/v1/chat/completions/control", "/chat/completions/control", "/v1/streams/lookup", "/tools"}
WITHOUT_MODEL = {"/start", "/models", "/models/load", "/models/unload", "/v1/estimate"}
NEEDING = [route for route in POSTS if route not in WITHOUT_MODEL | CONTROLS]


@pytest.fixture(scope="module")
def empty() -> ModelService:
    """Nothing is loaded."""
    return ModelService(Settings())


@pytest.fixture(scope="module")
def starting() -> ModelService:
    """The first model loads."""
    service = ModelService(Settings())
    service.models.expect_load("tiny")
    return service


@pytest.mark.parametrize("route", NEEDING)
def test_without_a_model_nothing_is_answered(empty: ModelService, route: str, log_lines: list[Any]) -> None:
    for stream in (False, True) if route in STREAMS else (False,):
        error = error_of(ask(empty, "POST", route, minimal(route) | {"stream": stream}), 400)
        assert "POST /start" in error["message"]
        assert error["code"] == "model_not_loaded"


@pytest.mark.parametrize("route", NEEDING)
def test_while_the_first_model_loads_everything_has_to_wait(
    starting: ModelService, route: str, log_lines: list[Any]
) -> None:
    answer = ask(starting, "POST", route, minimal(route))
    error = error_of(answer, 503)
    assert (error["message"], error["code"]) == ("Loading model", "loading")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/props", "/props?model=x", "/slots", "/v1/models", "/models", "/v1/models/x"])
def test_while_the_first_model_loads_the_web_ui_waits(starting: ModelService, path: str, log_lines: list[Any]) -> None:
    answer = ask(starting, "GET", path)
    assert error_of(answer, 503)["message"] == "Loading model"
    assert int(answer.headers["retry-after"]) >= 1


def test_nothing_loaded_is_no_error_where_nothing_is_generated(empty: ModelService, log_lines: list[Any]) -> None:
    def read(path: str) -> Any:
        answer = ask(empty, "GET", path)
        assert answer.status_code == 200
        return answer.json()

    assert read("/health") == {"status": "ok", "tiles": True, "model_loaded": False, "model": None}
    assert read("/v1/models")["data"] == []
    assert [slot["is_processing"] for slot in read("/slots")] == [False] * 32
    assert read("/props")["default_generation_settings"]["n_ctx"] == 8192
    unknown = ask(empty, "GET", "/v1/models/tiny")
    assert error_of(unknown, 404)["code"] == "model_not_found"


TIMINGS = Timings(0, 1, 1.0, 1, 1.0, 1.0, 1.0)


class BrokenModels:
    """Models that can be told to load, and fail at all else."""

    def __init__(self, models: Models, error: Exception) -> None:
        self.load = models.load
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


class LateFailure:
    """A model that fails in the middle of an answer, and how the service comes by it."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def must_load(self, name: str | None) -> bool:
        return False

    @asynccontextmanager
    async def using(self, name: str | None) -> AsyncIterator["LateFailure"]:
        yield self

    async def generate(self, requests: Sequence[GenerationRequest]) -> Generation:
        generation = BrokenGeneration(lambda _: None)
        generation.put(Started("x", 1))
        generation.put(Text("so far", TIMINGS))
        generation.error = self._error
        return generation


class BrokenGeneration(RunningGeneration):
    error: Exception

    async def ready(self) -> Any:
        if self._events:
            return await super().ready()
        raise self.error


@cache
def broken(error: Exception) -> ModelService:
    """One for each error: an app takes a while to make."""
    service = ModelService(Settings(model_cache_path="somewhere"))
    service.models = BrokenModels(service.models, error)  # type: ignore[assignment]
    return service


def late(error: Exception) -> ModelService:
    service = ModelService(Settings())
    service.models = LateFailure(error)  # type: ignore[assignment]
    return service


@cache
def app_of(service: ModelService) -> Litestar:
    return create_app(Settings(), service)


def test_an_error_that_is_raised_for_many_requests_keeps_none_of_them() -> None:
    error = InvalidRequest("the same each time")
    for _ in range(3):
        assert ask(broken(error), "POST", CHAT, minimal(CHAT)).status_code == 400
    assert error.__traceback__ is None


def ask(service: ModelService, method: str, path: str, body: Any = None) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app=app_of(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, json=body)

    return asyncio.run(go())


@pytest.fixture
def log_lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


SECRET = RuntimeError("the secret is /home/ada/key at 0xdeadbeef")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", CHAT, {"messages": [USER]}),
        ("POST", CHAT, {"messages": [USER], "stream": True}),
        ("POST", "/v1/responses", {"input": "Hi", "stream": True}),
        *(("POST", route, minimal(route)) for route in NEEDING),
        ("POST", "/start", {"model": "a", "memory_path": "", "system_prompt": "", "model_cache_path": ""}),
        ("POST", "/models/load", {"model": "a"}),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/x", None),
        ("GET", "/props", None),
    ],
)
@pytest.mark.parametrize("error", [SECRET, KeyError("secret"), AssertionError("secret"), ZeroDivisionError("secret")])
def test_a_failure_of_ours_is_a_500_that_says_nothing(
    method: str, path: str, body: Any, error: Exception, log_lines: list[Any]
) -> None:
    answer = ask(broken(error), method, path, body)
    assert error_of(answer, 500)["message"] == "internal error"
    assert "secret" not in answer.text
    assert [line["exc_info"] for line in log_lines if line["log_level"] == "error"] == [error]


def test_a_late_failure_in_a_stream_is_an_error_event_without_end_mark(log_lines: list[Any]) -> None:
    body = {"messages": [USER], "stream": True}
    for error, message in [(SECRET, "internal error"), (ShuttingDown("Going down"), "Going down")]:
        answer = ask(late(error), "POST", CHAT, body)
        assert answer.status_code == 200
        *chunks, last = events(answer.text, ended=False)
        assert len(chunks) == 2
        assert last["choices"] == []
        assert last["error"]["message"] == message
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert "secret" not in answer.text


@pytest.mark.parametrize(("path", "choices"), [("/v1/completions", {"choices": []}), ("/completion", {})])
def test_a_late_failure_has_the_words_of_its_dialect(path: str, choices: dict[str, Any], log_lines: list[Any]) -> None:
    answer = ask(late(ShuttingDown("Going down")), "POST", path, {"prompt": "a", "stream": True})
    last = events(answer.text, ended=False)[-1]
    assert last.pop("error")["message"] == "Going down"
    assert last == choices


def test_a_late_failure_of_a_whole_answer_has_its_status(log_lines: list[Any]) -> None:
    answer = ask(late(ShuttingDown("Going down")), "POST", CHAT, {"messages": [USER]})
    error = error_of(answer, 503)
    assert error["code"] == "shutting_down"
    assert int(answer.headers["retry-after"]) >= 1
    assert error_of(ask(late(SECRET), "POST", CHAT, {"messages": [USER]}), 500)["message"] == "internal error"


def test_every_code_belongs_to_a_class_that_says_all_about_it() -> None:
    errors = list(every_error())
    assert len({(error.status, error.code, error.__doc__) for error in errors}) == len(errors)
    for error in errors:
        assert error.__module__.startswith("app.services.errors.")
        assert error.kind in KINDS[error.status]
        assert re.fullmatch(r"[a-z_]+", error.code or "none")
        assert re.fullmatch(r"[A-Z`].+\.", error.__doc__ or ""), error
        assert error.advice.endswith(".")


def test_no_error_is_defined_or_given_a_code_elsewhere() -> None:
    classes, unseen = set(), [AppError]
    while unseen:
        classes |= (subclasses := set(unseen.pop().__subclasses__()))
        unseen += subclasses
    ours = {error for error in classes if error.__module__.startswith("app.")}
    assert ours - set(every_error()) == {Forbidden, Unavailable}, "whose subclasses alone are raised"
    assert "code" not in inspect.signature(AppError).parameters
    names = {error.__name__ for error in (AppError, *ours)}
    app = Path(__file__).parents[1] / "app"
    for path in (path for path in app.rglob("*.py") if path.parent != app / "services" / "errors"):
        for node in ast.walk(ast.parse(path.read_text())):  # not by import: the engine's modules import MLX
            bases = node.bases if isinstance(node, ast.ClassDef) else []
            assert not names & {ast.unparse(base) for base in bases}, f"{path}:{node.lineno}"
