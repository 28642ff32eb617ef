"""Warming up: the model is loaded, and what an agent always sends is computed before it sends it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, running
from tests.tiles_daemon import tiles_daemon

pytestmark = pytest.mark.slow

PLAIN, WINDOWED = "tiles/plain", "tiles/windowed"
LOADED = {"message": "Model loaded", "prefilled": False, "warnings": []}
TOOLS = [
    {
        "type": "function",
        "name": name,
        "description": f"How to {name} files of the project, and what comes of it.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
    }
    for name in ("read", "bash", "edit", "write")
]
SYSTEM = "You are an agent who answers questions about files. " * 10


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models; the caches of the second cannot be cut, as those of Gemma."""
    windowed = tmp_path_factory.mktemp("models") / "windowed"
    shutil.copytree(tiny, windowed)
    config = json.loads((windowed / "config.json").read_text())
    config |= {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
    (windowed / "config.json").write_text(json.dumps(config))
    return {PLAIN: tiny, WINDOWED: windowed}


@pytest.fixture(scope="module")
def agent_server(models: dict[str, Path], home: Path) -> Iterator[Server]:
    """A server that keeps nothing of prompts on the disk, so that what is cached was computed since the last load."""
    with (
        tiles_daemon(models) as daemon,
        running(home, "--load-by-name", "--cache-disk", "0", env={"TILES_DAEMON_URL": daemon.url}) as server,
    ):
        yield server
        assert server.errors() == []
        assert SYSTEM.split(".")[0] not in server.log
    assert not (home / ".tiles/server/agent_prompts").exists()


def warm_up(server: Server, model: str) -> Any:
    answer = server.client.post("/v1/warmup", json={"model": model})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask(server: Server, model: str, question: str, **more: Any) -> dict[str, Any]:
    """A first message of Tiles' agent. Gives the usage."""
    items = [{"role": "developer", "content": SYSTEM}, {"role": "user", "content": question}]
    body = {"model": model, "input": items, "tools": TOOLS, "store": False, "max_output_tokens": 4} | more
    answer = server.client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["usage"])


@pytest.mark.parametrize("model, other", [(PLAIN, WINDOWED), (WINDOWED, PLAIN)])
def test_the_first_message_after_a_switch_finds_its_prompt_computed(
    agent_server: Server, model: str, other: str
) -> None:
    assert warm_up(agent_server, model) == LOADED
    cold = ask(agent_server, model, "What is in it?")
    assert cold["input_tokens_details"]["cached_tokens"] == 0
    warm_up(agent_server, other)
    assert agent_server.client.get("/health").json()["model"] == other
    assert warm_up(agent_server, model) == LOADED | {"prefilled": True}
    question = ask(agent_server, model, "\n  Which of them is the largest?")
    assert question["input_tokens"] - question["input_tokens_details"]["cached_tokens"] < 40
    assert warm_up(agent_server, model) == LOADED | {"prefilled": True}


def test_the_prompt_that_was_sent_last_counts(agent_server: Server) -> None:
    ask(agent_server, PLAIN, "Hello")
    changed = {"tools": TOOLS[:1], "instructions": "It is Sunday."}
    longer = ask(agent_server, PLAIN, "Hello", **changed)
    warm_up(agent_server, WINDOWED)
    assert warm_up(agent_server, PLAIN)["prefilled"] is True
    again = ask(agent_server, PLAIN, "Who?", **changed)
    assert longer["input_tokens"] - again["input_tokens_details"]["cached_tokens"] < 40
    assert ask(agent_server, PLAIN, "Who?")["input_tokens_details"]["cached_tokens"] < 200


def test_an_unknown_model_is_not_found(agent_server: Server) -> None:
    answer = agent_server.client.post("/v1/warmup", json={"model": "nobody/nothing"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": 3}])
def test_a_warm_up_names_a_model(agent_server: Server, body: dict[str, Any]) -> None:
    answer = agent_server.client.post("/v1/warmup", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "model")


def test_a_restart_does_not_forget_the_prompt_and_nobody_else_can_read_it(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny)) as server:
        assert warm_up(server, "any")["prefilled"] is False
        ask(server, "any", "Hello")
    folder = tmp_path / ".tiles/server/agent_prompts"
    (path,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    with running(tmp_path, "--model", str(tiny)) as server:
        assert warm_up(server, "any")["prefilled"] is True
        usage = ask(server, "any", "Who?")
        assert usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"] < 40
    path.write_text(path.read_text()[:-9])
    with running(tmp_path, "--model", str(tiny)) as server:
        assert warm_up(server, "any")["prefilled"] is False
        ask(server, "any", "Hello")
        assert warm_up(server, "any")["prefilled"] is True


def test_a_prompt_that_no_longer_fits_is_a_warning_and_the_model_is_loaded(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny)) as server:
        ask(server, "any", "Hello")
    with running(tmp_path, "--model", str(tiny), "--context-length", "64") as server:
        answer = warm_up(server, "any")
        assert (answer["message"], answer["prefilled"]) == ("Model loaded", False)
        assert "could not be computed ahead" in answer["warnings"][0]
        assert server.chat("Hi", max_tokens=2).status_code == 200


def test_a_folder_of_models_is_warmed_up_too(models: dict[str, Path], tmp_path: Path) -> None:
    for path in models.values():
        shutil.copytree(path, tmp_path / "models" / path.name)
    with running(tmp_path, "--models-dir", str(tmp_path / "models")) as server:
        assert warm_up(server, "tiny")["prefilled"] is False
        ask(server, "tiny", "Hello")
        assert warm_up(server, "tiny")["prefilled"] is True
        assert warm_up(server, "windowed")["prefilled"] is False
