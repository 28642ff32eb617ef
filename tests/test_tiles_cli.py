"""The requests of the Tiles CLI 0.4.0 to 0.4.6 in its normal mode, read as its Rust code reads the answers."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Server
from tests.scripted import ScriptedModel, answer, serving, thought


def turn(
    url: str, text: str, previous: str = "", conversation: tuple[str, ...] = ()
) -> tuple[str, str, dict[str, Any]]:
    """One turn. Gives the reply, the id of the response, and the metrics."""
    roles = ("user", "assistant")
    earlier = [{"type": "message", "role": roles[n % 2], "content": words} for n, words in enumerate(conversation)]
    items = [{"type": "message", "role": "developer", "content": "You are Tiles."}, *earlier]
    body = {
        "model": "any",
        "input": [*items, {"type": "message", "role": "user", "content": text}],
        "reasoning": {"effort": "medium"},
        "chat_start": True,
        "stream": True,
        "previous_response_id": previous,
        "python_code": "",
        "messages": [{"role": "assistant", "content": ""}, {"role": "user", "content": text}],
    }
    accumulated, identity, metrics, completed = "", "", {}, False
    with httpx.stream("POST", f"{url}/v1/responses", json=body, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        for chunk in answer.iter_raw():
            for line in chunk.decode().splitlines():
                if not line.startswith("data: "):
                    continue
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    return accumulated.split("**[Answer]**")[-1], identity, metrics
                value = json.loads(data)
                metrics = value.get("metrics", metrics)
                identity = value["id"]
                completed = completed or "completed" in value["status"]
                if not completed:
                    accumulated += value["output"][0]["content"][0]["text"]
    pytest.fail("Result failed")


def test_the_cli_shows_the_answer_and_its_speed(demo: Server) -> None:
    reply, identity, metrics = turn(demo.url, "Hello")
    stored = demo.client.get(f"/v1/responses/{identity}").json()
    assert reply
    assert reply == "\n\n" + stored["output"][-1]["content"][0]["text"]  # below its thought
    assert metrics.keys() == {"ttft_ms", "total_tokens", "tokens_per_second", "total_latency_s"}
    assert isinstance(metrics["total_tokens"], int)


def test_the_next_turn_names_the_last_and_brings_it_along_and_it_stands_there_once(demo: Server) -> None:
    reply, identity, _ = turn(demo.url, "Hello")
    _, again, _ = turn(demo.url, "And now?", identity, ("Hello", reply))
    _, alone, _ = turn(demo.url, "And now?", "", ("Hello", reply))
    tokens = [demo.client.get(f"/v1/responses/{one}").json()["usage"]["input_tokens"] for one in (again, alone)]
    assert tokens[0] == tokens[1]
    assert turn(demo.url, "And now?", "resp_of_another_server", ("Hello", reply))[0]


def test_reasoning_is_shown_before_the_answer(tmp_path: Path) -> None:
    with serving(ScriptedModel([answer(thought("Let me see."), "Forty", "-two.")]), tmp_path) as url:
        assert turn(url, "What is it?")[0].strip() == "Forty-two."


def test_an_empty_previous_response_is_none(server: Server) -> None:
    body = {"input": "Hello", "previous_response_id": "", "max_output_tokens": 4}
    response = server.client.post("/v1/responses", json=body)
    assert (response.status_code, response.json()["previous_response_id"]) == (200, None)
