"""Responses over a WebSocket: the official client, several turns, who may open one, and what ends it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import KEY, Server, running, wait_for
from tests.response_events import events as response_events

ENDS = {"response.completed", "response.incomplete", "response.failed", "error"}
SHORT = {"max_output_tokens": 4, "seed": 1, "store": False}


@contextmanager
def opened(server: Server, path: str = "/v1/responses", **headers: str) -> Iterator[ClientConnection]:
    url = server.url.replace("http", "ws") + path
    with connect(url, additional_headers=headers, open_timeout=60, close_timeout=60) as socket:
        yield socket


def ask(socket: ClientConnection, text: Any = "Hi", **more: Any) -> list[dict[str, Any]]:
    """Send a request, and read up to the end of its answer."""
    socket.send(json.dumps({"type": "response.create", "input": text} | SHORT | more))
    return read(socket)


def read(socket: ClientConnection) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    while not told or told[-1]["type"] not in ENDS:
        told.append(json.loads(socket.recv(timeout=60)))
    return told


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used:DeprecationWarning")  # that is openai's own affair
def test_the_official_client_takes_several_turns(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x") as client, client.responses.connect() as connection:
        previous: str | None = None
        for text in ("Tell me of the tiles", "And then?", "And then?"):
            connection.response.create(
                model="m", input=text, previous_response_id=previous, max_output_tokens=4, store=False
            )
            last = _until_end(connection)
            assert last.type in {"response.incomplete", "response.completed"}
            assert last.response.previous_response_id == previous
            previous = last.response.id


def _until_end(connection: Any) -> Any:
    return next(event for event in connection if event.type in ENDS)


def test_the_events_are_those_of_the_stream(server: Server) -> None:
    with opened(server) as socket:
        told = ask(socket, "Tell me of the tiles", temperature=0)
    body = {"input": "Tell me of the tiles", "temperature": 0, "stream": True} | SHORT
    streamed = response_events(server.client.post("/v1/responses", json=body).text)
    assert [event["type"] for event in told] == [event["type"] for event in streamed]
    assert [event.get("delta") for event in told] == [event.get("delta") for event in streamed]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))


def test_a_response_that_is_not_stored_is_known_on_its_connection_alone(server: Server) -> None:
    with opened(server) as socket, opened(server, "/responses") as other:
        identity = ask(socket)[-1]["response"]["id"]
        (unknown,) = ask(other, previous_response_id=identity)
        assert (unknown["status"], unknown["error"]["code"]) == (400, "previous_response_not_found")
        tokens = ask(socket, "And?", previous_response_id=identity)[-1]["response"]["usage"]["input_tokens"]
        assert tokens > ask(other, "And?")[-1]["response"]["usage"]["input_tokens"]
    assert server.client.get(f"/v1/responses/{identity}").status_code == 404


def test_a_prompt_can_be_computed_ahead(server: Server) -> None:
    more = {"instructions": "Be brief, and speak of nothing but tiles and what they are made of. " * 4}
    with opened(server) as socket:
        created, completed = ask(socket, [], generate=False, **more)
        assert (created["type"], completed["type"]) == ("response.created", "response.completed")
        assert completed["response"]["output"] == []
        end = ask(socket, "Hi", previous_response_id=completed["response"]["id"], **more)[-1]
    assert end["response"]["usage"]["input_tokens_details"]["cached_tokens"] > 20


@pytest.mark.parametrize(
    ("message", "status", "param"),
    [
        ("{", 422, None),
        ("[]", 422, None),
        (b"\xff\xfe", 415, None),
        ({"type": "response.cancel"}, 400, "type"),
        ({"type": "response.create"}, 422, "input"),
        ({"type": "response.create", "input": []}, 422, "input"),
        ({"type": "response.create", "input": "Hi", "temperature": "hot"}, 422, "temperature"),
        ({"type": "response.create", "input": "Hi", "background": True}, 400, "background"),
        ({"type": "response.create", "input": [{"type": "item_reference", "id": "msg_1"}]}, 400, "input.0"),
    ],
)
def test_what_cannot_be_answered_is_an_event_and_the_session_goes_on(
    server: Server, message: Any, status: int, param: str | None
) -> None:
    with opened(server) as socket:
        socket.send(json.dumps(message) if isinstance(message, dict) else message)
        (error,) = read(socket)
        assert (error["type"], error["status"], error["error"]["param"]) == ("error", status, param)
        socket.send(json.dumps({"type": "response.processed", "response_id": "x"}))
        assert ask(socket)[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": ""}, 401),
    ],
)
def test_who_may_not_ask_may_not_open_a_socket(guarded: Server, headers: dict[str, str], status: int) -> None:
    allowed = {"Authorization": f"Bearer {KEY}"}
    with pytest.raises(InvalidStatus) as refusal, opened(guarded, **allowed | headers):
        pass
    assert refusal.value.response.status_code == status
    assert json.loads(refusal.value.response.body)["error"]["type"] in {"permission_error", "authentication_error"}
    with opened(guarded, Origin="http://localhost:5173", **allowed) as socket:
        assert ask(socket)[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses/input_tokens", "/ping", "/nothing"])
def test_elsewhere_there_are_no_sockets(server: Server, path: str) -> None:
    with pytest.raises(InvalidStatus) as refusal, opened(server, path):
        pass
    assert refusal.value.response.status_code in {200, 404, 405}


def test_to_hang_up_cancels_the_answer(server: Server) -> None:
    with opened(server) as socket:
        endless = {"type": "response.create", "input": "Go on", "store": False, "temperature": 0}
        socket.send(json.dumps(endless))
        assert json.loads(socket.recv(timeout=60))["type"] == "response.created"
    wait_for(lambda: not any(slot["is_processing"] for slot in server.client.get("/slots").json()), what="idle slots")


def test_who_sends_too_much_at_once_is_hung_up_on(server: Server) -> None:
    with opened(server) as socket, pytest.raises(ConnectionClosed) as end:
        for _ in range(12):
            socket.send(json.dumps({"type": "response.create", "input": "Hi", "store": False}))
        while True:
            socket.recv(timeout=60)
    assert end.value.rcvd is not None and end.value.rcvd.code == 1008


@pytest.mark.slow
def test_a_shutdown_ends_sockets(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny)) as server:
        with opened(server) as socket:
            ask(socket)
            server.process.terminate()
            with pytest.raises(ConnectionClosed) as end:
                socket.recv(timeout=60)
        assert end.value.rcvd is not None and end.value.rcvd.code == 1012
        assert server.process.wait(30) == 0
        assert server.errors() == []


def test_no_refusal_is_logged_as_an_error(guarded: Server) -> None:
    with pytest.raises(InvalidStatus), opened(guarded, Origin="https://evil.example"):
        pass
    assert guarded.errors() == []
