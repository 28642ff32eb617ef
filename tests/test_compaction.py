"""A conversation replaced by a summary of it: OpenAI's official client, what the model reads, and what comes of it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import openai
import pytest
from websockets.sync.client import connect

from app.dto.shared.sealed import seal, unseal
from app.services.generation import GenerationRequest
from tests import message_events
from tests.conftest import Server
from tests.document import DOCUMENT, resolved
from tests.response_events import events
from tests.scripted import ScriptedModel, answer, serving, thought

TRIGGER: Any = {"type": "compaction_trigger"}
CALL = {"type": "function_call", "call_id": "c", "name": "read", "arguments": "{}"}
ITEMS: list[Any] = [
    {"role": "developer", "content": "Be brief"},
    {"role": "user", "content": "What does a.txt say?"},
    CALL,
    {"type": "function_call_output", "call_id": "c", "output": "It says 42."},
    {"role": "assistant", "content": "42"},
]
TOOL: Any = {"type": "function", "name": "read", "parameters": {"type": "object"}}
SUMMARY = answer(thought("Let me see"), "a.txt says ", "42.")
Asking = Callable[..., tuple[openai.OpenAI, list[GenerationRequest]]]  # from the answers to the client, and requests
MORE: dict[str, Any] = {"model": "m", "tools": [TOOL], "instructions": "You read files"}


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    model = ScriptedModel()
    with (
        serving(model, tmp_path_factory.mktemp("compaction")) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):

        def ask(*scripts: Any) -> tuple[openai.OpenAI, list[GenerationRequest]]:
            model.scripts = list(scripts)
            model.requests = []
            return client, model.requests

        yield ask


def read(request: GenerationRequest) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.messages]


def summary_in(item: Any) -> str:
    assert (item.type, item.id[:4]) == ("compaction", "cmp_")
    return unseal(item.encrypted_content)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of the client, of messages of the user
def test_the_official_client_goes_on_from_a_summary(asking: Asking) -> None:
    client, requests = asking(SUMMARY, answer("So."), answer("So."))
    compacted = client.responses.compact(model="m", input=ITEMS, instructions="You read files")
    assert compacted.object == "response.compaction"
    *kept, item = compacted.output
    assert [(one.type, one.role) for one in kept] == [("message", "developer"), ("message", "user")]  # type: ignore[union-attr]
    assert summary_in(item) == "a.txt says 42."
    assert compacted.usage.output_tokens_details.reasoning_tokens == 1
    following: Any = [*compacted.output, {"role": "user", "content": "And b.txt?"}]
    client.responses.create(model="m", input=following)
    client.responses.create(model="m", input="And b.txt?", previous_response_id=compacted.id)
    by_output, by_id = map(read, requests[1:])
    assert by_output == by_id
    assert [role for role, _ in by_id] == ["system", "user", "user", "user"]
    assert by_id[2][1].endswith("\n\na.txt says 42.")
    assert by_id[3][1] == "And b.txt?"


def test_the_summary_is_asked_for_where_the_conversation_ends(asking: Asking) -> None:
    client, requests = asking(SUMMARY, answer("So."))
    client.responses.compact(input=ITEMS, extra_body={"tools": [TOOL]}, model="m", instructions="You read files")
    client.responses.create(input=ITEMS, **MORE)
    summarizing, going_on = requests
    assert summarizing.messages[:-1] == going_on.messages
    assert summarizing.messages[-1].role == "user"
    assert summarizing.tools == going_on.tools
    assert summarizing.tool_choice.mode == "none"
    assert summarizing.max_tokens is not None


def test_a_stored_response_is_compacted_by_its_id(asking: Asking) -> None:
    client, requests = asking(answer("Hello."), SUMMARY, SUMMARY)
    first = client.responses.create(model="m", input="Hi")
    by_id = client.responses.compact(model="m", previous_response_id=first.id)
    client.responses.compact(model="m", previous_response_id=by_id.id, input="And then?")
    assert [item.type for item in by_id.output] == ["message", "compaction"]
    assert [role for role, _ in read(requests[1])] == ["user", "assistant", "user"]
    again = read(requests[2])
    assert [role for role, _ in again] == ["user"] * 4
    assert again[1][1].endswith("a.txt says 42.")


def test_a_response_may_be_a_summary_and_what_follows_it_begins_there(asking: Asking) -> None:
    client, requests = asking(SUMMARY, SUMMARY, answer("So."))
    whole = client.responses.create(input=[*ITEMS, TRIGGER], **MORE)
    (item,) = whole.output
    assert (whole.status, summary_in(item)) == ("completed", "a.txt says 42.")
    body = {"input": [*ITEMS, TRIGGER], "stream": True}
    stream = events(client.post("/responses", body=body, cast_to=str))
    following = client.responses.create(model="m", input="And b.txt?", previous_response_id=whole.id)
    assert following.output_text == "So."
    assert [event["type"].removeprefix("response.") for event in stream] == [
        *("created", "in_progress", "output_item.added", "compaction.compacting", "output_item.done", "completed")
    ]
    assert stream[2]["item"]["encrypted_content"] == ""
    assert unseal(stream[4]["item"]["encrypted_content"]) == "a.txt says 42."
    assert [role for role, _ in read(requests[2])] == ["system", "user", "user", "user"]


def test_it_comes_over_a_socket(server: Server) -> None:
    with connect(f"{server.url.replace('http', 'ws')}/v1/responses", open_timeout=60) as socket:
        socket.send(json.dumps({"type": "response.create", "input": [*ITEMS, TRIGGER], "max_output_tokens": 12}))
        kinds: list[str] = []
        while not kinds or kinds[-1] not in {"response.completed", "response.incomplete", "response.failed"}:
            kinds.append(json.loads(socket.recv(timeout=60))["type"])
    assert "response.compaction.compacting" in kinds


@pytest.mark.parametrize("script", [answer(), answer(thought("Hm")), answer(" \n")])
def test_without_a_summary_nothing_is_lost(asking: Asking, script: Any) -> None:
    client, _ = asking(script, script)
    with pytest.raises(openai.InternalServerError) as failure:
        client.responses.compact(model="m", input=ITEMS)
    assert failure.value.code == "no_summary"
    body = {"input": [*ITEMS, TRIGGER], "stream": True}
    stream = message_events.events(client.post("/responses", body=body, cast_to=str))
    assert stream[-1]["type"] == "response.failed"


@pytest.mark.parametrize(("limit", "status"), [({}, "completed"), ({"max_output_tokens": 4}, "incomplete")])
def test_only_a_limit_of_the_request_makes_a_summary_incomplete(
    asking: Asking, limit: dict[str, Any], status: str
) -> None:
    client, _ = asking(answer("a.txt", reason="length"))
    response = client.responses.create(model="m", input=[*ITEMS, TRIGGER], **limit)
    assert response.status == status
    assert summary_in(response.output[0]) == "a.txt"


def test_only_own_summaries_stand_for_what_is_before_them(asking: Asking) -> None:
    foreign: Any = {"type": "compaction", "encrypted_content": "gAAAA"}
    own: Any = {"type": "compaction", "encrypted_content": seal("42.")}
    user: Any = {"role": "user", "content": "And b.txt?"}
    client, requests = asking(answer("a"), answer("b"))
    for item in (foreign, own):
        client.responses.create(model="m", input=[*ITEMS, item, user])
    assert [role for role, _ in read(requests[0])] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert [role for role, _ in read(requests[1])] == ["system", "user", "user", "user"]


def test_there_has_to_be_something_to_summarize(server: Server) -> None:
    nothing: tuple[dict[str, Any], ...] = ({}, {"input": []}, {"input": [TRIGGER]})
    for body in nothing:
        assert server.client.post("/v1/responses/compact", json=body).status_code in (400, 422)
    unknown = server.client.post("/v1/responses/compact", json={"previous_response_id": "resp_0"})
    assert unknown.json()["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("route", ["/v1/responses/compact", "/responses/compact"])
def test_a_real_model_summarizes_as_is_described(server: Server, route: str) -> None:
    body: dict[str, Any] = {"input": ITEMS, "tools": [TOOL], "max_output_tokens": 24, "seed": 1}
    reply = server.client.post(route, json=body)
    assert reply.status_code == 200, reply.text
    assert "X-Tiles-Ignored" not in reply.headers
    jsonschema.validate(reply.json(), resolved(DOCUMENT["components"]["schemas"]["CompactedReply"]))
    identity = reply.json()["id"]
    assert server.client.get(f"/v1/responses/{identity}").json() == reply.json()
    going_on = {"input": "And?", "previous_response_id": identity, "max_output_tokens": 4}
    assert server.client.post("/v1/responses", json=going_on).status_code == 200
