"""A process that is told to end: at any moment, with 0, with nothing lost that has to last. Each has a server."""

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.processes import free_port
from tests import tiny_model
from tests.conftest import Server, environment, running, wait_for

pytestmark = pytest.mark.slow

ENDLESS = {"ignore_eos": True, "stream": True, "max_tokens": 100_000}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models."""
    folder = tmp_path_factory.mktemp("several")
    tiny_model.build(folder / "alpha", layers=1, seed=1)
    tiny_model.build(folder / "beta", layers=1, seed=2)
    return folder


@contextmanager
def begun(home: Path, *flags: str) -> Iterator[Server]:
    """A server that has written its first line, and no more is known of it."""
    home.mkdir(exist_ok=True)
    port = free_port()
    log_path = home / "server.log"
    command = [sys.executable, "-m", "app", "serve", "--port", str(port), "--log-format", "json", *flags]
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stderr=log, text=True, env=environment(home))
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            server = Server(url, home, process, client, log_path)
            wait_for(lambda: log_path.stat().st_size, what="the first line")
            yield server
    finally:
        process.kill()
        process.wait(10)


def ended_well(server: Server, sent: int = signal.SIGTERM) -> None:
    server.process.send_signal(sent)
    assert server.process.wait(30) == 0, server.log
    assert "terminate called" not in server.log
    assert "Traceback" not in server.log


def asked(server: Server) -> Callable[[], bool]:
    """Ask for a long answer on a thread; says whether it has begun."""
    body = {"model": "alpha", "messages": [{"role": "user", "content": "word " * 300}]} | ENDLESS
    began = threading.Event()

    def ask() -> None:
        while server.process.poll() is None:
            with (
                contextlib.suppress(httpx.TransportError),
                httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as stream,
            ):
                for line in stream.iter_lines():
                    if '"content"' in line:
                        began.set()

    threading.Thread(target=ask, daemon=True).start()
    return began.is_set


def answers(server: Server, path: str) -> Callable[[], bool]:
    def is_answered() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return server.client.get(path).status_code == 200
        return False

    return is_answered


STAGES = {
    "the first line": lambda server: lambda: True,
    "the first answer, while MLX is imported": lambda server: answers(server, "/ping"),
    "the engine": lambda server: lambda: "engine ready" in server.log,
    "the weights": lambda server: lambda: "model read" in server.log or answers(server, "/health")(),
    "readiness": lambda server: answers(server, "/health"),
    "an answer": asked,
}


NOTHING, ONE, SEVERAL = "nothing", "one model", "several"
MOMENTS = [
    (NOTHING, "the first line"),
    (NOTHING, "the first answer, while MLX is imported"),
    (NOTHING, "the engine"),
    (ONE, "the weights"),
    (ONE, "readiness"),
    (ONE, "an answer"),
    (SEVERAL, "an answer"),
]


@pytest.mark.parametrize(("kind", "stage"), MOMENTS)
def test_a_signal_at_any_stage_ends_the_process_well(
    kind: str, stage: str, tiny: Path, several: Path, tmp_path: Path
) -> None:
    flags = {NOTHING: (), ONE: ("--model", str(tiny)), SEVERAL: ("--models-dir", str(several))}[kind]
    with begun(tmp_path, *flags, "--shutdown-seconds", "0.2") as server:
        wait_for(STAGES[stage](server), what=stage)
        ended_well(server)


def test_signals_at_moments_that_nobody_chose_end_the_process_well(tmp_path: Path) -> None:
    moments = random.Random(14)
    for number in range(6):
        with begun(tmp_path / str(number), "--demo") as server:
            time.sleep(moments.uniform(0, 2))  # not to wait for anything: it is the moment of the signal
            sent = moments.choice([signal.SIGTERM, signal.SIGINT])
            for _ in range(moments.choice([0, 1, 4])):  # more of them, faster than one is obeyed
                server.process.send_signal(sent)
            ended_well(server, sent)


def test_the_door_closes_at_once_and_answers_go_on(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny), "--shutdown-seconds", "60") as server:
        host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
        assert port
        with streaming(server) as lines:
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: is_refused(host, port), what="the door")
            for _ in range(20):
                assert "choices" in next(lines)
            refused = server.client.get("/ping")  # on a connection that was open before
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert refused.headers["connection"] == "close"
            assert int(refused.headers["retry-after"]) >= 1
            with pytest.raises(httpx.ConnectError):
                server.client.get("/ping")
        assert server.process.wait(20) == 0  # nothing is under way any more


def test_a_second_signal_ends_answers_with_an_error_and_no_traceback(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny), "--shutdown-seconds", "60") as server:
        with streaming(server) as lines:
            server.process.send_signal(signal.SIGINT)
            wait_for(lambda: server.client.get("/ping").status_code == 503, what="the first signal's effect")
            server.process.send_signal(signal.SIGINT)
            assert "shutting_down" in list(lines)[-1]
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log
        assert server.errors() == []


@contextmanager
def streaming(server: Server) -> Iterator[Iterator[str]]:
    body = {"messages": [{"role": "user", "content": "Go on"}]} | ENDLESS
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        next(lines)
        yield lines


def is_refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it stood before the door as that closed
        return False
    return False


def test_a_load_under_way_is_given_up(tiny: Path, tmp_path: Path) -> None:
    env = {"TILES_SESSION_FILE": str(tmp_path / "session.json")}
    with running(tmp_path, env=env, ready=False) as server:
        body = {"model": "tiny", "model_cache_path": str(tiny), "memory_path": "", "system_prompt": ""}
        replies: list[httpx.Response] = []
        ask = threading.Thread(
            target=lambda: replies.append(httpx.post(f"{server.url}/start", json=body, timeout=60)), daemon=True
        )
        ask.start()
        wait_for(lambda: server.client.get("/health").status_code == 503, what="the load")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        ask.join(20)
    assert (replies[0].status_code, replies[0].json()["error"]["code"]) == (503, "shutting_down")


def test_a_request_that_goes_on_for_too_long_is_told_why_it_ends(tiny: Path, tmp_path: Path) -> None:
    env = {"TILES_SKIP_SESSION_PERSIST": "1"}
    memory = tmp_path / "memory"
    code = "create_file('begun.md')\nwhile True:\n    pass"
    with running(tmp_path, "--shutdown-seconds", "0.2", env=env) as server:
        start = {"model": "tiny", "model_cache_path": str(tiny), "memory_path": str(memory), "system_prompt": ""}
        server.client.post("/start", json=start).raise_for_status()
        said = [{"role": "assistant", "content": ""}, {"role": "user", "content": "Hi"}]
        turn = {"input": "Hi", "chat_start": True, "python_code": code, "messages": said}
        replies: list[httpx.Response] = []
        ask = threading.Thread(target=lambda: replies.append(server.client.post("/v1/chat/completions", json=turn)))
        ask.start()
        wait_for((memory / "begun.md").exists, what="the agent's code")
        ended_well(server)
        ask.join(20)
    assert (replies[0].status_code, replies[0].json()["error"]["code"]) == (503, "shutting_down")


def hung(server: Server, hang: Path) -> None:
    """Let the server find out that its engine hangs."""
    assert server.chat().status_code == 200
    hang.touch()
    assert server.chat().json()["error"]["code"] == "engine_stuck"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_around_the_replacement_of_a_hung_process_ends_it_well(when: str, tiny: Path, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    program = (str(Path(__file__).with_name("hanging.py")), str(hang))
    with running(tmp_path, "--model", str(tiny), "--watchdog-seconds", "0.5", program=program) as server:
        hung(server, hang)
        process = psutil.Process(server.process.pid)
        if when == "after":
            wait_for(lambda: process.cmdline()[-1:] == ["1"], what="the successor, which waits twice as long")
        ended_well(server)
        assert server.log.count("/schema") == 1, "no successor has begun to serve"


def test_threads_do_not_grow_with_loads(tiny: Path, tmp_path: Path) -> None:
    other = tiny_model.build(tmp_path / "other", seed=7, layers=1)
    with running(tmp_path, env={"TILES_SKIP_SESSION_PERSIST": "1"}) as server:
        process = psutil.Process(server.process.pid)
        counts = []
        for number in range(16):
            folder = (tiny, other)[number % 2]
            start: dict[str, Any] = {"model": folder.name, "model_cache_path": str(folder)}
            start |= {"memory_path": "", "system_prompt": ""}
            server.client.post("/start", json=start).raise_for_status()
            assert server.chat(f"{number} " + "word " * 80).status_code == 200  # long enough to be written to the disk
            assert server.client.post("/slots/0?action=save", json={"filename": "slot"}).status_code == 200
            counts.append(process.num_threads())
        assert max(counts[6:]) <= max(counts[:6]), counts


def test_what_was_computed_just_before_the_end_is_on_the_disk(tiny: Path, tmp_path: Path) -> None:
    env = {"TILES_SESSION_FILE": str(tmp_path / "session.json")}
    with running(tmp_path, "--model", str(tiny), env=env) as server:
        assert server.chat("word " * 200).status_code == 200
        assert server.stop() == 0
        files = list((tmp_path / ".tiles").rglob("*.safetensors"))
        assert len(files) == 1
        assert not files[0].name.startswith(".")
        assert "error" not in [json.loads(line)["level"] for line in server.log.splitlines() if line.startswith("{")]
