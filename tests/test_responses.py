"""OpenAI's Responses over HTTP, and its official client."""

import asyncio
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel

from app.services.errors import ShuttingDown
from app.services.generation import ToolCall
from tests.conftest import Server, wait_for
from tests.document import DOCUMENT, resolved
from tests.response_events import events
from tests.scripted import ScriptedModel, answer, serving, thought

ROUTE = "/v1/responses"
COUNT = f"{ROUTE}/input_tokens"
TOOL = {"type": "function", "name": "add", "description": "Adds", "parameters": {"type": "object"}}
SAMPLED: dict[str, Any] = {"temperature": 1.0, "seed": 7}


def post(server: Server, asked: Any = "Hi", /, route: str = ROUTE, **more: Any) -> httpx.Response:
    return server.client.post(route, json={"input": asked, "max_output_tokens": 16, "store": False} | more)


def error_of(answer: httpx.Response, *statuses: int) -> dict[str, Any]:
    assert answer.status_code in statuses, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def nameless(value: Any) -> Any:
    """Without ids and times, which are others each time."""
    if isinstance(value, dict):
        own = {"id", "created_at", "completed_at", "cached_tokens"}
        return {name: nameless(item) for name, item in value.items() if name not in own}
    return [nameless(item) for item in value] if isinstance(value, list) else value


def test_an_answer_is_what_is_described(server: Server) -> None:
    body = post(server, **SAMPLED).json()
    jsonschema.validate(body, resolved(DOCUMENT["components"]["schemas"]["ResponseReply"]))
    assert body["model"] == "tiny"
    assert body["status"] in {"completed", "incomplete"}
    assert body["store"] is False


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"reasoning": {"effort": "medium"}},
        {"reasoning": {"effort": "low", "summary": "auto"}},
        {"tools": [TOOL]},
        {"max_output_tokens": 0},
        {"instructions": "Be brief."},
    ],
)
def test_a_stream_says_what_the_whole_says(server: Server, more: dict[str, Any]) -> None:
    schema = DOCUMENT["paths"][ROUTE]["post"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    asked = SAMPLED | {"max_output_tokens": 40} | more
    whole = post(server, **asked).json()
    said = events(post(server, stream=True, **asked).text)
    for event in said:
        jsonschema.validate(event, resolved(schema))
    assert nameless(said[-1]["response"]) == nameless(whole)
    text = "".join(event["delta"] for event in said if event["type"] == "response.output_text.delta")
    assert text == "".join(
        part["text"] for item in whole["output"] if item["type"] == "message" for part in item["content"]
    )
    assert len({event["response"]["id"] for event in said if "response" in event}) == 1


def test_thinking_is_turned_on_and_off(server: Server) -> None:
    for effort, thinks in (("none", False), ("low", True)):
        items = post(server, reasoning={"effort": effort}, max_output_tokens=8, **SAMPLED).json()["output"]
        assert (items[0]["type"] == "reasoning") == thinks
    usage = post(server, reasoning={"effort": "low"}, max_output_tokens=8, **SAMPLED).json()["usage"]
    assert 0 < usage["output_tokens_details"]["reasoning_tokens"] <= 8


def test_a_cut_answer_is_incomplete(server: Server, tiny: Path) -> None:
    body = post(server, "Go on for long", max_output_tokens=3, **SAMPLED).json()
    assert body["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["usage"]["output_tokens"] == 3


def test_tokens_are_counted(server: Server) -> None:
    counted = post(server, route=COUNT, instructions="Be brief.").json()
    assert counted.keys() == {"object", "input_tokens"}
    assert counted["input_tokens"] == post(server, instructions="Be brief.").json()["usage"]["input_tokens"]
    assert post(server, "the river " * 9000, route=COUNT).json()["input_tokens"] > 9000
    assert error_of(post(server, "the river " * 9000), 400)["code"] == "context_length_exceeded"


@pytest.mark.parametrize("route", [ROUTE, COUNT])
@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"role": "wizard", "content": "Hi"}]}, "input"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"tools": [{"name": "typeless"}]}, "tools.0.type"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"metadata": {"a": 5}}, "metadata"),
        ({"store": "yes"}, "store"),
    ],
)
def test_a_body_that_does_not_validate_is_a_422_that_names_the_field(
    server: Server, route: str, more: dict[str, Any], field: str
) -> None:
    error = error_of(post(server, route=route, **more), 422)
    assert error["param"].startswith(field)


