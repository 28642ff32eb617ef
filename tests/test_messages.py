"""Anthropic's Messages over HTTP, and its official client."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

from app.dto.anthropic.models import AnthropicModelPage
from app.dto.shared import parameters
from app.services.errors import ShuttingDown
from app.services.generation import ToolCall
from app.services.model_state import ModelState, Status
from tests.conftest import KEY, Server
from tests.document import DOCUMENT, resolved
from tests.message_events import blocks, events
from tests.scripted import ScriptedModel, answer, serving, thought

ROUTE = "/v1/messages"
COUNT = f"{ROUTE}/count_tokens"
USER = {"role": "user", "content": "Hi"}
TOOL = {"name": "add", "description": "Adds", "input_schema": {"type": "object"}}
SAMPLED: dict[str, Any] = {"temperature": 1.0, "seed": 7}


def post(server: Server, route: str = ROUTE, **more: Any) -> httpx.Response:
    return server.client.post(route, json={"messages": [USER], "max_tokens": 16} | more)


def error_of(answer: httpx.Response, *statuses: int) -> dict[str, Any]:
    """The error of a refusal, whose shape has to be Anthropic's."""
    assert answer.status_code in statuses, answer.text
    body = answer.json()
    assert body.keys() == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    assert error.keys() - {"n_prompt_tokens", "n_ctx"} == {"type", "message"}
    return error


def test_an_answer_has_anthropics_shape(server: Server) -> None:
    body = post(server, **SAMPLED).json()
    jsonschema.validate(body, resolved(DOCUMENT["components"]["schemas"]["MessageReply"]))
    assert body["model"] == "tiny"
    assert body["stop_reason"] in {"end_turn", "max_tokens"}
    assert body["usage"]["output_tokens"] <= 16


def test_a_stream_says_what_the_whole_says(server: Server) -> None:
    schema = DOCUMENT["paths"][ROUTE]["post"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    for more in ({}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"tools": [TOOL]}):
        asked = SAMPLED | {"max_tokens": 40, "messages": [{"role": "user", "content": f"Tell me, {len(more)}"}]} | more
        whole = post(server, **asked).json()
        said = events(post(server, stream=True, **asked).text)
        for event in said:
            jsonschema.validate(event, resolved(schema))
        assert blocks(said) == whole["content"]
        assert said[-2]["delta"] == {name: whole[name] for name in ("stop_reason", "stop_sequence")}
        assert said[-2]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_what_was_cached_is_counted_apart(server: Server) -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "What was cached is counted apart, isn't it?"}]}
    counted = post(server, COUNT, **asked).json()["input_tokens"]
    first, second = (post(server, **asked).json()["usage"] for _ in range(2))
    assert first["input_tokens"] + first["cache_read_input_tokens"] == counted
    assert (second["input_tokens"], second["cache_read_input_tokens"]) == (1, counted - 1)
    (start, *_) = events(post(server, stream=True, **asked).text)
    assert start["message"]["usage"]["cache_read_input_tokens"] == counted - 1
    assert start["message"]["usage"]["input_tokens"] == 1


def test_the_billing_line_does_not_keep_prompts_from_the_cache(server: Server) -> None:
    def ask(number: int) -> dict[str, int]:
        billing = {"type": "text", "text": f"x-anthropic-billing-header: cch={number};"}
        rules = {"type": "text", "text": "You are a careful assistant that thinks of everything."}
        usage: dict[str, int] = post(server, system=[billing, rules]).json()["usage"]
        return usage

    assert ask(1)["cache_read_input_tokens"] < 20
    assert ask(2)["input_tokens"] == 1


def test_a_prompt_that_does_not_fit_can_still_be_counted(server: Server) -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "the river " * 9000}]}
    count = post(server, COUNT, **asked).json()["input_tokens"]
    assert count > 9000
    error = error_of(post(server, **asked), 400)
    assert error["message"] == f"prompt is too long: {count} tokens > 8192 maximum"
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (count, 8192)


