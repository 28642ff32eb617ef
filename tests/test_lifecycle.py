"""Start, sessions, loading and stopping, each on a server process of its own or on one that the module shares."""

import concurrent.futures
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.processes import free_port
from tests import tiny_model
from tests.conftest import Server, environment, events, running, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second model."""
    return tiny_model.build(tmp_path_factory.mktemp("models") / "other", seed=7, layers=2)


@pytest.fixture
def broken(tiny: Path, tmp_path: Path) -> Path:
    """A model whose weights are cut short."""
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return folder


def start_body(folder: Path, **more: Any) -> dict[str, Any]:
    paths = {"model": folder.name, "model_cache_path": str(folder), "memory_path": str(folder.parent / "memory")}
    return paths | {"system_prompt": "Be brief."} | more


@pytest.fixture(scope="module")
def empty(home: Path) -> Any:
    """A server that was told nothing."""
    with running(home, env={"TILES_SESSION_FILE": str(home / "session.json")}) as server:
        yield server


def session_of(server: Server) -> dict[str, str]:
    return json.loads((server.home / "session.json").read_text())


def test_with_nothing_loaded_all_but_generation_answers(empty: Server) -> None:
    health = empty.client.get("/health").json()
    assert health == {"status": "ok", "tiles": True, "model_loaded": False, "model": None}
    assert empty.client.get("/v1/models").json()["data"] == []
    props = empty.client.get("/props").json()
    assert (props["role"], props["default_generation_settings"]["n_ctx"]) == ("model", 8192)
    refused = empty.chat()
    assert refused.status_code == 400
    assert "POST /start" in refused.json()["error"]["message"]


def test_start_loads_saves_and_answers(empty: Server, tiny: Path) -> None:
    body = start_body(tiny)
    reply = empty.client.post("/start", json=body)
    assert (reply.status_code, reply.json()) == (200, {"message": "Model loaded", "warnings": []})
    assert session_of(empty) == body
    assert (empty.home / "session.json").stat().st_mode & 0o777 == 0o600
    assert empty.client.get("/health").json()["model"] == "tiny"
    assert empty.chat().status_code == 200


def test_the_sessions_system_prompt_comes_first_unless_the_client_brings_one(empty: Server, tiny: Path) -> None:
    empty.client.post("/start", json=start_body(tiny, system_prompt="Be brief."))
    prompted = empty.chat("Hi").json()["usage"]["prompt_tokens"]
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert empty.chat(messages=own).json()["usage"]["prompt_tokens"] == prompted
    later = {"messages": [own[1], {"role": "system", "content": "Be kind."}]}
    assert "Be brief." in empty.client.post("/apply-template", json=later).json()["prompt"]
    empty.client.post("/start", json=start_body(tiny, system_prompt=""))
    assert empty.chat("Hi").json()["usage"]["prompt_tokens"] < prompted


def test_starting_another_model_replaces_the_first(empty: Server, tiny: Path, other: Path) -> None:
    for folder in (tiny, other, tiny):
        assert empty.client.post("/start", json=start_body(folder)).status_code == 200
        assert empty.chat().json()["model"] == folder.name
        assert [row["id"] for row in empty.client.get("/v1/models").json()["data"]] == [folder.name]


def test_a_failed_start_leaves_the_model_and_the_session(empty: Server, tiny: Path, broken: Path) -> None:
    empty.client.post("/start", json=start_body(tiny))
    before = session_of(empty)
    refused = empty.client.post("/start", json=start_body(broken))
    assert refused.status_code == 500
    assert refused.json()["error"]["code"] == "model_load_failed"
    assert "model.safetensors" in refused.json()["error"]["message"]
    assert session_of(empty) == before
    assert empty.chat().json()["model"] == "tiny"
    assert "model.safetensors" in empty.client.get("/health").json()["last_error"]
    assert empty.client.post("/start", json=start_body(tiny)).status_code == 200
    assert "last_error" not in empty.client.get("/health").json()


def test_answers_that_run_while_another_model_starts_are_finished(empty: Server, tiny: Path, other: Path) -> None:
    empty.client.post("/start", json=start_body(tiny))
    body = {"messages": [{"role": "user", "content": "Go on"}], "max_tokens": 600, "ignore_eos": True, "stream": True}
    with empty.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert httpx.post(f"{empty.url}/start", json=start_body(other), timeout=60).status_code == 200
        rest = [line for line in lines if line.startswith("data: ")]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert empty.chat().json()["model"] == "other"


def test_two_starts_at_once_are_served_one_after_the_other(empty: Server, tiny: Path, other: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        bodies = [start_body(folder) for folder in (tiny, other, tiny, other)]
        replies = list(pool.map(lambda body: httpx.post(f"{empty.url}/start", json=body, timeout=60), bodies))
    assert [reply.status_code for reply in replies] == [200] * 4
    assert empty.client.get("/health").json()["model"] == session_of(empty)["model"]


@pytest.mark.parametrize("field", ["model", "memory_path", "system_prompt", "model_cache_path"])
def test_start_names_a_missing_field(empty: Server, tiny: Path, field: str) -> None:
    body = start_body(tiny)
    del body[field]
    refused = empty.client.post("/start", json=body)
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == field


@pytest.mark.parametrize("memory", ["/", "~", "~/", "/etc/..", "{home}/../{home_name}", "{home}/.tiles", "/tmp/../"])
def test_a_memory_that_holds_more_than_notes_is_not_used(empty: Server, tiny: Path, memory: str) -> None:
    folder = memory.format(home=empty.home, home_name=empty.home.name)
    assert "may not be /" in memory_warning(empty, tiny, folder)


MEMORY_TURN = {"input": "Hello", "messages": [{"role": "user", "content": "Hello"}], "chat_start": True}


def memory_warning(server: Server, model: Path, memory: str) -> str:
    """Start a session whose memory cannot be used, and have a turn of memory mode refused. Gives the warning."""
    reply = server.client.post("/start", json=start_body(model, memory_path=memory))
    assert (reply.status_code, reply.json()["message"]) == (200, "Model loaded")
    warning = reply.json()["warnings"][0]
    assert warning.startswith("Memory mode does not work: memory_path ")
    assert server.chat().status_code == 200
    refused = server.client.post("/v1/chat/completions", json=MEMORY_TURN)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "memory_path")
    assert warning.endswith(refused.json()["error"]["message"])
    return str(warning)


def test_a_start_that_fails_leaves_no_folder_and_a_part_of_a_path_is_not_used(
    empty: Server, broken: Path, tiny: Path, tmp_path: Path
) -> None:
    memory = tmp_path / "some" / "where" / "memory"
    assert empty.client.post("/start", json=start_body(broken, memory_path=str(memory))).status_code == 500
    assert list((tmp_path / "some").rglob("*")) == []
    assert not (tmp_path / "some").exists()
    nested = tmp_path / "file"
    nested.write_text("in the way")
    assert "cannot be made" in memory_warning(empty, tiny, str(nested / "new" / "memory"))
    for part in ("memory", "./memory", "NULL", "a/../b"):
        assert "whole path" in memory_warning(empty, tiny, part)
    reply = empty.client.post("/start", json=start_body(tiny, memory_path=str(memory)))
    assert (reply.status_code, reply.json()["warnings"]) == (200, [])
    assert memory.is_dir()


def test_what_a_start_could_not_do_is_said_in_its_warnings(tiny: Path, tmp_path: Path) -> None:
    """A session that cannot be saved, and a context that is shorter than Tiles thinks."""
    config = tmp_path / "config.toml"
    config.write_text("[llama]\ncontext_length = 200000\n")
    env = {"TILES_SESSION_FILE": "/proc/nowhere/session.json", "TILES_CONFIG": str(config)}
    with running(tmp_path, env=env) as server:
        reply = server.client.post("/start", json=start_body(tiny))
        saving, context = reply.json()["warnings"]
        assert saving == "The session could not be saved to /proc/nowhere/session.json"
        assert "not 200000: tiny has no more" in context
        assert server.chat().status_code == 200


def test_unload_frees_the_model_and_says_no_to_what_is_not_loaded(empty: Server, tiny: Path) -> None:
    empty.client.post("/start", json=start_body(tiny))
    wrong = empty.client.post("/models/unload", json={"model": "nobody"})
    assert (wrong.status_code, wrong.json()["success"]) == (200, False)
    assert "nobody" in wrong.json()["error"]
    assert empty.client.post("/models/unload", json={"model": "tiny"}).json() == {"success": True}
    assert empty.chat().status_code == 400
    assert session_of(empty)["model"] == "tiny"
    assert empty.client.post("/models/unload", json={"model": "tiny"}).json()["success"] is False


def test_loading_without_a_configured_folder_names_the_variable(empty: Server) -> None:
    reply = empty.client.post("/models/load", json={"model": "tiny", "extra_args": ["--x"]})
    assert reply.status_code == 200
    assert reply.json()["success"] is False
    assert "TILES_MODEL_CACHE_PATH" in reply.json()["error"]
    empty_id = empty.client.post("/models/load", json={"model": " "})
    assert (empty_id.status_code, empty_id.json()["success"]) == (200, False)


def test_models_load_takes_the_configured_folder_and_saves_the_session(tiny: Path, tmp_path: Path) -> None:
    session = tmp_path / "session.json"
    env = {"TILES_SESSION_FILE": str(session), "TILES_MODEL_CACHE_PATH": str(tiny)}
    with running(tmp_path, env=env) as server:
        assert server.client.post("/models/load", json={"model": "any-name"}).json() == {"success": True}
        assert server.chat().status_code == 200
        saved = json.loads(session.read_text())
    assert (saved["model"], saved["model_cache_path"]) == ("any-name", str(tiny))


def test_kill_and_restart_bring_the_model_back(tiny: Path, tmp_path: Path) -> None:
    env = {"TILES_SESSION_FILE": str(tmp_path / "session.json")}
    with running(tmp_path, env=env) as server:
        assert server.client.post("/start", json=start_body(tiny)).status_code == 200
        server.kill()
    with running(tmp_path, env=env) as server:
        assert server.client.get("/health").json()["model"] == "tiny"
        assert server.chat().status_code == 200


def test_a_prompt_is_still_known_after_a_restart_and_a_second_server_keeps_none(tiny: Path, tmp_path: Path) -> None:
    question = " ".join(f"Item {number} costs {number * 37 % 91}." for number in range(60))
    with running(tmp_path, "--model", str(tiny)) as server:
        first = server.chat(question, temperature=0).json()
        with running(tmp_path, "--model", str(tiny)) as second:
            assert "prompts are not kept on disk" in second.log
        assert server.stop() == 0
    with running(tmp_path, "--model", str(tiny)) as server:
        again = server.chat(question, temperature=0).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"] - 1
    assert again["choices"] == first["choices"]


def test_an_answer_is_given_back_after_a_restart_and_nothing_of_it_is_computed_again(tmp_path: Path) -> None:
    """However the model wrote it: at this temperature it seldom splits words as its tokenizer does."""
    question = " ".join(f"Item {number} costs {number * 37 % 91}." for number in range(9))
    messages = [{"role": "user", "content": question}]
    body: dict[str, Any] = {"messages": messages, "temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0}
    body["max_tokens"] = 60
    with running(tmp_path, "--demo") as server:
        (end,) = server.client.post("/tokenize", json={"content": "<|im_end|>"}).json()["tokens"]
        body["logit_bias"] = {str(end): -100}
        for seed in range(20):
            first = server.client.post("/v1/chat/completions", json=body | {"seed": seed}).json()
            text = first["choices"][0]["message"]["content"]
            if len(server.client.post("/tokenize", json={"content": text}).json()["tokens"]) < 60:
                break
        else:
            pytest.fail("no answer was split in more parts")
        assert server.stop() == 0
    with running(tmp_path, "--demo") as server:
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And then?"}]
        usage = server.client.post("/v1/chat/completions", json=body).json()["usage"]
    computed_before = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"] - 1
    assert usage["prompt_tokens_details"]["cached_tokens"] >= computed_before


@pytest.mark.parametrize("content", ['{"model": "x"'])
def test_a_torn_session_is_ignored_and_bootstrap_takes_over(tiny: Path, tmp_path: Path, content: str) -> None:
    session = tmp_path / "session.json"
    session.write_text(content)
    env = {
        "TILES_SESSION_FILE": str(session),
        "TILES_BOOTSTRAP_MODEL": "boot",
        "TILES_BOOTSTRAP_MODEL_CACHE_PATH": str(tiny),
    }
    with running(tmp_path, env=env) as server:
        assert server.client.get("/health").json()["model_loaded"] is True
        assert "session file ignored" in server.log
        saved = json.loads(wait_for(lambda: text if (text := session.read_text()) != content else None))
    assert saved == {
        "model": "boot",
        "model_cache_path": str(tiny),
        "memory_path": "",
        "system_prompt": "You are a helpful assistant.",
    }


def test_a_session_that_does_not_load_gives_way_to_bootstrap_and_both_failing_leave_an_empty_server(
    tiny: Path, broken: Path, tmp_path: Path
) -> None:
    session = tmp_path / "session.json"
    session.write_text(json.dumps(start_body(broken)))
    env = {"TILES_SESSION_FILE": str(session), "TILES_BOOTSTRAP_MODEL": "boot"}
    with running(tmp_path, env=env | {"TILES_BOOTSTRAP_MODEL_CACHE_PATH": str(broken)}) as server:
        health = server.client.get("/health").json()
        assert (health["model_loaded"], health["status"]) == (False, "ok")
        assert "model.safetensors" in health["last_error"]
        assert json.loads(session.read_text())["model"] == "broken"
    with running(tmp_path, env=env | {"TILES_BOOTSTRAP_MODEL_CACHE_PATH": str(tiny)}) as server:
        assert server.client.get("/health").json()["model_loaded"] is True


def test_nothing_is_persisted_when_told_so_and_an_unwritable_session_only_warns(tiny: Path, tmp_path: Path) -> None:
    session = tmp_path / "file" / "session.json"
    (tmp_path / "file").write_text("in the way")
    with running(tmp_path, env={"TILES_SESSION_FILE": str(session)}) as server:
        assert server.client.post("/start", json=start_body(tiny)).status_code == 200
        assert "session not saved" in server.log
    session = tmp_path / "session.json"
    with running(tmp_path, env={"TILES_SESSION_FILE": str(session), "TILES_SKIP_SESSION_PERSIST": "1"}) as server:
        assert server.client.post("/start", json=start_body(tiny)).status_code == 200
    assert not session.exists()


def test_two_servers_on_one_session_file_leave_the_last_success(tiny: Path, other: Path, tmp_path: Path) -> None:
    env = {"TILES_SESSION_FILE": str(tmp_path / "session.json")}
    with running(tmp_path, env=env) as one, running(tmp_path, env=env) as two:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda s: s.client.post("/start", json=start_body(tiny)).raise_for_status(), (one, two)))
        two.client.post("/start", json=start_body(other)).raise_for_status()
        assert session_of(two)["model"] == "other"
        assert one.chat().json()["model"] == "tiny"


def test_ping_and_health_answer_while_the_first_model_loads(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny), ready=False) as server:
        seen = []
        wait_for(lambda: seen.append(loading_answers(server)) or server.client.get("/health").status_code == 200)
        loading = [answers for answers in seen if answers["health"].status_code == 503]
        assert loading, "the model was there before the first question"
        first = loading[0]
        assert first["ping"].status_code == 200
        body = first["health"].json()
        assert (body["status"], body["tiles"], body["model_loaded"]) == ("loading model", True, False)
        assert body["error"]["message"] == "Loading model"
        for name in ("chat", "props", "models"):
            assert first[name].status_code == 503
            assert first[name].json()["error"]["message"] == "Loading model"
            assert int(first[name].headers["retry-after"]) >= 1


def loading_answers(server: Server) -> dict[str, httpx.Response]:
    answers = {name: server.client.get(path) for name, path in (("health", "/health"), ("ping", "/ping"))}
    answers |= {"props": server.client.get("/props"), "models": server.client.get("/v1/models"), "chat": server.chat()}
    return (
        answers
        if server.client.get("/health").status_code == 503
        else answers | {"health": server.client.get("/health")}
    )


def test_what_does_not_fit_into_the_queue_is_told_when_to_come_again(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny), "--max-batch", "1", "--max-queue", "2") as server:
        body = {"messages": [{"role": "user", "content": "Go on"}], "ignore_eos": True, "stream": True}
        with contextlib.ExitStack() as streams:
            for _ in range(3):  # one runs, two wait
                stream = streams.enter_context(server.client.stream("POST", "/v1/chat/completions", json=body))
                assert stream.status_code == 200
            refused = server.chat()
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
            assert int(refused.headers["retry-after"]) >= 1
            server.client.headers["user-agent"] = "another program"
            with server.client.stream("POST", "/v1/chat/completions", json=body | {"max_tokens": 3}) as other:
                assert other.status_code == 200, "who asks for nothing else has a place in the queue"
        assert wait_for(lambda: answer if (answer := server.chat()).status_code == 200 else None)
        assert '"level": "error"' not in server.log


def test_a_step_that_hangs_fails_its_requests_and_the_server_begins_anew(tiny: Path, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    program = (str(Path(__file__).with_name("hanging.py")), str(hang))
    flags = ("--model", str(tiny), "--watchdog-seconds", "0.5")
    with running(tmp_path, *flags, program=program) as server:
        assert server.chat().status_code == 200
        hang.touch()
        refused = server.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_stuck")
        health = httpx.get(f"{server.url}/health", timeout=60)
        assert (health.status_code, health.json()["status"]) == (503, "stuck")
        assert "has not come back" in health.json()["error"]["message"]
        answer = wait_for(lambda: answered(server))
        assert answer["usage"]["completion_tokens"] > 0
        assert server.process.poll() is None, "it is the same process, with a new program"


def test_a_process_that_was_suspended_is_not_called_stuck(tiny: Path, tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "Go"}], "ignore_eos": True, "max_tokens": 400, "stream": True}
    with running(tmp_path, "--model", str(tiny), "--watchdog-seconds", "0.5") as server:
        with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(2)  # longer than the watchdog waits
            server.process.send_signal(signal.SIGCONT)
            chunks = events("\n".join([first, *lines]) + "\n")
        assert chunks[-1]["timings"]["predicted_n"] == 400
        assert server.client.get("/health").status_code == 200
        assert server.errors() == []


def answered(server: Server) -> dict[str, Any] | None:
    """Give an answer, once the server is back."""
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.post(
            f"{server.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]}, timeout=60
        )
        return dict(answer.json()) if answer.status_code == 200 else None
    return None


def test_sigterm_lets_answers_end_refuses_new_ones_and_exits_with_0(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny), env={"TILES_SHUTDOWN_SECONDS": "1"}) as server:
        told = threading.Event()
        ends: list[str] = []
        reader = threading.Thread(target=read_stream, args=(server, told, ends))
        reader.start()
        assert told.wait(30)
        server.process.send_signal(signal.SIGTERM)
        refused = wait_for(lambda: answer if (answer := server.chat()).status_code == 503 else None)
        assert refused.json()["error"]["code"] == "shutting_down"
        assert server.process.wait(20) == 0
        reader.join(20)
    assert "shutting_down" in ends[-1]
    assert "choices" in ends[-1]


def read_stream(server: Server, told: threading.Event, ends: list[str]) -> None:
    body = {"messages": [{"role": "user", "content": "Go on"}], "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as stream:
        for line in stream.iter_lines():
            told.set()
            ends.extend([line] if line else [])


def test_sigint_without_answers_exits_at_once_with_0_and_the_session_is_whole(tiny: Path, tmp_path: Path) -> None:
    env = {"TILES_SESSION_FILE": str(tmp_path / "session.json")}
    with running(tmp_path, env=env) as server:
        server.client.post("/start", json=start_body(tiny))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
    assert json.loads((tmp_path / "session.json").read_text())["model"] == "tiny"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--port", "http"], "--port"),
        (["--port", "70000"], "--port"),
        (["--max-batch", "0"], "--max-batch"),
        (["--cache-ram", "lots"], "--cache-ram"),
        (["--log-format", "xml"], "--log-format"),
        (["--ui-settings", "/no/such/file"], "--ui-settings"),
        (["--host", "0.0.0.0"], "--api-key"),
        (["--model", "x", "--demo"], "--demo"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--draft-tokens", "8"], "--draft-model"),
        (["--draft-model", "x", "--draft-tokens", "0"], "--draft-tokens"),
        (["--webui", "/nowhere"], "/nowhere is no built Web UI"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(tmp_path: Path, flags: list[str], says: str) -> None:
    ended = run_app(tmp_path, *flags)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) <= 4
    assert "Traceback" not in ended.stderr


def test_a_port_in_use_is_one_line_and_exit_code_2(empty: Server, tmp_path: Path) -> None:
    ended = run_app(tmp_path, "--port", str(httpx.URL(empty.url).port))
    assert ended.returncode == 2
    assert "in use" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    ended = run_app(tmp_path, TILES_PORT="abc")
    assert ended.returncode == 2
    assert "TILES_PORT" in ended.stderr


def test_help_tells_every_flag_and_its_variable(tmp_path: Path) -> None:
    ended = run_app(tmp_path, "serve", "--help")
    assert ended.returncode == 0
    for word in ("--model", "--demo", "--api-key", "--allow-origin", "TILES_MAX_BATCH", "TILES_OPEN"):
        assert word in ended.stdout


def run_app(home: Path, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", *flags]
    settings = {"TILES_PORT": str(free_port())} | env
    return subprocess.run(command, env=environment(home, **settings), capture_output=True, text=True, timeout=60)


def test_logs_say_what_happened_and_never_what_was_said(tiny: Path, tmp_path: Path) -> None:
    secret = "xyzzy-secret-words"
    with running(tmp_path, "--model", str(tiny), "--api-key", "key-of-gold", ready=False) as server:
        wait_for(lambda: httpx.get(f"{server.url}/health", timeout=60).status_code == 200)
        server.client.headers["Authorization"] = "Bearer key-of-gold"
        said = server.chat(secret, messages=[{"role": "user", "content": secret}]).json()
        log = wait_for(lambda: server.log if '"tokens_per_second"' in server.log else None)
    line = next(json.loads(line) for line in log.splitlines() if "tokens_per_second" in line)
    assert (line["route"], line["status"], line["model"]) == ("/v1/chat/completions", 200, "tiny")
    assert {"request_id", "prompt_tokens", "cached_tokens", "completion_tokens", "ttft_ms", "finish"} <= line.keys()
    assert secret not in log
    assert "key-of-gold" not in log
    text = said["choices"][0]["message"]["content"]
    assert len(text) < 4 or text not in log