@pytest.mark.parametrize(
    ("more", "name"),
    [({"text": {"verbosity": "low"}}, "text.verbosity"), ({"reasoning": {"mode": "pro"}}, "reasoning.mode")],
)
def test_what_has_no_effect_inside_of_a_parameter_is_named_too(server: Server, more: dict[str, Any], name: str) -> None:
    for route, stream in ((ROUTE, False), (ROUTE, True), (COUNT, False)):
        ignored = post(server, route=route, max_output_tokens=1, stream=stream, **more)
        assert ignored.headers["x-tiles-ignored"] == name


# What is kept.


def test_a_response_is_kept_and_gone_on_with(server: Server) -> None:
    first = post(server, "My name is Ada.", store=True, metadata={"topic": "names"}, **SAMPLED).json()
    assert first["store"] is True
    assert server.client.get(f"{ROUTE}/{first['id']}").json() == first
    second = events(
        post(server, "What is it?", previous_response_id=first["id"], store=True, stream=True, **SAMPLED).text
    )[-1]["response"]
    assert second["previous_response_id"] == first["id"]
    assert server.client.get(f"{ROUTE}/{second['id']}").json() == second
    # It is as if all of it had been sent.
    items = [
        {"role": "user", "content": "My name is Ada."},
        *first["output"],
        {"role": "user", "content": "What is it?"},
    ]
    assert nameless(post(server, items, **SAMPLED).json()["output"]) == nameless(second["output"])
    assert second["usage"]["input_tokens"] == post(server, items, route=COUNT).json()["input_tokens"]
    listed = server.client.get(f"{ROUTE}/{second['id']}/input_items", params={"order": "asc"}).json()
    jsonschema.validate(listed, resolved(DOCUMENT["components"]["schemas"]["InputItemList"]))
    roles = [item.get("role") for item in listed["data"] if item["type"] == "message"]
    assert (roles[0], roles[-1]) == ("user", "user")
    newest = server.client.get(f"{ROUTE}/{second['id']}/input_items", params={"limit": 1}).json()
    assert newest["data"] == listed["data"][-1:]
    assert newest["has_more"] is True
    # And can be forgotten; what was gone on with it stays.
    gone = server.client.delete(f"{ROUTE}/{first['id']}")
    assert (gone.status_code, gone.json()) == (200, {"id": first["id"], "object": "response", "deleted": True})
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        error = error_of(server.client.request(method, f"{ROUTE}/{first['id']}{path}"), 404)
        assert error["code"] == "response_not_found"
    assert post(server, previous_response_id=second["id"]).status_code == 200


def test_items_that_were_kept_can_be_referred_to(server: Server) -> None:
    first = post(server, "My name is Ada.", store=True, **SAMPLED).json()
    listed = server.client.get(f"{ROUTE}/{first['id']}/input_items").json()["data"]
    asked = {"role": "user", "content": "What is it?"}
    references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
    begun = {"role": "user", "content": "My name is Ada."}
    by_reference = post(server, [begun, *references, asked], **SAMPLED).json()
    assert nameless(by_reference["output"]) == nameless(
        post(server, [begun, *first["output"], asked], **SAMPLED).json()["output"]
    )
    counted = post(server, [begun, *references, asked], route=COUNT).json()["input_tokens"]
    assert counted == by_reference["usage"]["input_tokens"]
    earlier = [{"type": "item_reference", "id": listed[0]["id"]}, asked]
    assert post(server, earlier, previous_response_id=first["id"], **SAMPLED).status_code == 200
    server.client.delete(f"{ROUTE}/{first['id']}")
    error = error_of(post(server, [begun, *references, asked]), 400)
    assert (error["param"], error["code"]) == ("input.1", "item_not_found")


def test_kept_files_are_for_their_owner_alone_and_say_nothing_in_the_log(server: Server) -> None:
    kept = post(server, "xylophone-secret", store=True).json()
    folder = server.home / ".tiles" / "server" / "responses"
    path = folder / f"{kept['id']}.json"
    assert "xylophone-secret" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "xylophone" not in server.log


