"""Where a request's time went: parts that add up to the whole, in the answer, over HTTP and on the command line."""

import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.errors import NotFound
from app.services.recent_timings import RecentTimings, TimedRequest
from app.services.stages import RequestTiming, Stages
from tests.conftest import Server, environment, wait_for

PARTS = ("request", "template", "queue", "cache", "prompt", "first_token", "tokens", "grammar", "client")
SECRET = "Bananarama"  # in prompts
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

moments = st.floats(0, 1e6)


def parts_of(timing: RequestTiming) -> dict[str, float]:
    """Each part by its name, in the order in which they happened."""
    return {one.name.removesuffix("_ms"): getattr(timing, one.name) for one in fields(timing)[:-1]}


@given(st.lists(moments, min_size=9, max_size=9), st.floats(0, 1e3))
def test_the_parts_add_up_to_the_whole_in_whatever_order_the_clock_says(times: list[float], grammar: float) -> None:
    *begins, end = times
    timing = Stages(*begins, grammar_seconds=grammar).timing(end)
    parts = parts_of(timing)
    assert tuple(parts) == PARTS
    assert all(part >= 0 for part in parts.values())
    assert sum(parts.values()) == pytest.approx(timing.total_ms, abs=1e-3)
    assert timing.total_ms == pytest.approx((max(times) - times[0]) * 1000, abs=2e-3)


@given(st.lists(st.integers(0, 10**6), min_size=9, max_size=9).map(sorted), st.integers(0, 10**6))
def test_each_part_is_as_long_as_its_stage(micros: list[int], grammar: int) -> None:
    *begins, end = (one / 1e6 for one in micros)
    parts = parts_of(Stages(*begins, grammar_seconds=grammar / 1e6).timing(end))
    for number, name in enumerate(("request", "template", "queue", "cache", "prompt")):
        assert parts[name] == pytest.approx((micros[number + 1] - micros[number]) / 1000)
    assert parts["grammar"] == pytest.approx(min(grammar, micros[7] - micros[5]) / 1000)
    assert parts["grammar"] + parts["first_token"] + parts["tokens"] == pytest.approx((micros[7] - micros[5]) / 1000)
    assert parts["client"] == pytest.approx((micros[8] - micros[7]) / 1000)


@given(st.integers(1, 5), st.lists(st.sampled_from("abc"), max_size=12))
def test_only_the_last_ones_are_remembered(most: int, ids: list[str]) -> None:
    recent = RecentTimings(most)
    for number, one in enumerate(ids):
        recent.add(TimedRequest(one, number, "/", "m", "stop", 0, 0, 0, RequestTiming(*[0.0] * 10)))
    latest = recent.latest(100)
    assert [one.end for one in latest] == [*range(len(ids))][-most:][::-1]
    assert recent.latest(2) == latest[:2]
    for one in "abc":
        match = next((request for request in latest if request.id == one), None)
        if match:
            assert recent.find(one) is match
        else:
            with pytest.raises(NotFound):
                recent.find(one)


def check(timing: dict[str, float]) -> dict[str, float]:
    """The parts of a timing that is whole."""
    parts = {name: timing[f"{name}_ms"] for name in PARTS}
    assert sum(parts.values()) == pytest.approx(timing["total_ms"], abs=0.01)
    assert min(parts.values()) >= 0
    for name in ("request", "template", "prompt", "first_token", "tokens"):
        assert parts[name] > 0, name
    return parts


def timed(server: Server, identity: str) -> dict[str, Any]:
    """What is remembered of a request; of a stream, as soon as its end is sent."""

    def find() -> dict[str, Any] | None:
        answer = server.client.get(f"/v1/timings/{identity}")
        return answer.json() if answer.status_code == 200 else None

    found: dict[str, Any] = wait_for(find, what=f"the timing of {identity}")
    return found