def test_tools_and_system_count(server: Server) -> None:
    plain, told = post(server, COUNT).json(), post(server, COUNT, system="Be brief.", tools=[TOOL]).json()
    assert told["input_tokens"] > plain["input_tokens"] + 20


_SEARCH = {"name": "ToolSearch", "description": "Finds tools", "input_schema": {"type": "object"}}
_HIDDEN = TOOL | {"defer_loading": True}
_FOUND = [
    USER,
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "s", "name": "ToolSearch", "input": {"query": "sum"}}],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "s", "content": [{"type": "tool_reference", "tool_name": "add"}]}
        ],
    },
]
_CALLED = [
    USER,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "add", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "3"}]},
]


@pytest.mark.parametrize(
    ("more", "is_shown"),
    [
        ({}, False),
        ({"messages": _FOUND}, True),
        ({"messages": _CALLED}, True),
        ({"tool_choice": {"type": "tool", "name": "add"}}, True),
        ({"tool_choice": {"type": "tool", "name": "ToolSearch"}}, False),
        (
            {"tools": [_SEARCH, _HIDDEN, {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}]},
            True,
        ),
    ],
)
def test_a_deferred_tool_is_shown_once_something_names_it(server: Server, more: dict[str, Any], is_shown: bool) -> None:
    asked = {"tools": [_SEARCH, _HIDDEN]} | more
    loaded = asked | {"tools": [tool | {"defer_loading": False} for tool in asked["tools"]]}
    without = asked | {"tools": [tool for tool in asked["tools"] if tool is not _HIDDEN]}
    assert post(server, COUNT, **asked).json() == post(server, COUNT, **(loaded if is_shown else without)).json()
    assert post(server, COUNT, **loaded).json() != post(server, COUNT, **without).json()
    assert post(server, **asked).status_code == 200


def test_a_stop_sequence_is_named(server: Server) -> None:
    asked = SAMPLED | {"max_tokens": 60}
    text = post(server, **asked).json()["content"][0]["text"]
    stop = next(character for character in text[3:] if character.isascii())
    body = post(server, stop_sequences=["never in there", stop], **asked).json()
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", stop)
    assert "".join(block["text"] for block in body["content"]) == text[: text.index(stop)]


def test_zero_tokens_compute_the_prompt_only(server: Server) -> None:
    body = post(server, max_tokens=0).json()
    assert (body["content"], body["stop_reason"], body["usage"]["output_tokens"]) == ([], "max_tokens", 0)


SCHEMA = {
    "type": "object",
    "properties": {"size": {"enum": ["small", "large"]}},
    "required": ["size"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_a_format_is_enforced(server: Server, name: str) -> None:
    form: dict[str, Any] = {"type": "json_schema", "schema": SCHEMA}
    asked = {
        "max_tokens": 200,
        "thinking": {"type": "disabled"},
        name: {"format": form} if name == "output_config" else form,
    }
    said = json.loads(post(server, **asked).json()["content"][-1]["text"])
    assert said["size"] in {"small", "large"}


@pytest.mark.parametrize("route", [ROUTE, COUNT])
@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"tools": [{"description": "nameless"}]}, "tools.0.name"),
        ({"tool_choice": {"type": "sometimes"}}, "tool_choice.type"),
        ({"thinking": {"type": "deeply"}}, "thinking.type"),
        ({"output_config": {"format": {"type": "sonnet"}}}, "output_config.format.type"),
    ],
)
def test_a_body_that_does_not_validate_is_a_422_that_names_the_field(
    server: Server, route: str, more: dict[str, Any], field: str
) -> None:
    error = error_of(post(server, route, **more), 422)
    assert error["type"] == "invalid_request_error"
    assert field in error["message"]