def test_what_is_not_to_be_kept_is_not(server: Server) -> None:
    body = post(server, store=False).json()
    assert error_of(server.client.get(f"{ROUTE}/{body['id']}"), 404)


@pytest.mark.parametrize("identity", ["resp_nobody", "resp_" + "0" * 32, "x", "resp_%2e%2e", "..%2fsession"])
def test_unknown_responses_are_said_to_be_unknown(server: Server, identity: str) -> None:
    assert error_of(server.client.get(f"{ROUTE}/{identity}"), 404)["type"] == "not_found_error"
    error = error_of(post(server, previous_response_id=identity), 400)
    assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")


def test_only_what_runs_in_the_background_can_be_cancelled(server: Server) -> None:
    kept = post(server, store=True).json()
    assert "background" in error_of(server.client.post(f"{ROUTE}/{kept['id']}/cancel"), 400)["message"]
    assert error_of(server.client.get(f"{ROUTE}/{kept['id']}", params={"stream": "true"}), 400)["param"] == "stream"


def test_a_server_can_be_told_to_keep_nothing(tmp_path: Path) -> None:
    with serving(ScriptedModel([answer("a"), answer("b")]), tmp_path, store=False) as url:
        body = httpx.post(f"{url}{ROUTE}", json={"input": "Hi", "store": True}, timeout=60).json()
        assert body["store"] is False
        error = error_of(
            httpx.post(f"{url}{ROUTE}", json={"input": "Hi", "previous_response_id": body["id"]}, timeout=60), 400
        )
        assert "--store off" in error["message"]
    assert not (tmp_path / "data" / "responses").exists()


def test_a_torn_file_is_as_good_as_none(server: Server) -> None:
    kept = post(server, store=True).json()
    path = server.home / ".tiles" / "server" / "responses" / f"{kept['id']}.json"
    path.write_bytes(path.read_bytes()[:50])
    error_of(server.client.get(f"{ROUTE}/{kept['id']}"), 404)
    error_of(post(server, previous_response_id=kept["id"]), 400)


# A late failure, and a silence.


FAILING = [*answer("so far")[:-1], ShuttingDown("Going down")]


def test_a_late_failure_is_an_event_of_the_response(tmp_path: Path) -> None:
    with serving(ScriptedModel([FAILING, FAILING]), tmp_path) as url:
        *_, last = events(httpx.post(f"{url}{ROUTE}", json={"input": "Hi", "stream": True}, timeout=60).text)
        assert last["type"] == "response.failed"
        assert last["response"]["status"] == "failed"
        assert last["response"]["error"] == {"code": "server_error", "message": "Going down"}
        error_of(httpx.post(f"{url}{ROUTE}", json={"input": "Hi"}, timeout=60), 503)
    assert not (tmp_path / "data" / "responses").exists()


def test_a_silent_stream_says_that_it_is_in_progress(tmp_path: Path) -> None:
    model = ScriptedModel([answer("a")[:-1]])
    asked = {"input": "Hi", "stream": True}
    with (
        serving(model, tmp_path, sse_ping_interval=0.05) as url,  # type: ignore[arg-type]
        httpx.stream("POST", f"{url}{ROUTE}", json=asked, timeout=60) as stream,
    ):
        lines = stream.iter_lines()
        said = [line for line in (next(lines) for _ in range(40)) if line.startswith("event: ")]
        assert said[:2] == ["event: response.created", "event: response.in_progress"]
        assert said[-1] == "event: response.in_progress"


@pytest.mark.parametrize("stream", [True, False])
def test_a_hang_up_ends_the_answer(tmp_path: Path, stream: bool) -> None:
    model = ScriptedModel([answer("a")[:-1]])
    with serving(model, tmp_path) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}{ROUTE}", json={"input": "Hi", "stream": stream}, timeout=0.3)
        wait_for(lambda: model.cancelled == 1, 10, what="the end of the answer")
    assert not (tmp_path / "data" / "responses").exists()


