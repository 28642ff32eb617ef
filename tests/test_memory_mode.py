"""Memory mode as the Tiles CLI uses it, on a server whose model says nothing sensible: the protocol is what counts."""

import json
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Server, events, running, said, wait_for
from tests.memory_cli import PROMPT, Cli, Remembering

ENV = {"TILES_KEEP_CONVERSATION": "1", "TILES_SHUTDOWN_SECONDS": "0", "TILES_CONTEXT_LENGTH": "2048"}


@contextmanager
def remembering_server(tiny: Path, home: Path, **env: str) -> Iterator[Remembering]:
    with running(home, env=ENV | {"TILES_SESSION_FILE": str(home / "session.json")} | env) as server:
        yield Remembering(server, home / "memory", tiny)
        assert server.errors() == []


@pytest.fixture(scope="module")
def remembering(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remembering]:
    with remembering_server(tiny, tmp_path_factory.mktemp("remembering")) as one:
        yield one


def test_a_turn_is_streamed_in_chunks_that_each_parse_at_once(remembering: Remembering) -> None:
    cli = remembering.cli()
    text = cli.post("My name is Ada.")
    first, *_, last = cli.seen
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(chunk["object"] == "chat.completion.chunk" and len(chunk["choices"]) == 1 for chunk in cli.seen)
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] in {"length", "stop"}
    assert last["metrics"].keys() == {"ttft_ms", "total_tokens", "tokens_per_second", "total_latency_s"}
    assert last["metrics"]["total_tokens"] > 0
    assert remembering.kept() == [("user", "My name is Ada."), ("assistant", text)]


def test_a_turn_can_be_answered_whole(remembering: Remembering) -> None:
    remembering.cli()
    answer = remembering.server.chat("Hello", input="Hello", chat_start=True).json()
    assert answer["object"] == "chat.completion"
    assert answer["metrics"]["total_tokens"] > 0
    assert remembering.kept() == [("user", "Hello"), ("assistant", answer["choices"][0]["message"]["content"])]


def test_a_relay_runs_the_code_and_the_model_sees_what_it_left(remembering: Remembering) -> None:
    cli = remembering.cli()
    first = cli.post("My name is Ada.")
    second = cli.post("My name is Ada.", start=False, code="done = create_file('user.md', '# Ada\\n')")
    assert remembering.kept() == [
        ("user", "My name is Ada."),
        ("assistant", first),
        ("user", "<result>\n{'done': True}\n</result>"),
        ("assistant", second),
    ]
    assert (remembering.memory / "user.md").read_text() == "# Ada\n"


def test_a_relay_without_code_goes_on_as_after_code_that_left_nothing(remembering: Remembering) -> None:
    cli = remembering.cli()
    first = cli.post("one")
    second = cli.post("one", start=False)
    assert remembering.kept() == [
        ("user", "one"),
        ("assistant", first),
        ("user", "<result>\n{}\n</result>"),
        ("assistant", second),
    ]


def test_code_comes_before_the_words_that_come_with_it(remembering: Remembering) -> None:
    cli = remembering.cli()
    cli.post("two", code="x = 1")
    users = [text for role, text in remembering.kept() if role == "user"]
    assert users == ["<result>\n{'x': 1}\n</result>", "two"]


def test_a_reply_that_comes_back_does_not_stand_twice_and_an_unknown_one_is_added(remembering: Remembering) -> None:
    cli = remembering.cli()
    cli.last_reply = cli.post("one")
    second = cli.post("two")
    assert [role for role, _ in remembering.kept()] == ["user", "assistant", "user", "assistant"]
    cli.last_reply = "Nobody said this."
    cli.post("three")
    assert ("assistant", f"{second}\nNobody said this.") in remembering.kept()


def test_start_begins_a_new_conversation(remembering: Remembering) -> None:
    remembering.cli().post("one")
    remembering.cli().post("two")
    assert [text for role, text in remembering.kept() if role == "user"] == ["two"]


def test_the_sessions_prompt_comes_first(remembering: Remembering) -> None:
    tokens = []
    for prompt in (PROMPT, PROMPT * 20):
        remembering.start(system_prompt=prompt)
        cli = Cli(remembering.server.url)
        cli.post("one")
        timings = cli.seen[-1]["timings"]
        tokens.append(timings["prompt_n"] + timings["cache_n"])
    assert tokens[1] > tokens[0] + 50


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("x = 1 +", "({}, {SyntaxError: Expected an expression (line 1)})"),
        ("x = read_file('nope.md')", "{'x': 'Error: file nope.md does not exist'}"),
        ("x = 1\nraise ValueError('no')", "({'x': 1}, {ValueError: no})"),
        ("import os\nos.fork()", "({'os': \"<module 'os'>\"}, {AttributeError: module 'os' has no attribute 'fork'})"),
        ("import socket", "({}, {ModuleNotFoundError: No module named 'socket'})"),
    ],
)
def test_bad_code_is_an_outcome(remembering: Remembering, code: str, outcome: str) -> None:
    assert remembering.relayed(code) == f"<result>\n{outcome}\n</result>"


