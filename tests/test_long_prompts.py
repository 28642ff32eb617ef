"""Prompts as long as those of coding agents: 30,000 tokens, over HTTP."""

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.agents import model
from tests.conftest import Server, running, wait_for

pytestmark = pytest.mark.slow

TOKENS = 30_000
TEXT = " ".join(f"Tile {number} lies in row {number // 7}." for number in range(3000))
MESSAGE = {"role": "user", "content": TEXT}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [MESSAGE], "max_tokens": 4},
    "/v1/messages": {"messages": [MESSAGE], "max_tokens": 4},
    "/v1/responses": {"input": [MESSAGE], "max_output_tokens": 16, "store": False},
}


def test_it_is_answered_and_comes_from_the_disk_after_a_restart(tmp_path: Path) -> None:
    folder = model.build(tmp_path / "model")
    usages = []
    for _ in range(2):
        with running(tmp_path, "--model", str(folder), seconds=300) as server:
            answer = server.client.post("/v1/chat/completions", json=BODIES["/v1/chat/completions"])
            assert answer.status_code == 200, answer.text
            usages.append(answer.json()["usage"])
            assert server.stop() == 0
    first, second = usages
    assert first["prompt_tokens"] == second["prompt_tokens"] >= TOKENS
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["prompt_tokens_details"]["cached_tokens"] >= TOKENS - 1


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a model that takes minutes for such a prompt."""
    home = tmp_path_factory.mktemp("slow")
    with running(home, "--model", str(model.build(home / "model", layers=4)), seconds=300) as server:
        yield server
        assert server.errors() == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", BODIES)
def test_it_is_not_computed_to_its_end_once_its_client_has_left(slow_server: Server, route: str, stream: bool) -> None:
    field = "input" if "input" in BODIES[route] else "messages"
    body = BODIES[route] | {"stream": stream, field: [MESSAGE | {"content": f"{route}, {stream}: {TEXT}"}]}
    before = computed(slow_server)
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(slow_server.url).port)
    connection.request("POST", route, json.dumps(body), {"Content-Type": "application/json"})
    wait_for(lambda: any(slot["n_prompt_tokens_processed"] for slot in busy(slow_server)), what="its computation")
    connection.close()
    wait_for(lambda: not busy(slow_server), what="its end")
    assert computed(slow_server) == before


def busy(server: Server) -> list[dict[str, Any]]:
    return [slot for slot in server.client.get("/slots").json() if slot["is_processing"]]


def computed(server: Server) -> int:
    """The tokens of prompts that were computed to their end."""
    line = re.search(r"^llamacpp:prompt_tokens_total (\S+)$", server.client.get("/metrics").text, re.MULTILINE)
    assert line is not None
    return int(float(line[1]))
