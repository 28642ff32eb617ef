"""Several models behind one address: a real server on a folder of small models, one of them broken."""

import concurrent.futures
import itertools
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import tiny_model
from tests.conftest import Server, events, running, said, wait_for

LONG = {"max_tokens": 8000, "ignore_eos": True, "stream": True, "timings_per_token": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, one of them an organisation's, a broken one, and what is no model."""
    folder = tmp_path_factory.mktemp("several")
    tiny_model.build(folder / "alpha", layers=1, seed=1)
    tiny_model.build(folder / "beta", layers=1, seed=2)
    tiny_model.build(folder / "org" / "gamma", layers=1, seed=3)
    shutil.copytree(folder / "alpha", folder / "torn")
    weights = folder / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.txt").write_text("nothing")
    return folder


@pytest.fixture(scope="module")
def router(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for two models at a time."""
    flags = ("--models-dir", str(folder), "--max-models", "2", "--sse-ping-interval", "0.2")
    with running(tmp_path_factory.mktemp("router"), *flags) as server:
        yield server
        assert server.errors() == []


@pytest.fixture
def at_rest(router: Server) -> None:
    """Begin with nothing loaded."""
    unload_all(router)


def with_nothing_loaded(test: Any) -> Any:
    return pytest.mark.usefixtures("at_rest")(test)


def unload_all(server: Server) -> None:
    for name, status in statuses(server).items():
        if status in {"loaded", "loading"}:
            server.client.post("/models/unload", json={"model": name})
    wait_for(lambda: set(statuses(server).values()) <= {"unloaded", "failed"}, what="an empty memory")


def rows(server: Server) -> dict[str, Any]:
    return {row["id"]: row for row in server.client.get("/v1/models").json()["data"]}


def statuses(server: Server) -> dict[str, str]:
    return {name: row["status"]["value"] for name, row in rows(server).items()}


def loaded(server: Server) -> set[str]:
    return {name for name, status in statuses(server).items() if status == "loaded"}


def load(server: Server, *names: str) -> None:
    for name in set(names) - loaded(server):
        assert server.client.post("/models/load", json={"model": name}).json() == {"success": True}
    wait_for(lambda: set(names) <= loaded(server), what=f"{names}")


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    return str(answer.json()["error"]["message"])


def chat(server: Server, model: str | None, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8} | more
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)


class LongAnswer:
    """A streamed answer that has begun."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._first, self._began = self._made(), time.monotonic()

    def goes_on(self) -> None:
        """Read up to a token that was made after now."""
        now = self._first + 1000 * (time.monotonic() - self._began)
        while self._made() <= now:
            pass

    def _made(self) -> float:
        """When the next token was made, in milliseconds."""
        for line in self._lines:
            if line.startswith("data: "):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk
                if "timings" in chunk:
                    return float(chunk["timings"]["predicted_ms"])
        pytest.fail("the answer has ended")


@contextmanager
def answering(server: Server, model: str) -> Iterator[LongAnswer]:
    """A long answer that has begun and ends with the block."""
    body = {"model": model, "messages": [{"role": "user", "content": "Go on"}]} | LONG
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=120) as answer:
        yield LongAnswer(answer.iter_lines())


@contextmanager
def answering_to_nobody(server: Server, model: str) -> Iterator[None]:
    """A request whose client hangs up at the end of the block, whether or not it was answered."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
    with socket.create_connection((server.client.base_url.host, server.client.base_url.port)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        yield


@contextmanager
def listening(server: Server) -> Iterator[list[dict[str, Any]]]:
    """What /models/sse says for as long as the block lasts."""
    heard: list[dict[str, Any]] = []
    connected, over = threading.Event(), threading.Event()

    def listen() -> None:
        with httpx.stream("GET", f"{server.url}/models/sse", timeout=60) as feed:
            assert feed.headers["content-type"].startswith("text/event-stream")
            connected.set()
            lines = itertools.takewhile(lambda _: not over.is_set(), feed.iter_lines())
            heard.extend(json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(listen)
        assert connected.wait(60)
        yield heard
        over.set()  # the next comment line, if nothing else, wakes the listener
        done.result(60)


def has_failed(heard: list[dict[str, Any]]) -> bool:
    return bool(heard) and heard[-1]["data"]["status"] == "failed"


# What there is.


def test_the_models_of_the_folder_are_listed_by_id(router: Server) -> None:
    listed = router.client.get("/v1/models").json()
    assert [row["id"] for row in listed["data"]] == ["alpha", "beta", "org/gamma", "torn"]
    assert listed == router.client.get("/models").json() == router.client.get("/models?reload=1").json()
    assert "models" not in listed
    row = listed["data"][0]
    assert row["status"] == {"value": "unloaded", "args": [], "preset": ""}
    assert row["architecture"] == {"input_modalities": ["text"], "output_modalities": ["text"]}
    assert (row["source"], row["can_remove"], row["aliases"], "meta" in row) == ("models_dir", False, [], False)
    assert router.client.get("/v1/models/org/gamma").json()["id"] == "org/gamma"
    message = refused(router.client.get("/v1/models/nope"), 404, "model_not_found")
    assert "'alpha', 'beta', 'org/gamma'" in message


def test_a_model_that_comes_into_the_folder_can_be_asked_at_once(router: Server, folder: Path) -> None:
    shutil.copytree(folder / "beta", folder / "late")
    try:
        assert chat(router, "late").json()["model"] == "late"
        unload_all(router)
    finally:
        shutil.rmtree(folder / "late")
    assert "late" not in rows(router)


@with_nothing_loaded
def test_the_server_itself_always_answers(router: Server) -> None:
    health = {"status": "ok", "tiles": True, "model_loaded": False, "model": None}
    assert router.client.get("/health").json() == health
    props = router.client.get("/props").json()
    assert (props["role"], props["max_instances"], props["models_autoload"]) == ("router", 2, True)
    assert (props["model_path"], props["default_generation_settings"]) == ("none", {"n_ctx": 0, "params": None})
    assert router.client.get("/v1/activity").json()["several"] is True
    load(router, "alpha")
    assert router.client.get("/health").json() == health | {"model_loaded": True, "model": "alpha"}
    assert router.client.get("/props").json() == props


@with_nothing_loaded
def test_props_of_a_model_load_it_unless_that_is_not_wanted(router: Server) -> None:
    refused(router.client.get("/props?model=alpha&autoload=false"), 400, "model_not_loaded")
    refused(router.client.get("/props?model=nope"), 404, "model_not_found")
    props = router.client.get("/props?model=alpha").json()
    assert (props["role"], props["model_alias"]) == ("model", "alpha")
    assert props["default_generation_settings"]["n_ctx"] == 8192
    assert router.client.get("/props?model=alpha&autoload=false").json() == props
    assert loaded(router) == {"alpha"}


@with_nothing_loaded
def test_a_request_may_say_that_it_loads_nothing(router: Server) -> None:
    for route, body in (("/v1/chat/completions", {"messages": []}), ("/tokenize", {"content": "Hi"})):
        url = f"{route}?autoload=false"
        refused(router.client.post(url, json=body | {"model": "alpha"}), 400, "model_not_loaded")
        refused(router.client.post(url, json=body | {"model": "nope"}), 404, "model_not_found")
    assert loaded(router) == set()
    load(router, "alpha")
    assert router.client.post("/tokenize?autoload=false", json={"model": "alpha", "content": "Hi"}).status_code == 200
    assert router.client.post("/tokenize?autoload=false", json={"model": 1, "content": "Hi"}).status_code == 422


# Loading and unloading.


def test_a_model_is_loaded_and_unloaded_by_name(router: Server) -> None:
    load(router, "beta")
    row = rows(router)["beta"]
    assert (row["status"]["value"], row["meta"]["n_ctx"], row["in_cache"]) == ("loaded", 8192, True)
    refused(router.client.post("/models/load", json={"model": "beta"}), 400, "model_already_running")
    assert router.client.post("/models/unload", json={"model": "beta"}).json() == {"success": True}
    wait_for(lambda: statuses(router)["beta"] == "unloaded", what="the end of beta")
    refused(router.client.post("/models/unload", json={"model": "beta"}), 400, "model_not_loaded")
    for route in ("/models/load", "/models/unload"):
        assert "'alpha'" in refused(router.client.post(route, json={"model": "nope"}), 404, "model_not_found")


@with_nothing_loaded
def test_everybody_who_listens_hears_how_a_load_goes_on(router: Server) -> None:
    with listening(router) as heard, listening(router) as also_heard:
        load(router, "alpha")
        unload_all(router)
        router.client.post("/models/load", json={"model": "torn"})
        for one in (heard, also_heard):
            wait_for(partial(has_failed, one), what="the failure")
    assert heard == also_heard
    assert {event["model"] for event in heard} == {"alpha", "torn"}
    of_alpha = [event for event in heard if event["model"] == "alpha"]
    assert of_alpha[0] == {"model": "alpha", "event": "model_status", "data": {"status": "loading"}}
    *loading, done, going, gone = of_alpha[1:]
    progress = [event["data"]["progress"] for event in loading]
    assert all(one["stages"] == ["text_model"] and one["current"] == "text_model" for one in progress)
    values = [one["value"] for one in progress]
    assert (values[0], values[-1]) == (0.0, 1.0)
    assert values == sorted(values)
    assert (done["event"], done["data"]["status"], done["data"]["info"]["id"]) == ("status_change", "loaded", "alpha")
    assert done["data"]["info"]["meta"]["n_vocab"] > 0
    assert (going["event"], going["data"]) == ("status_change", {"status": "unloading"})
    assert gone["data"] == {"status": "unloaded", "exit_code": 0}
    failed = heard[-1]["data"]
    assert (failed["status"], failed["exit_code"]) == ("failed", 1)
    assert "model.safetensors" in failed["error"]


# Answers.


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_loads_the_model_that_it_names(router: Server, stream: bool) -> None:
    answer = chat(router, "org/gamma", stream=stream)
    assert answer.status_code == 200
    if stream:
        chunks = events(answer.text)
        assert {chunk["model"] for chunk in chunks} == {"org/gamma"}
        assert said(chunks)
    else:
        assert answer.json()["model"] == "org/gamma"
    assert "org/gamma" in loaded(router)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/completions", {"prompt": ["Hi", "Ho"], "max_tokens": 2}),
        ("/completion", {"prompt": "Hi", "n_predict": 2}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 2, "store": False}),
        ("/v1/responses/input_tokens", {"input": "Hi"}),
        ("/v1/embeddings", {"input": "Hi"}),
        ("/v1/decisions", {"input": "Hi", "questions": [{"type": "predicate", "instructions": "It is"}]}),
        ("/v1/systemone", {"state": "Hi", "questions": {"q": {"type": "noul", "instructions": "Is it?"}}}),
        ("/embedding", {"content": "Hi"}),
        ("/tokenize", {"content": "Hi"}),
        ("/detokenize", {"tokens": [1, 2]}),
        ("/apply-template", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/chat/completions/input_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
    ],
)
def test_every_dialect_names_its_model(router: Server, route: str, body: dict[str, Any]) -> None:
    answer = router.client.post(route, json=body | {"model": "beta"}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert "beta" in loaded(router)
    assert "x-tiles-ignored" not in answer.headers
    for name, status in ((None, 400), ("nope", 404)):
        wrong = router.client.post(route, json=body | {"model": name})
        assert wrong.status_code == status, wrong.text
        word = "missing" if name is None else "not found"
        assert word in wrong.json()["error"]["message"]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_does_not_load_is_an_error_of_the_dialect(
    router: Server, route: str, body: dict[str, Any], stream: bool
) -> None:
    answer = router.client.post(route, json=body | {"model": "torn", "stream": stream}, timeout=120)
    assert answer.status_code == 500
    assert "model.safetensors" in answer.json()["error"]["message"]
    if route == "/v1/messages":
        assert (answer.json()["type"], answer.json()["error"]["type"]) == ("error", "api_error")
    else:
        assert answer.json()["error"]["code"] == "model_load_failed"
    status = rows(router)["torn"]["status"]
    assert (status["value"], status["failed"], status["exit_code"]) == ("failed", True, 1)
    assert "model.safetensors" in status["error"]


def test_two_models_answer_at_the_same_time(router: Server) -> None:
    load(router, "alpha", "beta")
    with answering(router, "alpha") as alpha, answering(router, "beta") as beta:
        for _ in range(3):
            alpha.goes_on()
            beta.goes_on()


@with_nothing_loaded
def test_chats_to_unloaded_models_wait_for_their_turn(router: Server) -> None:
    names = ["alpha", "beta", "org/gamma", "alpha", "beta", "org/gamma"]
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: chat(router, name), names))
    assert [answer.json()["model"] for answer in answers] == names
    assert len(loaded(router)) == 2


# Making room.


@with_nothing_loaded
def test_the_least_recently_used_goes(router: Server) -> None:
    load(router, "alpha", "beta")
    chat(router, "beta")
    chat(router, "alpha")
    assert chat(router, "org/gamma").json()["model"] == "org/gamma"
    assert loaded(router) == {"alpha", "org/gamma"}


@with_nothing_loaded
def test_one_that_answers_stays_although_it_was_used_first(router: Server) -> None:
    load(router, "alpha", "beta")
    with answering(router, "alpha") as alpha:
        chat(router, "beta")
        assert chat(router, "org/gamma").status_code == 200
        assert loaded(router) == {"alpha", "org/gamma"}
        alpha.goes_on()


@pytest.mark.parametrize("first_used_ends", [True, False])
@with_nothing_loaded
def test_when_all_answer_the_first_that_comes_to_rest_goes(router: Server, first_used_ends: bool) -> None:
    load(router, "alpha", "beta")
    ends, stays = ("alpha", "beta") if first_used_ends else ("beta", "alpha")
    with concurrent.futures.ThreadPoolExecutor(2) as pool, ExitStack() as until_ends, ExitStack() as until_over:
        answers = {}
        for name in ("alpha", "beta"):
            answers[name] = (until_ends if name == ends else until_over).enter_context(answering(router, name))
        waiting = pool.submit(chat, router, "org/gamma", stream=True)
        wait_for(lambda: statuses(router)["org/gamma"] == "loading", what="its turn")
        behind = pool.submit(chat, router, "alpha")  # used first, so it takes no more until somebody has gone
        for answer in answers.values():
            answer.goes_on()
        assert {"alpha": "unloading", "beta": "loaded"}.items() <= statuses(router).items()
        until_ends.close()
        assert said(events(waiting.result(60).text))
        answers[stays].goes_on()
        until_over.close()
        assert behind.result(60).json()["model"] == "alpha"


@with_nothing_loaded
def test_one_that_waits_and_leaves_costs_nobody_anything(router: Server) -> None:
    load(router, "alpha", "beta")
    with answering(router, "alpha") as alpha, answering(router, "beta") as beta:
        with answering_to_nobody(router, "org/gamma"):
            wait_for(lambda: statuses(router)["org/gamma"] == "loading", what="its turn")
        wait_for(lambda: statuses(router)["org/gamma"] == "unloaded", what="the end of the wait")
        assert chat(router, "alpha").status_code == chat(router, "beta").status_code == 200
        alpha.goes_on()
        beta.goes_on()
    assert loaded(router) == {"alpha", "beta"}


def test_unloading_lets_answers_end_and_brings_the_model_back_for_the_next(router: Server) -> None:
    load(router, "alpha")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with answering(router, "alpha") as alpha:
            assert router.client.post("/models/unload", json={"model": "alpha"}).json() == {"success": True}
            agree_on_unloading(router, "alpha")
            after = pool.submit(chat, router, "alpha")
            alpha.goes_on()
        assert after.result(60).json()["model"] == "alpha"


def agree_on_unloading(server: Server, name: str) -> None:
    """Ask every route how a model stands that is about to go."""
    row = rows(server)[name]
    assert (row["status"]["value"], "meta" in row) == ("unloading", False)
    assert server.client.get(f"/v1/models/{name}").json()["status"]["value"] == "unloading"
    for path in ("/slots", "/props"):
        refused(server.client.get(f"{path}?model={name}&autoload=false"), 400, "model_not_loaded")
    assert server.client.get("/health").json()["model"] != name


@pytest.mark.parametrize("told", ["before its reader leaves", "after"])
def test_an_answer_that_nobody_reads_holds_up_no_unloading(router: Server, told: str) -> None:
    load(router, "alpha")
    body = {"model": "alpha", "messages": [{"role": "user", "content": "Go on"}]} | LONG | {"max_tokens": 7900}
    headers = {"X-Conversation-Id": f"left-{told.split()[0]}"}
    url = f"{router.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=120) as answer:
        LongAnswer(answer.iter_lines())
        if told != "after":
            router.client.post("/models/unload", json={"model": "alpha"})
    if told == "after":
        router.client.post("/models/unload", json={"model": "alpha"})
    wait_for(lambda: statuses(router)["alpha"] == "unloaded", what="the end of alpha")
    kept = router.client.get("/v1/stream", params={"conv_id": headers["X-Conversation-Id"]}).text
    assert "model_unloaded" in kept.splitlines()[-2]


# Sessions of the CLI.


@with_nothing_loaded
def test_a_session_brings_its_model_along_and_is_the_default(router: Server, tiny: Path) -> None:
    body = {"model": "tiny", "model_cache_path": str(tiny), "memory_path": "", "system_prompt": "Be brief."}
    assert router.client.post("/start", json=body, timeout=120).json() == {"message": "Model loaded", "warnings": []}
    assert "tiny" in loaded(router)
    plain = chat(router, None)
    assert plain.json()["model"] == "tiny"
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    prompted = plain.json()["usage"]["prompt_tokens"]
    assert prompted == chat(router, "tiny", messages=own).json()["usage"]["prompt_tokens"]
    assert prompted > chat(router, "alpha").json()["usage"]["prompt_tokens"]
    unload_all(router)
    assert chat(router, None).json()["model"] == "tiny"  # it is loaded again when it is asked


def test_memory_mode_is_answered_by_the_sessions_model(router: Server, tiny: Path, tmp_path: Path) -> None:
    turn = {"input": "Hi", "chat_start": True, "python_code": "", "stream": True, "max_tokens": 4}
    body = {"model": "tiny", "model_cache_path": str(tiny), "memory_path": str(tmp_path / "notes"), "system_prompt": ""}
    assert router.client.post("/start", json=body, timeout=120).status_code == 200
    answer = chat(router, "alpha", **turn)
    assert {chunk["model"] for chunk in events(answer.text)} == {"tiny"}


# Other servers.


@pytest.mark.slow  # a server of its own
def test_an_idle_model_is_unloaded(folder: Path, home: Path) -> None:
    flags = ("--models-dir", str(folder), "--sleep-idle-seconds", "0.3")
    with running(home, *flags) as server:
        with answering(server, "alpha") as alpha:
            time.sleep(0.4)  # longer than it may be idle
            alpha.goes_on()
        wait_for(lambda: not loaded(server), what="sleep")
        assert chat(server, "alpha").json()["model"] == "alpha"
        assert server.errors() == []


def test_one_model_is_no_router(server: Server) -> None:
    assert server.client.get("/props?model=whatever&autoload=false").json()["role"] == "model"
