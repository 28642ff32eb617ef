"""Models that are loaded because a request names them, with Tiles' daemon and without."""

import concurrent.futures
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import read
from tests import tiny_model
from tests.conftest import Server, running
from tests.tiles_daemon import TilesDaemon, tiles_daemon

pytestmark = pytest.mark.slow

CACHED = "org/cached"
LONG = {"max_tokens": 6000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that the daemon knows."""
    base = tmp_path_factory.mktemp("named")
    other = tiny_model.build(base / "other", seed=7, layers=2)
    broken = base / "broken"
    shutil.copytree(tiny, broken)
    (broken / "config.json").write_text("{")
    return {"tiles/first": tiny, "tiles/second": other, "tiles/broken": broken, "tiles/gone": base / "gone"}


@pytest.fixture(scope="module")
def daemon(folders: dict[str, Path]) -> Iterator[TilesDaemon]:
    with tiles_daemon(folders) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def named(home: Path, tiny: Path, daemon: TilesDaemon) -> Iterator[Server]:
    """A server beside Tiles, started as Tiles starts it: without a flag."""
    (home / ".local/share/tiles/logs").mkdir(parents=True)
    snapshot = home / ".cache/huggingface/hub/models--org--cached/snapshots/abc"
    shutil.copytree(tiny, snapshot)
    with running(home, env={"TILES_DAEMON_URL": daemon.url}) as server:
        yield server
        assert server.errors() == []


def chat(server: Server, model: str | None, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8} | more
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)


def loaded(server: Server) -> str | None:
    return server.client.get("/health").json()["model"]


def names_of(server: Server, model: str) -> str:
    """Which of the models answered."""
    return str(chat(server, model).json()["model"])


BODIES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 4, "store": False},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 4},
    "/completion": {"prompt": "Hi", "n_predict": 4},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/rerank": {"query": "Hi", "documents": ["Hi"]},
    "/v1/decisions": {"input": "Hi", "questions": [{"type": "predicate", "instructions": "It is"}]},
}


@pytest.mark.parametrize("path", BODIES)
def test_every_dialect_loads_the_model_that_it_names(named: Server, path: str) -> None:
    for name, identity in (("tiles/second", "tiles/second"), ("tiles/first", "tiles/first")):
        answer = named.client.post(path, json=BODIES[path] | {"model": name})
        assert answer.status_code == 200, answer.text
        assert loaded(named) == identity


def test_who_names_no_model_or_the_one_that_is_loaded_has_it(named: Server, daemon: TilesDaemon) -> None:
    chat(named, "tiles/second")
    daemon.names.clear()
    assert chat(named, None).json()["model"] == "tiles/second"
    assert chat(named, "tiles/second").json()["model"] == "tiles/second"
    assert daemon.names == []


def test_a_model_that_only_a_cache_has_is_loaded_too(named: Server) -> None:
    assert chat(named, CACHED).json()["model"] == CACHED


@pytest.mark.parametrize(
    "name", ["nobody/nothing", "{first}", "..", "../first", "nobody/nothing:Q4_K_M", "a b", "x" * 2000]
)
def test_an_unknown_name_is_not_found_and_a_path_is_no_name(named: Server, folders: dict[str, Path], name: str) -> None:
    chat(named, "tiles/first")
    answer = chat(named, name.format(first=folders["tiles/second"]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert loaded(named) == "tiles/first"


def test_a_path_of_the_daemon_that_is_not_there_is_not_found(named: Server) -> None:
    assert chat(named, "tiles/gone").json()["error"]["code"] == "model_not_found"


def test_a_model_that_does_not_load_leaves_the_one_before(named: Server) -> None:
    chat(named, "tiles/first")
    answer = chat(named, "tiles/broken")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "model_load_failed")
    assert "config.json" in answer.json()["error"]["message"]
    assert chat(named, "tiles/first").json()["model"] == "tiles/first"


def test_a_request_may_say_that_it_loads_nothing(named: Server) -> None:
    chat(named, "tiles/first")
    body = {"model": "tiles/second", "messages": [{"role": "user", "content": "Hi"}]}
    answer = named.client.post("/v1/chat/completions?autoload=false", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_loaded")
    assert loaded(named) == "tiles/first"


def test_requests_for_two_models_at_once_are_all_answered_by_their_own(named: Server) -> None:
    names = ["tiles/first", "tiles/second"] * 6
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: chat(named, name), names))
    assert [answer.json()["model"] for answer in answers] == names


def test_an_answer_under_way_is_finished_before_another_model_takes_its_place(named: Server) -> None:
    chat(named, "tiles/first")
    body = {"model": "tiles/first", "messages": [{"role": "user", "content": "Go on"}]} | LONG | {"max_tokens": 2000}
    began = threading.Event()

    def long_answer() -> str:
        with httpx.stream("POST", f"{named.url}/v1/chat/completions", json=body, timeout=120) as stream:
            lines = [line for line in stream.iter_lines() if began.set() is None and line.startswith("data: ")]
        return lines[-2]

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        long = pool.submit(long_answer)
        assert began.wait(60)
        assert chat(named, "tiles/second").json()["model"] == "tiles/second"
        last = json.loads(long.result(120).removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == "length"


def test_a_switch_that_nobody_waits_for_any_more_does_not_come(named: Server) -> None:
    chat(named, "tiles/first")
    loads = len(named.logged("model loaded"))
    body = {"model": "tiles/first", "messages": [{"role": "user", "content": "Go on"}], "n": 8} | LONG
    with httpx.stream("POST", f"{named.url}/v1/chat/completions", json=body, timeout=120) as stream:
        lines = stream.iter_lines()
        next(lines)
        switch = {"model": "tiles/second", "messages": [{"role": "user", "content": "Hi"}]}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{named.url}/v1/chat/completions", json=switch, timeout=0.2)
        assert chat(named, "tiles/first").json()["model"] == "tiles/first"  # although the long one goes on
    assert len(named.logged("model loaded")) == loads


def test_a_start_and_a_name_agree_and_a_restart_brings_back_the_last(
    folders: dict[str, Path], daemon: TilesDaemon, tmp_path: Path
) -> None:
    env = {"TILES_DAEMON_URL": daemon.url, "TILES_SESSION_FILE": str(tmp_path / "session.json")}
    memory = tmp_path / "memory"
    start = {"model": "tiles/first", "model_cache_path": str(folders["tiles/first"]), "memory_path": str(memory)}
    with running(tmp_path, "--load-by-name", env=env) as server:
        assert chat(server, None).json()["error"]["code"] == "model_not_loaded"
        assert server.client.post("/start", json=start | {"system_prompt": "Be brief."}).status_code == 200
        assert names_of(server, "tiles/first") == "tiles/first"
        assert names_of(server, "tiles/second") == "tiles/second"
    session = json.loads((tmp_path / "session.json").read_text())
    assert session == {
        "model": "tiles/second",
        "model_cache_path": str(folders["tiles/second"]),
        "memory_path": str(memory),
        "system_prompt": "Be brief.",
    }
    with running(tmp_path, "--load-by-name", env=env) as server:
        assert chat(server, None).json()["model"] == "tiles/second"
        again = server.client.post("/start", json=start | {"system_prompt": ""})
        assert again.json() == {"message": "Model loaded", "warnings": []}
        assert chat(server, None).json()["model"] == "tiles/first"


def test_without_tiles_or_where_a_model_is_given_any_name_is_answered(
    tiny: Path, daemon: TilesDaemon, tmp_path: Path
) -> None:
    with running(tmp_path, env={"TILES_DAEMON_URL": daemon.url}) as server:
        assert chat(server, "tiles/first").json()["error"]["code"] == "model_not_loaded"
    (tmp_path / ".local/share/tiles").mkdir(parents=True)
    with running(tmp_path, "--model", str(tiny), env={"TILES_DAEMON_URL": daemon.url}) as server:
        assert chat(server, "tiles/second").json()["model"] == "tiny"


def test_tiles_is_found_as_tiles_finds_itself(tmp_path: Path) -> None:
    assert not read({}, {"HOME": str(tmp_path)}).load_by_name
    program = tmp_path / "portable" / "tiles"
    for name in ("modelfiles", "server", "pi"):
        (program.parent / name).mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    environ = {"HOME": str(tmp_path), "PATH": str(program.parent), "TILES_DAEMON_URL": "http://127.0.0.1:9"}
    assert read({}, environ).load_by_name
    assert not read({}, environ | {"TILES_LOAD_BY_NAME": "0"}).load_by_name
    assert not read({"demo": True}, environ).load_by_name
    (program.parent / "pi").rmdir()
    assert not read({}, environ).load_by_name
