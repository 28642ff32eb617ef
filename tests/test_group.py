"""One model over two processes of this machine: answers are those of one alone, and none outlives the others."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests import tiny_model
from tests.conftest import Server, running, wait_for

pytestmark = pytest.mark.group

HERE = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}
QUIET = {"OPENBLAS_NUM_THREADS": "1"}
CHAT = {"max_tokens": 24, "temperature": 0, "logprobs": True}
SEEDED = {"max_tokens": 24, "temperature": 1, "seed": 5, "n": 3}
LONG = "tell me more about it " * 40
FOREVER = {"max_tokens": 4000, "temperature": 1, "seed": 3, "ignore_eos": True}


@pytest.fixture(scope="module", params=["tensor", "pipeline"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model, and how it is shared out."""
    kind = str(request.param)
    model_type = {"tensor": "llama", "pipeline": "qwen2"}[kind]
    return tiny_model.build(tmp_path_factory.mktemp("models") / kind, layers=3, model_type=model_type), kind


@contextmanager
def grouped(home: Path, model: Path, *flags: str, machines: int = 2, ready: bool = True) -> Iterator[Server]:
    """Run a server that has so many machines, all of them this one."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "hosts.json").write_text(json.dumps([HERE] * machines))
    flags = ("--model", str(model), "--hostfile", str(home / "hosts.json"), *flags)
    with running(home, *flags, env=QUIET, ready=ready, seconds=120) as server:
        yield server


def workers(server: Server) -> list[psutil.Process]:
    """Give the processes that work for a server."""
    return [
        child
        for child in psutil.Process(server.process.pid).children()
        if child.status() != psutil.STATUS_ZOMBIE and "app.commands.worker" in child.cmdline()
    ]


def asked(server: Server) -> list[Any]:
    """What a server answers to some requests, one after another: texts, and the log-probabilities of one."""
    first = server.chat("Hello", **CHAT).json()["choices"][0]
    texts = [choice["message"]["content"] for choice in server.chat("Hello", **SEEDED).json()["choices"]]
    long = server.chat(LONG, **CHAT).json()
    again = server.chat(LONG, **CHAT).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert again["choices"][0]["message"] == long["choices"][0]["message"]
    streamed = server.stream("Hello", **CHAT)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in streamed if chunk["choices"])
    assert text == first["message"]["content"]
    logprobs = [token["logprob"] for token in first["logprobs"]["content"]]
    return [first["message"]["content"], *texts, long["choices"][0]["message"]["content"], logprobs]


def test_answers_are_those_of_one_machine(model: tuple[Path, str], tmp_path: Path) -> None:
    folder, kind = model
    (tmp_path / "alone").mkdir()
    with running(tmp_path / "alone", "--model", str(folder)) as server:
        *texts, logprobs = asked(server)
    split = ("--layer-split", "1,2") if kind == "pipeline" else ()
    with grouped(tmp_path / "group", folder, "--sharding", kind, *split) as server:
        *others, other_logprobs = asked(server)
        assert others == texts
        assert other_logprobs == pytest.approx(logprobs, abs=1e-4)
        group = server.client.get("/props").json()["tiles"]["group"]
        assert (group["sharding"], group["back_end"]) == (kind, "ring")
        assert [machine["state"] for machine in group["machines"]] == ["ready", "ready"]
        assert server.client.post("/v1/embeddings", json={"input": "a"}).json()["error"]["code"] == "no_embeddings"
        saved = server.client.post("/slots/0?action=save", json={"filename": "a.bin"})
        assert saved.status_code == 501
        another = server.client.post("/start", json={"model": "another"})
        assert another.status_code >= 400
        assert asked(server)[0] == texts[0]
        processes = workers(server)
        assert len(processes) == 1
        assert server.stop() == 0
        psutil.wait_procs(processes, timeout=10)
        assert not any(process.is_running() for process in processes)
        assert server.errors() == []


@pytest.fixture(scope="module")
def tensor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tensor", layers=3)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_machine_that_is_gone_or_hangs_ends_answers_and_the_group_begins_anew(
    number: signal.Signals, tensor: Path, tmp_path: Path
) -> None:
    with grouped(tmp_path, tensor, "--group-seconds", "2") as server:
        before = server.chat("Hello", **CHAT).json()["choices"][0]["message"]
        (process,) = workers(server)
        body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True} | FOREVER
        with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert next(line for line in lines if line.startswith("data: "))
            os.kill(process.pid, number)
            rest = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert rest[-1]["error"]["code"] == "group_lost"
        assert "Machine 2 of 2 (127.0.0.1) is gone" in rest[-1]["error"]["message"]
        wait_for(lambda: health(server) == 200 and workers(server), 90, what=f"a new group: {server.log[-2000:]}")
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        assert server.chat("Hello", **CHAT).json()["choices"][0]["message"] == before


def health(server: Server) -> int:
    try:
        return server.client.get("/health").status_code
    except httpx.TransportError:
        return 0


def test_no_worker_outlives_its_leader(tensor: Path, tmp_path: Path) -> None:
    with grouped(tmp_path, tensor) as server:
        processes = workers(server)
        server.kill()
        psutil.wait_procs(processes, timeout=10)
        assert processes and not any(process.is_running() for process in processes)


def test_machines_that_cannot_share_a_model_are_refused_with_numbers(tensor: Path, tmp_path: Path) -> None:
    with grouped(tmp_path, tensor, machines=3, ready=False) as server:
        reply = wait_for(lambda: server.client.get("/health").json().get("last_error"), 60, what="the refusal")
        assert "num_attention_heads is 4, which goes with 2, 4" in reply
        assert workers(server) == []