def test_images_are_refused_clearly(server: Server) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    error = error_of(post(server, messages=[{"role": "user", "content": [image]}]), 400)
    assert "images" in error["message"]
    assert "messages.0.content.0" in error["message"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_refusals_of_routing_have_anthropics_shape_too(server: Server, method: str) -> None:
    assert error_of(server.client.request(method, ROUTE), 405)["type"] == "invalid_request_error"
    assert error_of(server.client.request(method, f"{ROUTE}/batches"), 404)["type"] == "not_found_error"


def test_refusals_of_the_gate_have_anthropics_shape_too(guarded: Server) -> None:
    body = {"messages": [USER], "max_tokens": 1}
    refused = guarded.client.post(ROUTE, json=body)
    assert error_of(refused, 401)["type"] == "authentication_error"
    refused = guarded.client.post(ROUTE, json=body, headers={"Host": "evil.example", "X-Api-Key": KEY})
    assert error_of(refused, 403)["type"] == "permission_error"
    assert guarded.client.post(ROUTE, json=body, headers={"X-Api-Key": KEY}).status_code == 200


def test_other_routes_keep_their_envelope(server: Server) -> None:
    assert set(server.client.post("/v1/messagesx", json={}).json()) == {"error"}


# The registry of parameters.

REFUSED = [parameter for parameter in parameters.MESSAGES if parameter.treatment == "refused"]
IGNORED = [parameter for parameter in parameters.MESSAGES if parameter.treatment == "ignored"]
NESTED: dict[str, dict[str, Any]] = {"thinking.budget_tokens": {"type": "enabled"}}


def given(name: str, value: Any) -> dict[str, Any]:
    """A parameter by its dotted name."""
    outer, _, inner = name.partition(".")
    return {outer: NESTED.get(name, {}) | {inner: value}} if inner else {outer: value}


@pytest.mark.parametrize("parameter", REFUSED, ids=lambda parameter: parameter.name)
def test_a_refused_parameter_is_a_400_that_names_it(server: Server, parameter: parameters.Parameter) -> None:
    for value in ("other", {"type": "other"}, [1]):
        assert parameter.name in error_of(post(server, **given(parameter.name, value)), 400)["message"]
    for value in parameter.harmless:
        assert post(server, max_tokens=1, **given(parameter.name, value)).status_code == 200


@pytest.mark.parametrize("parameter", IGNORED, ids=lambda parameter: parameter.name)
def test_an_ignored_parameter_is_named_in_the_header(server: Server, parameter: parameters.Parameter) -> None:
    for route, stream in ((ROUTE, False), (ROUTE, True), (COUNT, False)):
        ignored = post(server, route, max_tokens=1, stream=stream, **given(parameter.name, "x"))
        assert ignored.headers["x-tiles-ignored"] == parameter.name


# A late failure, a silence, and what a random model never does.


FAILING = [*answer("so far")[:-1], ShuttingDown("Going down")]


def test_a_late_failure_is_an_error_event(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"messages": [USER], "stream": True}
    with serving(ScriptedModel([FAILING, FAILING]), tmp_path) as url:
        said = httpx.post(f"{url}{ROUTE}", json=asked, timeout=60)
        *_, last = events(said.text)
        assert last == {
            "type": "error",
            "error": {"type": "overloaded_error", "message": "Going down"},
            "request_id": said.headers["x-request-id"],
        }
        whole = httpx.post(f"{url}{ROUTE}", json=asked | {"stream": False}, timeout=60)
        assert error_of(whole, 503)["type"] == "overloaded_error"


def test_a_failure_of_ours_is_a_500_that_says_nothing(tmp_path: Path) -> None:
    error = RuntimeError("the secret is /home/ada/key")
    with serving(ScriptedModel([error, error]), tmp_path) as url:
        for stream in (False, True):
            answer = httpx.post(f"{url}{ROUTE}", json={"messages": [USER], "stream": stream}, timeout=60)
            assert error_of(answer, 500) == {"type": "api_error", "message": "internal error"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"a": NaN}', b"[" * 100_000])
@pytest.mark.parametrize("route", [ROUTE, COUNT])
def test_a_body_that_is_no_json_object_is_a_422(server: Server, route: str, body: bytes) -> None:
    assert error_of(server.client.post(route, content=body), 422)["type"] == "invalid_request_error"


def test_a_silent_stream_sends_pings(tmp_path: Path) -> None:
    model = ScriptedModel([answer("a")[:-1]])
    with (
        serving(model, tmp_path, sse_ping_interval=0.05) as url,  # type: ignore[arg-type]
        httpx.stream("POST", f"{url}{ROUTE}", json={"messages": [USER], "stream": True}, timeout=60) as stream,
    ):
        lines = stream.iter_lines()
        assert [line for line in (next(lines) for _ in range(40)) if line == "event: ping"]


# The official client.

HELLO: list[Any] = [USER]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_the_client_is_answered(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="claude-sonnet", messages=HELLO, max_tokens=8, system="Be brief.")
    assert message.model == "tiny"
    assert message._request_id is not None
    assert message.content[0].type == "text"
    assert message.usage.output_tokens <= 8
    counted = client.messages.count_tokens(model="claude-sonnet", messages=HELLO, system="Be brief.")
    assert counted.input_tokens == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def test_the_clients_stream_helper_puts_an_answer_together(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="m", messages=HELLO, max_tokens=40, thinking={"type": "enabled", "budget_tokens": 1024}
    ) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_message()
    assert {"message_start", "content_block_start", "message_stop"} <= kinds
    assert message.content[0].type == "thinking"
    assert message.content[0].signature
    assert message.stop_reason in {"max_tokens", "end_turn"}
    again = client.messages.create(model="m", messages=[*HELLO, message.to_param(), *HELLO], max_tokens=1)
    assert again.usage.output_tokens <= 1


def test_the_async_client_streams(server: Server) -> None:
    async def go() -> None:
        async with (
            anthropic.AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0) as client,
            client.messages.stream(model="m", messages=HELLO, max_tokens=12) as stream,
        ):
            text = "".join([piece async for piece in stream.text_stream])
            assert await stream.get_final_text() == text

    asyncio.run(go())


