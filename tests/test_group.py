"""One model over two processes of this machine: answers are those of one alone, and none outlives the others."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.commands.checks import CheckContext
from app.commands.group_checks import machines
from app.services import catalog
from app.settings import Settings
from benchmarks import relay
from benchmarks.processes import free_port
from tests import tiny_model
from tests.conftest import Server, running, wait_for

pytestmark = pytest.mark.group

HERE = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}
QUIET = {"OPENBLAS_NUM_THREADS": "1"}
CHAT = {"max_tokens": 12, "temperature": 0, "logprobs": True}
SEEDED = {"max_tokens": 12, "temperature": 1, "seed": 5, "n": 3}
LONG = "tell me more about it " * 40
FOREVER = {"max_tokens": 4000, "temperature": 1, "seed": 3, "ignore_eos": True}


@pytest.fixture(scope="module", params=["tensor", "pipeline"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model, and how it is shared out."""
    kind = str(request.param)
    model_type = {"tensor": "llama", "pipeline": "qwen2"}[kind]
    return tiny_model.build(tmp_path_factory.mktemp("models") / kind, layers=3, model_type=model_type), kind


@contextmanager
def grouped(
    home: Path, model: Path, *flags: str, hosts: Sequence[dict[str, Any]] = (HERE, HERE), ready: bool = True, **env: str
) -> Iterator[Server]:
    """Run a server with these machines, all of them this one."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "hosts.json").write_text(json.dumps(hosts))
    flags = ("--model", str(model), "--hostfile", str(home / "hosts.json"), *flags)
    with running(home, *flags, env=QUIET | env, ready=ready, seconds=120) as server:
        yield server


def workers(server: Server) -> list[psutil.Process]:
    """Give the processes that work for a server."""
    return [
        child
        for child in psutil.Process(server.process.pid).children()
        if child.status() != psutil.STATUS_ZOMBIE and any("app.commands.worker" in word for word in child.cmdline())
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
        assert server.client.get("/v1/activity").json()["machines"] == [{"host": "127.0.0.1", "state": "ready"}] * 2
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


def test_a_machine_that_is_gone_or_hangs_ends_answers_and_the_group_begins_anew(tensor: Path, tmp_path: Path) -> None:
    """And no worker outlives its leader."""
    with grouped(tmp_path, tensor, "--group-seconds", "2") as server:
        before = server.chat("Hello", **CHAT).json()["choices"][0]["message"]
        for number in (signal.SIGKILL, signal.SIGSTOP):
            (process,) = workers(server)
            assert "Machine 2 of 2 (127.0.0.1) is gone" in lost(server, partial(os.kill, process.pid, number))
            wait_for(lambda: health(server) == 200 and workers(server), 90, what=f"a new group: {server.log[-2000:]}")
            assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
            assert server.chat("Hello", **CHAT).json()["choices"][0]["message"] == before
        processes = workers(server)
        server.kill()
        psutil.wait_procs(processes, timeout=10)
        assert processes and not any(process.is_running() for process in processes)


def lost(server: Server, fault: Callable[[], object]) -> str:
    """Do harm while an answer is streamed. Gives the message of the error that ends it."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True} | FOREVER
    with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("data: "))
        fault()
        error = [json.loads(line[6:]) for line in lines if line.startswith("data: {")][-1]["error"]
    assert error["code"] == "group_lost"
    return str(error["message"])


def health(server: Server) -> int:
    try:
        return server.client.get("/health").status_code
    except httpx.TransportError:
        return 0


def test_machines_that_cannot_share_a_model_are_refused_with_numbers(tensor: Path, tmp_path: Path) -> None:
    with grouped(tmp_path, tensor, hosts=[HERE] * 3, ready=False) as server:
        reply = wait_for(lambda: server.client.get("/health").json().get("last_error"), 60, what="the refusal")
        assert "num_attention_heads is 4; 2 would do" in reply
        assert workers(server) == []


def ssh(folder: Path, command: str) -> dict[str, str]:
    """Put a program in the place of ssh that runs what is for another machine here; it refuses while told to."""
    folder.mkdir(parents=True)
    program = folder / "ssh"
    program.write_text(
        f'#!/bin/sh\nif [ -e {folder}/refuse ]; then exit 255; fi\nshift 4; host=$1; shift\nexec {command} sh -c "$*"\n'
    )
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_machine_that_is_not_reached_or_differs_is_tried_again_until_it_fits(tensor: Path, tmp_path: Path) -> None:
    other = tmp_path / "site" / "mlx_lm-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx-lm\nVersion: 0.0.1\n")
    path = ssh(tmp_path / "bin", f"env PYTHONPATH={other.parent}")
    (tmp_path / "bin" / "refuse").touch()
    hosts = [HERE, {"ssh": "studio", "ips": ["127.0.0.2"]}]
    with grouped(tmp_path, tensor, hosts=hosts, ready=False, **path) as server:
        tried(server, "Machine 2 of 2 (studio) did not start: ssh cannot reach it")
        waiting = server.client.get("/health")
        assert (waiting.status_code, waiting.json()["error"]["code"]) == (503, "loading")
        assert waiting.json()["waits_for"] == "machine 2 of 2 (studio)"
        (tmp_path / "bin" / "refuse").unlink()
        tried(server, f"Machine 2 of 2 (studio) has mlx-lm 0.0.1, this machine {version('mlx-lm')}")
        shutil.rmtree(other)
        wait_for(lambda: health(server) == 200, 90, what=f"the group: {server.log[-2000:]}")
        assert server.chat("Hello", **CHAT).status_code == 200


