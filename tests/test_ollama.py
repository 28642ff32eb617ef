"""Ollama's API over HTTP, and its official client."""

import json
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import msgspec
import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dto.ollama.chat import OllamaChatStream
from app.dto.ollama.request import OllamaOptions, OllamaRequest
from app.services.errors import ShuttingDown
from app.services.generation import ToolArguments, ToolCall
from tests import routes, tiny_model
from tests.conftest import Server, running
from tests.document import DOCUMENT, resolved

USER = {"role": "user", "content": "Hi"}
SHORT = {"num_predict": 4, "seed": 1}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object"}}}


@pytest.fixture
def client(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.url) as client:
        yield client


def post(server: Server, route: str, **body: Any) -> httpx.Response:
    return server.client.post(f"/api/{route}", json={"model": "tiny"} | body)


def error_of(answer: httpx.Response, *statuses: int) -> str:
    """The sentence of a refusal, whose shape has to be Ollama's."""
    assert answer.status_code in statuses, answer.text
    body = answer.json()
    assert body.keys() == {"error"}
    assert isinstance(body["error"], str) and body["error"]
    return str(body["error"])


def test_the_official_client_chats_whole_and_streamed(client: ollama.Client) -> None:
    messages = [{"role": "system", "content": "Be brief."}, USER]
    whole = client.chat("tiny", messages, options=SHORT)
    pieces = list(client.chat("tiny:latest", messages, options=SHORT, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for last in (whole, pieces[-1]):
        assert (last.model, last.done_reason, last.eval_count, last.load_duration) == ("tiny:latest", "length", 4, 0)
        assert last.prompt_eval_count and last.total_duration and last.eval_duration


def test_the_official_client_reads_the_lists(client: ollama.Client, server: Server) -> None:
    (model,) = client.list().models
    (running_model,) = client.ps().models
    assert (model.model, running_model.name) == ("tiny:latest", "tiny:latest")
    assert model.size == running_model.size_vram == server.client.get("/v1/models").json()["data"][0]["meta"]["size"]
    assert running_model.context_length == 8192
    shown = client.show("tiny:latest")
    assert shown.template and shown.capabilities and "completion" in shown.capabilities
    assert shown.modelinfo is not None
    assert shown.modelinfo[f"{shown.modelinfo['general.architecture']}.context_length"] == 8192


def test_the_official_client_gets_vectors(client: ollama.Client) -> None:
    embedded = client.embed("tiny", ["Hi", "Ho"])
    assert [sqrt(sum(x * x for x in vector)) for vector in embedded.embeddings] == pytest.approx([1, 1], abs=1e-3)
    (old,) = [client.embeddings("tiny", "Hi").embedding]
    length = sqrt(sum(x * x for x in old))
    assert [x / length for x in old] == pytest.approx(list(embedded.embeddings[0]), abs=1e-4)
    assert client.embed("tiny", "").embeddings == [] and client.embeddings("tiny").embedding == []


def test_json_is_enforced(client: ollama.Client) -> None:
    answer = client.generate("tiny", "Hi", format="json", think=False, options={"seed": 3, "num_predict": 8})
    assert (answer.response or "").lstrip().startswith("{"), answer


@pytest.mark.parametrize("route", ["chat", "generate"])
def test_without_words_the_model_is_loaded_and_the_only_one_stays(server: Server, route: str) -> None:
    loaded = post(server, route, keep_alive="5m")
    assert (loaded.status_code, loaded.json()["done"], loaded.json()["done_reason"]) == (200, True, "load")
    assert "stays" in error_of(post(server, route, keep_alive=0), 400)


@pytest.mark.slow
def test_several_models_are_loaded_and_unloaded(tmp_path: Path) -> None:
    for name in ("one", "two"):
        tiny_model.build(tmp_path / "models" / name)
    with (
        running(tmp_path, "--models-dir", str(tmp_path / "models")) as server,
        ollama.Client(host=server.url) as client,
    ):
        assert [model.model for model in client.list().models] == ["one:latest", "two:latest"]
        assert all(model.size for model in client.list().models)
        assert client.show("two").capabilities == ["completion", "tools"]
        assert client.show("two").modelinfo
        assert client.generate("two:latest").done_reason == "load"
        assert [model.name for model in client.ps().models] == ["two:latest"]
        assert client.chat("two", [USER], options=SHORT).model == "two:latest"
        assert client.generate("two", keep_alive=0).done_reason == "unload"
        assert client.chat("one", [], keep_alive="0s").done_reason == "unload"  # it never was in memory
        with pytest.raises(ollama.ResponseError, match="not found") as unknown:
            client.chat("three", [USER])
        assert unknown.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="not found"):
            client.generate("three", keep_alive=0)


@pytest.mark.parametrize(("method", "path"), sorted(pair for pair in routes.ROUTES if pair[1].startswith("/api/")))
def test_every_refusal_is_a_sentence(server: Server, method: str, path: str) -> None:
    foreign = server.client.request(method, path, headers={"Host": "evil.example"})
    if method != "HEAD":
        error_of(foreign, 403)
    error_of(server.client.request("PATCH", path), 405)
    if path in routes.POSTS:
        error_of(server.client.post(path, content=b"{"), 422)
        error_of(server.client.post(path, json={"model": 5}), 422)
    error_of(server.client.get(f"{path}/nothing"), 404)


@pytest.mark.parametrize("route", ["pull", "push", "create", "copy"])
def test_models_are_not_made_here(server: Server, route: str) -> None:
    assert "tiles-server pull" in error_of(server.client.post(f"/api/{route}", json={"model": "x"}), 501)
    assert "tiles-server pull" in error_of(server.client.request("DELETE", "/api/delete", json={"model": "x"}), 501)


@pytest.mark.parametrize(
    ("route", "body", "status", "word"),
    [
        ("chat", {"messages": [USER | {"images": ["AA=="]}]}, 400, "images"),
        ("chat", {"messages": [{"role": "wizard", "content": "x"}]}, 422, "messages.0.role"),
        (
            "chat",
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
            400,
            "messages",
        ),
        ("chat", {"messages": [USER], "options": {"temperature": -1}}, 422, "options.temperature"),
        ("chat", {"messages": [USER], "format": "xml"}, 422, "format"),
        ("chat", {"messages": [USER], "format": {"not": {}}}, 400, "format"),
        ("chat", {"messages": [USER], "think": "much"}, 422, "think"),
        ("chat", {"messages": [USER], "keep_alive": "soon"}, 422, "keep_alive"),
        ("chat", {"messages": [USER], "top_logprobs": 2}, 400, "top_logprobs"),
        ("chat", {"messages": [USER], "options": {"stop": ["x"] * 257}}, 422, "options.stop"),
        ("chat", {"messages": [{"role": "user", "content": "the river " * 9000}]}, 400, "context"),
        ("generate", {"prompt": "Hi", "template": "{{ .Prompt }}"}, 400, "template"),
        ("generate", {"prompt": "Hi", "images": ["AA=="]}, 400, "images"),
        ("generate", {"prompt": "Hi", "suffix": "x"}, 400, "suffix"),
        ("embed", {"input": "Hi", "dimensions": 7000}, 400, "dimensions"),
        ("embed", {"input": ["x"] * 2049}, 422, "input"),
        ("show", {"model": "nobody"}, 404, "nobody"),
        ("show", {"model": ""}, 404, "There is no model"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(
    server: Server, route: str, body: dict[str, Any], status: int, word: str
) -> None:
    assert word in error_of(post(server, route, **body), status)


def test_an_answer_and_its_lines_are_as_described(server: Server) -> None:
    media = DOCUMENT["paths"]["/api/chat"]["post"]["responses"]["200"]["content"]
    asked = {"messages": [USER], "options": SHORT, "logprobs": True, "tools": [TOOL]}
    whole = post(server, "chat", stream=False, **asked)
    jsonschema.validate(whole.json(), resolved(media["application/json"]["schema"]))
    streamed = post(server, "chat", **asked)
    assert streamed.headers["content-type"].startswith("application/x-ndjson")
    for line in streamed.text.splitlines():
        jsonschema.validate(json.loads(line), resolved(media["application/x-ndjson"]["schema"]))


def test_what_has_no_effect_is_named(server: Server) -> None:
    more = {"keep_alive": "5m", "options": SHORT | {"num_ctx": 9, "mirostat": 0}, "novel": 1}
    named = post(server, "chat", messages=[USER], **more).headers["x-tiles-ignored"]
    assert named == "keep_alive, novel, options.mirostat, options.num_ctx"


def test_a_late_error_is_a_line() -> None:
    reply = OllamaChatStream().failure(ShuttingDown())
    assert json.loads(msgspec.json.encode(reply)) == {"error": ShuttingDown().message}


@given(st.lists(st.text(max_size=6), max_size=6))
def test_a_call_is_told_once_it_is_whole(pieces: list[str]) -> None:
    stream = OllamaChatStream()
    text = json.dumps({"a": "".join(pieces)})
    events: list[Any] = [
        ToolCall(0, "c", "f", ""),
        *(ToolArguments(0, letter) for letter in text),
        ToolCall(1, "d", "g", "{}"),
    ]
    lines = [line for event in events for line in stream.feed(event)]
    (line,) = lines
    calls = json.loads(msgspec.json.encode(line))["message"]["tool_calls"]
    assert calls == [{"id": "c", "function": {"index": 0, "name": "f", "arguments": {"a": "".join(pieces)}}}]


@given(st.one_of(st.none(), st.integers(-2, 2**31 - 1)), st.floats(0, 100), st.integers(-1, 2**31 - 1))
def test_options_are_the_same_as_whole_numbers_or_not(limit: int | None, temperature: float, last_n: int) -> None:
    values: dict[str, Any] = {"num_predict": limit, "temperature": temperature, "repeat_last_n": last_n}
    options = OllamaOptions.model_validate(values)
    floats = {name: value if value is None else float(value) for name, value in values.items()}
    assert OllamaOptions.model_validate(floats) == options
    assert options.max_tokens == (None if limit is None or limit < 0 else limit)
    assert options.sampling().penalty_window == (None if last_n == -1 else last_n)
    assert options.sampling().temperature == temperature


@pytest.mark.parametrize(
    ("value", "unloads"),
    [(0, True), (0.0, True), ("0", True), ("0s", True), ("0m0s", True), ("5m", False), (-1, False)],
)
def test_no_time_at_all_unloads(value: Any, unloads: bool) -> None:
    assert OllamaRequest.model_validate({"model": "x", "keep_alive": value}).unloads is unloads