def test_the_client_raises_errors_of_its_classes(client: anthropic.Anthropic, guarded: Server) -> None:
    with pytest.raises(anthropic.BadRequestError) as long:
        client.messages.create(model="m", messages=[{"role": "user", "content": "the river " * 9000}], max_tokens=1)
    assert "prompt is too long" in long.value.message
    with pytest.raises(anthropic.UnprocessableEntityError):
        client.messages.create(model="m", messages=[], max_tokens=1)
    with (
        anthropic.Anthropic(base_url=guarded.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="m", messages=HELLO, max_tokens=1)


def test_the_environment_points_the_client_here(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", guarded.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with anthropic.Anthropic(max_retries=0) as client:
        assert client.messages.create(model="m", messages=HELLO, max_tokens=1).model == "tiny"


def test_the_client_runs_a_tool_turn(tmp_path: Path) -> None:
    call = ToolCall(0, "call_1", "add", '{"a": 1, "b": 2}')
    tools: list[Any] = [TOOL]
    model = ScriptedModel([answer(thought("Add."), "Let me see.", call), answer("Three.")])
    with (
        serving(model, tmp_path) as url,
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client,
    ):
        with client.messages.stream(model="m", messages=HELLO, max_tokens=40, tools=tools) as stream:
            said = stream.get_final_message()
        assert said.stop_reason == "tool_use"
        use = next(block for block in said.content if block.type == "tool_use")
        assert (use.name, use.input) == ("add", {"a": 1, "b": 2})
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "3"}
        turn: list[Any] = [*HELLO, said.to_param(), {"role": "user", "content": [result]}]
        answered = client.messages.create(model="m", messages=turn, max_tokens=40, tools=tools)
        assert answered.content[0].type == "text"
        assert answered.content[0].text == "Three."
    back = model.requests[1].messages
    assert [message.role for message in back] == ["user", "assistant", "tool"]
    assert (back[1].reasoning, back[1].content) == ("Add.", "Let me see.")
    assert back[2].tool_call_id == back[1].tool_calls[0].id == "call_1"


@pytest.mark.slow
def test_the_demo_model_thinks_where_it_is_told_to(demo: Server) -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 200, "temperature": 0}
    kinds = {
        kind: [block["type"] for block in post(demo, **asked, thinking=thinking).json()["content"]]
        for kind, thinking in (
            ("on", {"type": "enabled", "budget_tokens": 1024}),
            ("off", {"type": "disabled"}),
        )
    }
    assert kinds == {"on": ["thinking", "text"], "off": ["text"]}