# The official client.


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_the_client_is_answered(client: openai.OpenAI) -> None:
    response = client.responses.create(model="gpt-5", input="Hi", max_output_tokens=12, instructions="Be brief.")
    assert response.model == "tiny"
    assert response.output_text == response.output[0].content[0].text  # type: ignore[union-attr]
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert client.responses.retrieve(response.id).output_text == response.output_text
    following = client.responses.create(model="m", input="And?", previous_response_id=response.id, max_output_tokens=4)
    assert following.previous_response_id == response.id
    items = list(client.responses.input_items.list(following.id, limit=1))  # a page each
    assert [item.type for item in items] == ["message"] * 3
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(following.id)
    assert client.responses.input_tokens.count(model="m", input="Hi").input_tokens > 1


def test_the_clients_stream_helper_puts_an_answer_together(client: openai.OpenAI) -> None:
    for number in range(20):  # a random model seldom ends by itself
        with client.responses.stream(
            model="m", input=f"Hi {number}", reasoning={"effort": "low", "summary": "auto"}, max_output_tokens=60
        ) as stream:
            said = list(stream)
            if said[-1].type != "response.completed":
                assert said[-1].type == "response.incomplete"
                continue
            final = stream.get_final_response()
        deltas = "".join(event.delta for event in said if event.type == "response.output_text.delta")
        assert final.output_text == deltas
        return


def test_the_client_gets_an_answer_of_its_own_type(client: openai.OpenAI) -> None:
    class Size(BaseModel):
        size: Literal["small", "large"]

    parsed = client.responses.parse(
        model="m", input="How large?", text_format=Size, max_output_tokens=200, reasoning={"effort": "none"}
    )
    assert parsed.output_parsed is not None
    assert parsed.output_parsed.size in {"small", "large"}


def test_the_async_client_streams(server: Server) -> None:
    async def go() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.responses.create(model="m", input="Hi", max_output_tokens=12, stream=True)
            kinds = [event.type async for event in stream]
            assert kinds[0] == "response.created"
            assert kinds[-1] in {"response.completed", "response.incomplete"}

    asyncio.run(go())


def test_the_client_runs_a_tool_turn(tmp_path: Path) -> None:
    call = ToolCall(0, "call_1", "add", '{"a": 1, "b": 2}')
    tools: list[Any] = [TOOL | {"strict": False}]
    model = ScriptedModel([answer(thought("Add."), "Let me see.", call), answer("Three.")])
    with (
        serving(model, tmp_path) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        with client.responses.stream(model="m", input="1 and 2?", tools=tools) as stream:
            kinds = [event.type for event in stream]
            said = stream.get_final_response()
        assert "response.function_call_arguments.delta" in kinds
        made = next(item for item in said.output if item.type == "function_call")
        assert (made.name, json.loads(made.arguments)) == ("add", {"a": 1, "b": 2})
        output: list[Any] = [{"type": "function_call_output", "call_id": made.call_id, "output": "3"}]
        following = client.responses.create(model="m", input=output, previous_response_id=said.id, tools=tools)
        assert following.output_text == "Three."
    back = model.requests[1].messages
    assert [message.role for message in back] == ["user", "assistant", "tool"]
    assert (back[1].reasoning, back[1].content) == ("Add.", "Let me see.")
    assert back[2].tool_call_id == back[1].tool_calls[0].id == "call_1"


@pytest.mark.slow
def test_the_demo_model_remembers_by_previous_response_id(demo: Server) -> None:
    asked: dict[str, Any] = {"max_output_tokens": 100, "temperature": 0, "store": True}
    first = post(demo, "My name is Ada.", **asked).json()
    second = post(demo, "What is my name?", previous_response_id=first["id"], **asked).json()
    assert "Ada" in second["output"][-1]["content"][0]["text"]


@pytest.mark.slow
def test_the_demo_model_thinks_and_calls_a_tool(demo: Server) -> None:
    city = {"type": "string", "description": "Name of the city"}
    tool = {
        "type": "function",
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": city}, "required": ["city"]},
    }
    asked: dict[str, Any] = {"max_output_tokens": 200, "temperature": 0, "tools": [tool]}
    cities = ("Paris", "Oslo", "Lima", "Rome")
    made = [post(demo, f"What is the weather in {city}?", **asked).json()["output"][-1] for city in cities]
    assert [call for call in made if call["type"] == "function_call" and "city" in json.loads(call["arguments"])]
    thinking = post(demo, "Hello!", reasoning={"effort": "medium", "summary": "auto"}, temperature=0).json()
    assert [item["type"] for item in thinking["output"]] == ["reasoning", "message"]
