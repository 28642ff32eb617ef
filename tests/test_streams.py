"""Streams with an X-Conversation-Id, over real sockets: a reload or a lost connection loses nothing."""

import json
import secrets
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.services.generation import Progress, Started
from tests.conftest import Server, running, wait_for
from tests.scripted import PROMPT_TOKENS, ScriptedModel, answer, serving

END = b"data: [DONE]\n\n"
UI = {"return_progress": True, "timings_per_token": True, "sse_ping_interval": 1, "stream": True}
LONG = {"max_tokens": 300, "ignore_eos": True, "seed": 3, "temperature": 1}
ENDLESS = {"max_tokens": 8000, "ignore_eos": True, "temperature": 0}


@pytest.fixture
def conversation() -> str:
    return f"test-{secrets.token_hex(8)}"


def body(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Tell me a long story"}], **UI, **more}


def sent(server: Server, conversation: str, **more: Any) -> bytes:
    """The bytes of a whole stream."""
    headers = {"X-Conversation-Id": conversation}
    return server.client.post("/v1/chat/completions", json=body(**more), headers=headers).read()


def hung_up(url: str, conversation: str, *, events: int = 3, **more: Any) -> bytes:
    """Read a few events of a stream, and close the connection: a page that is reloaded."""
    headers = {"X-Conversation-Id": conversation} if conversation else {}
    read = b""
    with (
        httpx.Client(base_url=url, timeout=60) as client,
        client.stream("POST", "/v1/chat/completions", json=body(**more), headers=headers) as stream,
    ):
        assert stream.status_code == 200
        pieces = stream.iter_raw()
        while read.count(b"\n\n") < events:
            read += next(pieces)
    return read


def replay(url: str, conversation: str, offset: int | None = 0) -> httpx.Response:
    params: dict[str, Any] = {"conv_id": conversation} | ({} if offset is None else {"from": offset})
    return httpx.get(f"{url}/v1/stream", params=params, timeout=60)


def looked_up(url: str, *conversations: str) -> list[dict[str, Any]]:
    answer = httpx.post(f"{url}/v1/streams/lookup", json={"conversation_ids": conversations}, timeout=60)
    assert answer.status_code == 200
    return list(answer.json())


def text(stream: bytes) -> str:
    """What a stream says, as the Web UI reads it: by lines."""
    lines = [line.removeprefix(b"data: ") for line in stream.split(b"\n") if line.startswith(b"data: {")]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines)


def test_a_stream_is_sent_again_byte_for_byte_from_any_byte_on(server: Server, conversation: str) -> None:
    whole = sent(server, conversation, max_tokens=12, ignore_eos=True)
    assert whole.endswith(END)
    again = replay(server.url, conversation)
    assert again.headers["content-type"].startswith("text/event-stream")
    assert replay(server.url, conversation, None).content == again.content == whole
    for offset in [*range(0, len(whole), 211), len(whole) - 1, len(whole), len(whole) + 1000]:
        part = replay(server.url, conversation, offset)
        assert (part.status_code, part.content) == (200, whole[offset:])
    (session,) = looked_up(server.url, conversation)
    assert (session["conversation_id"], session["is_done"]) == (conversation, True)
    assert session["total_bytes"] == len(whole)
    assert 0 < session["started_at"] <= session["completed_at"]


def test_a_reload_in_the_middle_of_an_answer_loses_nothing_for_two_readers(server: Server, conversation: str) -> None:
    begun = hung_up(server.url, conversation, **LONG)
    with ThreadPoolExecutor(2) as readers:
        again, rest = readers.map(lambda offset: replay(server.url, conversation, offset).content, (0, len(begun)))
    assert again == begun + rest
    assert again.endswith(END)
    alone = server.client.post("/v1/chat/completions", json=body(**LONG)).content
    assert text(again) == text(alone)
    assert looked_up(server.url, conversation)[0]["is_done"] is True


def test_a_stop_ends_the_answer_and_whoever_reads_it(server: Server, conversation: str) -> None:
    hung_up(server.url, conversation, **ENDLESS)
    with httpx.stream("GET", f"{server.url}/v1/stream", params={"conv_id": conversation}, timeout=60) as reader:
        pieces = reader.iter_raw()
        read = next(pieces)
        stopped = httpx.delete(f"{server.url}/v1/stream", params={"conv_id": conversation}, timeout=60)
        assert (stopped.status_code, stopped.content) == (204, b"")
        read += b"".join(pieces)
    assert not read.endswith(END)
    assert looked_up(server.url, conversation) == []
    gone = replay(server.url, conversation)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "no_stream")
    assert httpx.delete(f"{server.url}/v1/stream", params={"conv_id": conversation}, timeout=60).status_code == 204