CITY = {"type": "string", "description": "Name of the city"}


@pytest.mark.slow
def test_the_demo_model_calls_a_tool(demo: Server) -> None:
    tool = {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "input_schema": {"type": "object", "properties": {"city": CITY}, "required": ["city"]},
    }
    asked: dict[str, Any] = {"max_tokens": 200, "temperature": 0, "tools": [tool]}
    for city in ("Paris", "Oslo", "Lima", "Rome"):  # it is a small model
        question = {"role": "user", "content": f"What is the weather in {city}?"}
        said = post(demo, messages=[question], **asked).json()
        if said["stop_reason"] == "tool_use":
            break
    use = said["content"][-1]
    assert (use["name"], use["input"]) == ("get_weather", {"city": city})
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": "sunny, 21 degrees"}
    turn = [question, {"role": "assistant", "content": said["content"]}, {"role": "user", "content": [result]}]
    assert post(demo, messages=turn, **asked).json()["content"][-1]["type"] == "text"


# The list of models, as Anthropic's clients ask for it.

VERSION = {"anthropic-version": "2023-06-01"}


def test_anthropics_client_lists_the_models(server: Server) -> None:
    with anthropic.Anthropic(base_url=server.url, api_key="tiles", max_retries=0) as client:
        (model,) = client.models.list()
        again = client.models.retrieve(model.id)
        with pytest.raises(anthropic.NotFoundError) as refusal:
            client.models.retrieve("nobody")
    assert (model.id, model.display_name, model.type, model.lifecycle) == ("tiny", "tiny", "model", "active")
    assert (model.max_input_tokens, model.max_tokens) == (8192, 8192)
    assert model.capabilities is not None
    assert model.capabilities.structured_outputs.supported and not model.capabilities.image_input.supported
    assert model.created_at.timestamp() == server.client.get("/v1/models/tiny").json()["created"]
    assert again == model
    assert "nobody" in refusal.value.message and refusal.value.type == "not_found_error"


def test_without_its_header_the_list_is_openais(server: Server) -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for path, name, whole in (("", "AnthropicModelPage", "ModelList"), ("/tiny", "AnthropicModel", "ModelRow")):
        jsonschema.validate(server.client.get(f"/v1/models{path}", headers=VERSION).json(), resolved(schemas[name]))
        jsonschema.validate(server.client.get(f"/v1/models{path}").json(), resolved(schemas[whole]))


@pytest.mark.parametrize(("query", "status"), [("limit=0", 422), ("limit=few", 422), ("limit=1001", 422)])
def test_a_list_that_cannot_be_is_refused_in_anthropics_words(server: Server, query: str, status: int) -> None:
    error = error_of(server.client.get(f"/v1/models?{query}", headers=VERSION), status)
    assert error["type"] == "invalid_request_error" and "limit" in error["message"]


def test_the_gate_refuses_a_list_in_anthropics_words(guarded: Server) -> None:
    refused = guarded.client.get("/v1/models", headers=VERSION)
    assert error_of(refused, 401)["type"] == "authentication_error"


@hypothesis.given(st.sets(st.text("abc", min_size=1, max_size=2)), st.integers(1, 4), st.text("abc", max_size=2))
def test_pages_have_each_model_once_in_either_direction(ids: set[str], limit: int, end: str) -> None:
    states = [ModelState(name, Path(name), 0, Status.UNLOADED) for name in ids]
    forwards, page = [], AnthropicModelPage.of(states, limit=limit)
    forwards += page.data
    while page.has_more:
        page = AnthropicModelPage.of(states, limit=limit, after_id=page.last_id)
        forwards += page.data
    assert [model.id for model in forwards] == sorted(ids)
    backwards, first = [], end
    while (page := AnthropicModelPage.of(states, limit=limit, before_id=first)).data:
        backwards = [*page.data, *backwards]
        first = page.first_id or ""
    assert not page.has_more
    assert [model.id for model in backwards] == sorted(name for name in ids if name < end)