STREAMS = [False, True]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    "path, body",
    [
        ("/v1/chat/completions", {"n": 2}),
        ("/v1/completions", {"prompt": f"Once {SECRET}"}),
        ("/v1/messages", {}),
        ("/v1/responses", {"input": SECRET, "max_output_tokens": 16}),
        ("/completion", {"prompt": f"Once {SECRET}"}),
        ("/api/chat", {"options": {"num_predict": 16}}),
    ],
)
def test_every_answer_is_timed_whole_or_streamed(server: Server, path: str, body: dict[str, Any], stream: bool) -> None:
    identity = f"timed-{path.replace('/', '-')}-{stream}"
    plain = {"max_tokens": 16, "stream": stream, "model": "any", "messages": [{"role": "user", "content": SECRET}]}
    plain |= body
    if "prompt" in body or "input" in body:
        del plain["messages"]
    began = time.perf_counter()
    answer = server.client.post(path, json=plain, headers={"X-Request-Id": identity})
    request = timed(server, identity)
    seconds = time.perf_counter() - began
    assert answer.status_code == 200
    check(request["timing"])
    assert request["timing"]["total_ms"] <= seconds * 1000
    assert (request["id"], request["route"]) == (identity, path)
    assert request["prompt_tokens"] > 0 and request["completion_tokens"] > 0
    listed = server.client.get("/v1/timings", params={"limit": 256})
    assert identity in [one["id"] for one in listed.json()["data"]]
    assert SECRET not in listed.text


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_an_answer_says_it_if_it_is_asked(server: Server, path: str, stream: bool) -> None:
    body = {"max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
    identity = f"asked-{path.replace('/', '-')}-{stream}"
    answer = server.client.post(path, json=body | {"return_timing": True}, headers={"X-Request-Id": identity})
    timings = [extras["timing"] for extras in found(answer, "tiles") if "timing" in extras]
    assert len(timings) == 1
    check(timings[0])
    assert timings[0]["total_ms"] <= timed(server, identity)["timing"]["total_ms"]
    assert "timing" not in server.client.post(path, json=body).text.replace("timings", "")


def found(answer: httpx.Response, name: str) -> list[dict[str, Any]]:
    """The values of a field in a body, or in the events of a stream."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    bodies = [json.loads(line) for line in lines] or [answer.json()]
    return [body[name] for body in bodies if name in body]


def test_a_grammar_takes_its_own_time(server: Server) -> None:
    answer = server.chat(return_timing=True, max_tokens=30, json_schema=SCHEMA).json()
    assert check(answer["tiles"]["timing"])["grammar"] > 0
    assert check(server.chat(return_timing=True).json()["tiles"]["timing"])["grammar"] == 0


def test_a_request_that_waits_for_others_was_in_the_queue(server: Server) -> None:
    """More answers than there are rows, at once: some have to wait."""
    bodies = [{"n": 8, "max_tokens": 40, "messages": [{"role": "user", "content": str(one)}]} for one in range(6)]
    ids = [f"queue-{number}" for number in range(len(bodies))]

    def send(number: int) -> None:
        headers = {"X-Request-Id": ids[number]}
        assert httpx.post(f"{server.url}/v1/chat/completions", json=bodies[number], headers=headers, timeout=60)

    with ThreadPoolExecutor(len(bodies)) as threads:
        list(threads.map(send, range(len(bodies))))
    parts = [check(timed(server, one)["timing"]) for one in ids]
    assert max(one["queue"] for one in parts) > 0


def test_what_is_not_known_is_a_404(server: Server) -> None:
    answer = server.client.get("/v1/timings/never-sent")
    assert answer.status_code == 404 and "never-sent" in answer.json()["error"]["message"]
    assert server.client.get("/v1/timings", params={"limit": 0}).status_code == 422
    refused = server.client.post("/v1/chat/completions", json={"messages": []}, headers={"X-Request-Id": "refused"})
    assert refused.status_code == 422
    assert server.client.get("/v1/timings/refused").status_code == 404  # no answer was begun


@pytest.mark.slow
def test_a_client_that_does_not_read_is_who_takes_the_time(demo: Server) -> None:
    url = httpx.URL(demo.url)
    body = {"n": 8, "max_tokens": 600, "ignore_eos": True, "logprobs": True, "top_logprobs": 20, "stream": True}
    content = json.dumps(body | {"messages": [{"role": "user", "content": "Hello"}]}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((url.host, url.port or 0))
        head = (
            f"POST /v1/chat/completions HTTP/1.0\r\nX-Request-Id: slow-reader\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        connection.sendall(head.encode() + content)
        wait_for(lambda: demo.client.get("/v1/activity").json()["running"] > 0, what="the answer")
        wait_for(lambda: demo.client.get("/v1/activity").json()["running"] == 0, 300, what="the end of it")
        began = time.perf_counter()
        demo.chat()
        seconds = time.perf_counter() - began
        while connection.recv(2**16):
            pass
    assert check(timed(demo, "slow-reader")["timing"])["client"] >= seconds * 1000


def test_the_command_explains_one_request_or_the_last(server: Server) -> None:
    server.chat("Hello")
    last = server.client.get("/v1/timings", params={"limit": 1}).json()["data"][0]

    def explain(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app", "explain", *words, "--url", server.url]
        return subprocess.run(command, env=environment(server.home, COLUMNS="120"), capture_output=True, text=True)

    assert json.loads(explain("--json").stdout) == last
    shown = explain(last["id"]).stdout
    assert last["id"] in shown and "/v1/chat/completions" in shown
    assert all(f"\n{name.replace('_', ' ')} " in shown for name in PARTS)
    assert f"{last['timing']['total_ms']:,.1f}" in shown
    unknown = explain("never-sent")
    assert unknown.returncode == 1 and "never-sent" in unknown.stderr and unknown.stderr.count("\n") == 1