def test_the_next_answer_of_a_conversation_takes_the_place_of_the_last(server: Server, conversation: str) -> None:
    old = hung_up(server.url, conversation, **ENDLESS)
    new = sent(server, conversation, max_tokens=3)
    assert new.endswith(END)
    assert replay(server.url, conversation).content == new
    assert old[:60] not in new
    (session,) = looked_up(server.url, conversation)
    assert session["total_bytes"] == len(new)


def test_a_conversation_is_found_with_and_without_its_model(server: Server, conversation: str) -> None:
    named = f"{conversation}::tiny"
    sent(server, named, max_tokens=2)
    assert looked_up(server.url, conversation)[0]["conversation_id"] == named
    assert looked_up(server.url, f"{conversation}::other") == []
    assert replay(server.url, named).status_code == 200
    assert looked_up(server.url, "another", "") == []


@pytest.mark.parametrize(
    ("method", "path", "sends", "status"),
    [
        ("GET", "/v1/stream", None, 422),
        ("GET", "/v1/stream?conv_id=none", None, 404),
        ("GET", "/v1/stream?conv_id=none&from=-1", None, 422),
        ("GET", "/v1/stream?conv_id=none&from=x", None, 422),
        ("DELETE", "/v1/stream", None, 422),
        ("POST", "/v1/streams/lookup", {}, 422),
        ("POST", "/v1/streams/lookup", {"conversation_ids": "a"}, 422),
        ("POST", "/v1/streams/lookup", {"conversation_ids": [1]}, 422),
    ],
)
def test_what_cannot_be_is_refused(server: Server, method: str, path: str, sends: Any, status: int) -> None:
    refused = server.client.request(method, path, json=sends)
    assert refused.status_code == status
    assert refused.json()["error"]["message"]


def test_a_name_that_is_too_long_is_refused(server: Server) -> None:
    refused = server.client.post("/v1/chat/completions", json=body(), headers={"X-Conversation-Id": "x" * 513})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-Conversation-Id")


# What the engine is told; it never ends by itself.

NEVER_ENDS = [Started("scripted", PROMPT_TOKENS), Progress(PROMPT_TOKENS, PROMPT_TOKENS, 0, 1.0)]


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[tuple[str, ScriptedModel]]:
    model = ScriptedModel([NEVER_ENDS, NEVER_ENDS])
    with serving(model, tmp_path) as url:
        yield url, model


def test_without_a_conversation_a_hang_up_cancels(endless: tuple[str, ScriptedModel]) -> None:
    url, model = endless
    hung_up(url, "", events=1)
    wait_for(lambda: model.cancelled == 1, what="the end of the answer")


def test_with_one_only_a_stop_cancels(endless: tuple[str, ScriptedModel]) -> None:
    url, model = endless
    hung_up(url, "a", events=1)
    hung_up(url, "b", events=1)
    assert [session["is_done"] for session in looked_up(url, "a", "b")] == [False, False]
    assert model.cancelled == 0
    httpx.delete(f"{url}/v1/stream", params={"conv_id": "a"}, timeout=60)
    assert model.cancelled == 1
    assert [session["conversation_id"] for session in looked_up(url, "a", "b")] == ["b"]


def test_pings_are_part_of_what_is_sent_again(tmp_path: Path) -> None:
    with serving(ScriptedModel([NEVER_ENDS]), tmp_path, sse_ping_interval=0.05) as url:  # type: ignore[arg-type]
        begun = hung_up(url, "a", events=4, sse_ping_interval=None)
        with httpx.stream("GET", f"{url}/v1/stream", params={"conv_id": "a"}, timeout=60) as reader:
            again = b""
            for piece in reader.iter_raw():
                again += piece
                if len(again) > len(begun):
                    break
    assert begun.count(b": ping\n\n") >= 3
    assert again.startswith(begun)


def test_a_whole_answer_needs_no_stream(tmp_path: Path) -> None:
    with serving(ScriptedModel([answer("Hi")]), tmp_path) as url:
        headers = {"X-Conversation-Id": "a"}
        said = httpx.post(f"{url}/v1/chat/completions", json=body(stream=False), headers=headers, timeout=60)
        assert said.json()["choices"][0]["message"]["content"] == "Hi"
        assert looked_up(url, "a") == []


@pytest.mark.slow
def test_the_server_goes_down_without_waiting_for_streams_that_nobody_reads(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny), env={"TILES_SHUTDOWN_SECONDS": "0"}) as server:
        hung_up(server.url, "a", **ENDLESS)
        with httpx.stream("GET", f"{server.url}/v1/stream", params={"conv_id": "a"}, timeout=60) as reader:
            pieces = reader.iter_raw()
            read = next(pieces)
            server.process.send_signal(signal.SIGTERM)
            read += b"".join(pieces)
        assert b"shutting_down" in read.split(b"\n\n")[-2]
        assert server.process.wait(20) == 0
        assert server.errors() == []
