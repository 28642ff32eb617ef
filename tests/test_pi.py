"""Pi, the agent of Tiles: the newest and the one that Tiles has in it, from npm, against a server of ours.

    npm install --prefix FOLDER @earendil-works/pi-coding-agent pi-of-tiles@npm:@earendil-works/pi-coding-agent@0.84.2
    TILES_TEST_PI=FOLDER pytest tests/test_pi.py

A node in FOLDER/node_modules/.bin comes before the one on the PATH.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from app.services.bootstrap import DEMO_FOLDER
from app.services.generation import ToolCall
from tests.conftest import Server, wait_for
from tests.pi import PACKAGES, cli, pi
from tests.scripted import ScriptedModel, answer, serving, thought
from tests.tiles_cli import swapped_in
from tests.tiles_daemon import tiles_daemon

MODEL = "tiles-nano"


@pytest.fixture(params=PACKAGES)
def version(request: pytest.FixtureRequest) -> str:
    if not cli(request.param).exists():
        pytest.skip("no Pi: TILES_TEST_PI names no folder where npm installed it")
    return str(request.param)


def test_it_starts_and_knows_its_model(version: str, demo: Server, tmp_path: Path) -> None:
    with pi(demo.url, MODEL, tmp_path, version=version) as agent:
        agent.send(type="get_state")
        state = agent.until("response")[-1]
        assert state["success"] is True
        assert state["data"]["model"]["id"] == MODEL
        assert state["data"]["model"]["api"] == "openai-responses"
        assert state["data"]["isStreaming"] is False


def test_it_is_answered(version: str, demo: Server, tmp_path: Path) -> None:
    before = len(demo.logged("request"))
    with pi(demo.url, MODEL, tmp_path, version=version) as agent:
        for text in ("hello", "and again"):
            message = agent.ask(text)[-1]
            assert message["role"] == "assistant"
            assert message.get("errorMessage") is None
            assert message["stopReason"] in {"stop", "length"}
    lines = [line for line in demo.logged("request")[before:] if line["route"] == "/v1/responses"]
    assert [line["status"] for line in lines] == [200, 200]
    assert all(line["prompt_tokens"] > 1000 for line in lines)


def test_it_shows_thoughts_and_words_and_counts_them(version: str, tmp_path: Path) -> None:
    model = ScriptedModel([answer(thought("Hm. ", 1), thought("So."), "Hel", "lo")])
    with serving(model, tmp_path) as url, pi(url, "scripted", tmp_path, version=version) as agent:
        agent.send(type="prompt", message="hello")
        lines = agent.until("agent_end")
        kinds = [line["assistantMessageEvent"]["type"] for line in lines if line["type"] == "message_update"]
        assert list(dict.fromkeys(kinds)) == [
            *("thinking_start", "thinking_delta", "thinking_end", "text_start", "text_delta", "text_end")
        ]
        message = lines[-1]["messages"][-1]
        assert [(part["type"], part.get("text") or part.get("thinking")) for part in message["content"]] == [
            ("thinking", "Hm. So."),
            ("text", "Hello"),
        ]
        assert message["stopReason"] == "stop"
        usage = message["usage"]
        assert (usage["input"], usage["cacheRead"], usage["output"], usage["totalTokens"]) == (7, 3, 5, 15)
    (asked,) = model.requests
    assert [message.role for message in asked.messages] == ["system", "user"]
    assert {tool["function"]["name"] for tool in asked.tools} >= {"read", "bash", "edit", "write"}
    assert asked.template_kwargs["enable_thinking"] is True


def test_it_calls_a_tool_and_is_told_what_came_of_it(version: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("the answer is 42\n")
    call = ToolCall(0, "call_1", "read", json.dumps({"path": "note.txt"}))
    model = ScriptedModel([answer(thought("Look."), call), answer("It is 42.")])
    with serving(model, tmp_path) as url, pi(url, "scripted", tmp_path, version=version) as agent:
        said = agent.ask("what does the note say?")
    messages = [message for message in said if message["role"] != "system"]  # some versions list theirs
    assert [message["role"] for message in messages] == ["user", "assistant", "toolResult", "assistant"]
    assert messages[1]["stopReason"] == "toolUse"
    assert "the answer is 42" in messages[2]["content"][0]["text"]
    assert messages[3]["content"][0]["text"] == "It is 42."
    back = model.requests[1].messages[-2:]
    assert [message.role for message in back] == ["assistant", "tool"]
    assert back[0].reasoning == "Look."
    assert [(made.id, made.name, json.loads(made.arguments)) for made in back[0].tool_calls] == [
        ("call_1", "read", {"path": "note.txt"})
    ]
    assert (back[1].tool_call_id, back[1].content.strip()) == ("call_1", "the answer is 42")


def test_the_demo_model_reads_a_file_for_it(version: str, demo: Server, tmp_path: Path) -> None:
    notes = {"river.txt": "blue boat\n", "garden.md": "water the roses\n", "lamp.txt": "green\n", "b.txt": "oak\n"}
    for name, text in notes.items():
        (tmp_path / name).write_text(text)
    turns = []
    for name in notes:  # it is a small model: one of them will do
        with pi(demo.url, MODEL, tmp_path / f"pi of {name}", tmp_path, version=version) as agent:
            turns.append([message for message in agent.ask(f"Read the file {name}") if message["role"] != "system"])
        if is_read(turns[-1], name, notes[name].strip()):
            return
    raise AssertionError(turns)


def is_read(turn: list[dict[str, Any]], name: str, text: str) -> bool:
    """Whether the file was read by a call, and the answer to what came back tells of it."""
    if [message["role"] for message in turn] != ["user", "assistant", "toolResult", "assistant"]:
        return False
    asked, result, answer = turn[1:]
    calls = [part for part in asked["content"] if part["type"] == "toolCall"]
    assert asked["stopReason"] == "toolUse"
    return (
        [(call["name"], call["arguments"].get("path")) for call in calls] == [("read", name)]
        and text in result["content"][0]["text"]
        and text.split()[-1] in answer["content"][-1]["text"]
    )


def test_its_abort_ends_the_answer_here_too(version: str, tmp_path: Path) -> None:
    model = ScriptedModel([answer("And", " so", " on")[:-1], answer("Yes?")])
    with serving(model, tmp_path) as url, pi(url, "scripted", tmp_path, version=version) as agent:
        agent.send(type="prompt", message="count to a million")
        agent.until("message_update")
        agent.send(type="abort")
        assert agent.until("agent_end")[-1]["messages"][-1]["stopReason"] == "aborted"
        wait_for(lambda: model.cancelled == 1, 10, what="the end of the answer")
        assert agent.ask("are you there?")[-1]["content"][0]["text"] == "Yes?"


def test_it_shows_why_there_is_no_answer(version: str, tmp_path: Path) -> None:
    with serving(None, tmp_path) as url, pi(url, "scripted", tmp_path, version=version) as agent:
        message = agent.ask("hello")[-1]
        assert message["stopReason"] == "error"
        assert "POST /start" in message["errorMessage"]


def test_it_talks_to_the_server_that_tiles_has_started(version: str, tmp_path: Path) -> None:
    name = "mlx-community/Nano-4bit"
    with tiles_daemon({name: DEMO_FOLDER}) as daemon, swapped_in(tmp_path, daemon.url) as tiles:
        tiles.start()
        tiles.wait_until_up()
        assert tiles.url is not None
        with pi(tiles.url, name, tmp_path / "agent", version=version) as agent:
            message = agent.ask("hello")[-1]
            assert (message.get("errorMessage"), message["stopReason"]) == (None, "stop")
        assert tiles.stop() == "Server stopped"
        assert tiles.process is not None
        assert tiles.process.wait(20) == 0