def test_code_that_wants_too_much_is_an_outcome(remembering: Remembering) -> None:
    assert "{MemoryError: " in remembering.relayed("x = 'x' * 10 ** 10")
    assert "{MemoryError: " in remembering.relayed("print('x' * 10 ** 7)")


def test_the_log_accounts_for_a_run_without_its_contents(remembering: Remembering) -> None:
    remembering.relayed("create_file('audited/a.md', 'words-of-a-note')\nx = read_file('audited/a.md')\n1 / 0")
    line = next(line for line in remembering.server.logged("memory run") if "audited/a.md" in line["paths"])
    assert line["calls"] == {"create_file": 1, "read_file": 1}
    assert (line["read"], line["written"], line["outcome"]) == (15, 15, "ZeroDivisionError")
    assert "words-of-a-note" not in remembering.server.log


def test_requests_at_once_take_turns(remembering: Remembering) -> None:
    url = remembering.cli().url
    with ThreadPoolExecutor(6) as pool:
        spoken = dict(pool.map(lambda n: (f"turn {n}", Cli(url).post(f"turn {n}", seed=n)), range(6)))
    kept = remembering.kept()
    assert [role for role, _ in kept] == ["user", "assistant"] * 6
    assert {user: answer for (_, user), (_, answer) in zip(kept[::2], kept[1::2], strict=True)} == spoken


def test_an_endless_loop_harms_nobody_and_ends_with_its_client(remembering: Remembering) -> None:
    cli = remembering.cli()
    cli.post("one")
    body = {"input": "one", "python_code": "create_dir('looping')\nwhile True:\n    pass", "chat_start": False}
    with closing(sent(remembering.server, body | {"messages": [{"role": "user", "content": "one"}]})):
        wait_for(lambda: (remembering.memory / "looping").is_dir(), what="the code")
        assert workers(remembering.server) != []
        assert remembering.server.chat("Hello").status_code == 200
        assert remembering.server.client.get("/ping").status_code == 200
    wait_for(lambda: workers(remembering.server) == [], 10, what="the end of the code")
    assert cli.post("two") == remembering.kept()[-1][1]
    assert [text for role, text in remembering.kept() if role == "user"] == ["one", "two"]


def sent(server: Server, body: dict[str, Any]) -> socket.socket:
    """A request whose answer nobody has read."""
    content = json.dumps(body).encode()
    address = httpx.URL(server.url)
    connection = socket.create_connection((address.host, address.port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.host}\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def workers(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child for child in children if _runs(child, "monty")]


def _runs(process: psutil.Process, name: str) -> bool:
    try:
        return name in process.name() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return False


def test_what_was_said_before_a_hang_up_is_kept(remembering: Remembering) -> None:
    cli = remembering.cli()
    body = {"input": "one", "messages": [{"role": "user", "content": "one"}], "stream": True, "max_tokens": 4000}
    url = f"{remembering.server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body | {"ignore_eos": True, "seed": 3}, timeout=60) as answer:
        chunks = answer.iter_text()
        heard = next(chunks) + next(chunks) + next(chunks)
    cli.post("two")
    assert [role for role, _ in remembering.kept()] == ["user", "assistant", "user", "assistant"]
    partial = remembering.kept()[1][1]
    assert partial.startswith(said(events(heard, ended=False)).removesuffix("\ufffd"))


def test_a_full_context_loses_its_oldest_turns(remembering: Remembering) -> None:
    cli = remembering.cli()
    for number in range(5):
        cli.post(f"turn {number}: " + "the river and the house " * 60)
    users = [text.partition(":")[0] for role, text in remembering.kept() if role == "user"]
    assert users[-1] == "turn 4"
    assert "turn 0" not in users
    assert users == [f"turn {number}" for number in range(5)][-len(users) :]
    shortened = remembering.server.logged("memory conversation shortened")[-1]
    assert shortened["turns_dropped"] >= 1
    assert shortened["tokens"] <= shortened["context"]


def test_a_result_too_large_for_the_context_is_cut_and_an_input_too_large_is_refused(remembering: Remembering) -> None:
    outcome = remembering.relayed("x = 'the river and the house ' * 300")
    assert outcome.startswith("<result>\n{'x': 'the river")
    assert "[cut: " in outcome
    cut = remembering.server.logged("memory conversation shortened")[-1]
    assert cut["results_cut"] >= 1
    refused = remembering.server.chat("Hello", input="the river and the house " * 800)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert Cli(remembering.server.url).post("still here") == remembering.kept()[-1][1]


def test_without_a_memory_folder_the_answer_names_start(remembering: Remembering) -> None:
    assert remembering.start(memory_path="").status_code == 200
    assert remembering.server.chat("Hello").status_code == 200
    refused = remembering.server.chat("Hello", input="Hello", chat_start=True)
    assert refused.status_code == 400
    assert "POST /start" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"python_code": "x = 1"}, "python_code"),
        ({"input": "Hello", "chat_start": False}, "python_code"),
        ({"input": "Hello", "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"input": "Hello", "messages": [{"role": "assistant", "content": "Hi"}]}, "messages"),
    ],
)
def test_what_does_not_go_with_memory_mode_is_refused(
    remembering: Remembering, more: dict[str, Any], param: str
) -> None:
    remembering.start()
    refused = remembering.server.chat("Hello", **more)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