def test_what_machines_far_apart_send_each_other_is_counted(tensor: Path, tmp_path: Path) -> None:
    """By the relays of the benchmark, in the place of ssh."""
    (tmp_path / "bin").mkdir()
    environment, counts = relay.as_ssh(tmp_path / "bin", 0.001)
    with grouped(tmp_path, tensor, hosts=[HERE, HERE | {"ssh": "far"}], **environment) as server:
        before = relay.read(counts)
        answer = server.chat("Hello", **CHAT | {"ignore_eos": True}).json()
        sent = relay.read(counts).since(before)
        tokens = answer["usage"]["completion_tokens"]
        assert tokens == CHAT["max_tokens"]
        assert sent.message_bytes > tokens * 10  # however many of them came at once
        assert sent.ring_bytes > tokens * 1000
        assert server.stop() == 0


def tried(server: Server, reason: str) -> None:
    """Wait until a server could not bring its machines together for a reason."""
    wait_for(lambda: reason in {line["reason"] for line in server.logged("group not formed")}, what=reason)


def test_doctor_looks_at_the_machines(tensor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ssh(tmp_path / "bin", "env")
    monkeypatch.setenv("PATH", path["PATH"])
    (tmp_path / "hosts.json").write_text(json.dumps([HERE, {"ssh": "studio", "ips": ["127.0.0.2"]}]))
    context = CheckContext(Settings(hostfile=tmp_path / "hosts.json"), catalog.inspect(tensor))
    check = machines(context)
    assert check is not None
    assert (check.state, check.detail) == ("ok", "studio: the same versions and the same model")
    (tmp_path / "bin" / "refuse").touch()
    check = machines(context)
    assert check is not None
    assert (check.state, check.detail) == ("failed", "studio does not answer: exit code 255")


@contextmanager
def network(name: str) -> Iterator[list[str]]:
    """Make another network on this machine; skipped where that cannot be done. Gives the addresses here and there."""
    here, there = (f"10.{100 + os.getpid() // 250 % 100}.{os.getpid() % 250}.{number}" for number in (1, 2))
    made = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b"],
        ["ip", "link", "set", f"{name}b", "netns", name],
        ["ip", "address", "add", f"{here}/24", "dev", f"{name}a"],
        ["ip", "link", "set", f"{name}a", "up"],
        ["ip", "-n", name, "address", "add", f"{there}/24", "dev", f"{name}b"],
        ["ip", "-n", name, "link", "set", f"{name}b", "up"],
        ["ip", "-n", name, "link", "set", "lo", "up"],
    ]
    try:
        for command in made:
            try:
                subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip(f"no network can be made here: {' '.join(command)}")
        yield [here, there]
    finally:
        for command in (["ip", "netns", "delete", name], ["ip", "link", "delete", f"{name}a"]):
            with suppress(OSError):
                subprocess.run(command, capture_output=True)


def test_a_cable_that_is_pulled_ends_answers_and_the_group_begins_anew(tensor: Path, tmp_path: Path) -> None:
    name = f"t{os.getpid()}"
    path = ssh(tmp_path / "bin", f"ip netns exec {name}")
    with (
        network(name) as (here, there),
        grouped(
            tmp_path,
            tensor,
            "--group-seconds",
            "2",
            hosts=[{"ssh": "here", "ips": [here]}, {"ssh": "there", "ips": [there]}],
            **path,
        ) as server,
    ):
        before = server.chat("Hello", **CHAT).json()["choices"][0]["message"]
        pull = ["ip", "link", "set", f"{name}a", "down"]
        assert "silent for 2 s" in lost(server, lambda: subprocess.run(pull, check=True))
        subprocess.run(["ip", "link", "set", f"{name}a", "up"], check=True)
        wait_for(lambda: health(server) == 200, 120, what=f"a new group: {server.log[-2000:]}")
        assert server.chat("Hello", **CHAT).json()["choices"][0]["message"] == before


NEIGHBOUR = """
import sys, threading, time
from app.services.engine.group import joining
from app.services.errors import LoadFailed
joining._NEIGHBOUR_SECONDS = 0.5
try:
    joining.join(0, [sys.argv[1:2], sys.argv[2:3], sys.argv[3:]], 1, "ring", {})
except LoadFailed as error:
    print(error.message)
"""


def test_a_neighbour_that_never_connects_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """MLX holds the interpreter while it waits; the machine that it connects to itself leaves too."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = [free_port(), other.getsockname()[1], free_port()]
        command = [sys.executable, "-c", NEIGHBOUR, *(f"127.0.0.1:{port}" for port in ports)]
        environment = os.environ | QUIET
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            other.settimeout(60)
            other.accept()[0].close()
            assert process.communicate(timeout=60)[0].startswith("the machines cannot connect")