@pytest.mark.parametrize("header", [{"Origin": "{url}"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}])
@pytest.mark.parametrize("more", [{"input": "Hello"}, {"input": "", "python_code": "create_file('page.md')"}])
def test_a_web_page_cannot_reach_the_memory(
    remembering: Remembering, header: dict[str, str], more: dict[str, Any]
) -> None:
    remembering.start()
    headers = {name: value.format(url=remembering.server.url) for name, value in header.items()}
    body = {"messages": [{"role": "user", "content": "Hello"}]} | more
    refused = remembering.server.client.post("/v1/chat/completions", json=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "browser_page")
    assert not (remembering.memory / "page.md").exists()


def test_a_memory_folder_is_made_and_a_home_is_expanded(remembering: Remembering) -> None:
    assert remembering.start(memory_path="~/deep/down/notes").status_code == 200
    made = remembering.server.home / "deep" / "down" / "notes"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    cli = Cli(remembering.server.url)
    cli.post("one")
    cli.post("one", start=False, code="create_file('a.md', 'x')")
    assert (made / "a.md").read_text() == "x"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("{home}/file", "not a folder"),
        ("{home}/file/below", "cannot be made"),
        ("{home}/.tiles/server", "this server's own files"),
        ("{home}", "the home folder"),
        ("\0", "no path"),
        pytest.param("/proc/self", "not writable", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux")),
    ],
)
def test_a_folder_that_cannot_be_the_memory_is_a_warning_of_the_start_and_a_turn_is_refused(
    remembering: Remembering, place: str, says: str
) -> None:
    (remembering.server.home / "file").write_text("in the way")
    answer = remembering.start(memory_path=place.format(home=remembering.server.home))
    assert (answer.status_code, answer.json()["message"]) == (200, "Model loaded")
    (warning,) = answer.json()["warnings"]
    assert says in warning
    assert remembering.server.chat().status_code == 200
    refused = remembering.server.chat("one", input="one", chat_start=True)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "memory_path")
    assert refused.json()["error"]["message"] in warning


def test_a_memory_folder_that_went_away_is_made_again(remembering: Remembering) -> None:
    cli = remembering.cli()
    remembering.start(memory_path=str(remembering.server.home / "away"))
    (remembering.server.home / "away").rmdir()
    cli.post("one", code="x = list_files()")
    assert (remembering.server.home / "away").is_dir()


@pytest.mark.slow
def test_a_late_error_is_a_chunk_and_the_end_mark_and_a_restart_brings_the_conversation_back(
    remembering: Remembering,
) -> None:
    cli, server = remembering.cli(), remembering.server
    cli.post("one")
    with ThreadPoolExecutor(1) as pool:
        speaking = pool.submit(cli.post, "two", max_tokens=-1, ignore_eos=True, seed=3)
        wait_for(lambda: len(cli.seen) > 3, what="the answer")
        server.process.send_signal(signal.SIGTERM)  # the last test: it ends the server that the others share
        partial = speaking.result(30)
    last = cli.seen[-1]
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "error"}]
    assert last["error"]["code"] == "shutting_down"
    server.process.wait(20)
    before = remembering.kept()
    assert before[-1] == ("assistant", partial)
    assert stat.S_IMODE((server.home / "session.conversation.json").stat().st_mode) == 0o600
    with remembering_server(remembering.model, server.home) as again:
        Cli(again.server.url).post("three")
        assert again.kept()[: len(before)] == before
        assert len(again.kept()) == len(before) + 2
        again.start()
        assert again.kept() == []
