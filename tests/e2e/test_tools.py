"""Tools that run in the browser; the server has none that it would run."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests import mcp_server
from tests.conftest import KEY, Server, running
from tests.e2e.conftest import Visit
from tests.e2e.person import Person
from tests.e2e.wire import CHAT, Call


def decides(person: Person, button: str) -> tuple[Call, Call]:
    """Say whether a tool may be used, and wait for what the model says of it; that may be another call."""
    expect(person.page.get_by_role("button", name=button, exact=True)).to_be_visible()
    with person.page.expect_response(lambda answer: urlsplit(answer.url).path == CHAT) as answer:
        person.presses(button)
    answer.value.finished()
    first, second = person.wire.chats[:2]
    return first, second


def test_a_tool_of_the_browser_is_called_and_its_result_is_read(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    person.writes("What time is it?")
    first, second = decides(person, "Allow once")
    names = {tool["function"]["name"] for tool in first.body["tools"]}
    assert names == {"get_datetime", "get_info"}
    asked, result = second.body["messages"][-2:]
    (call,) = asked["tool_calls"]
    assert call["function"]["name"] in names
    assert (result["role"], result["tool_call_id"]) == ("tool", call["id"])
    assert json.loads(result["content"])
    assert second.events[-1]["choices"][0]["finish_reason"] in {"stop", "tool_calls", "length"}
    expect(person.answer).to_contain_text(re.search(r"\w+( \w+)*", second.said())[0])
    assert first.events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert first.headers["x-conversation-id"] == second.headers["x-conversation-id"]


def test_a_tool_that_is_denied_is_not_run(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    person.writes("What time is it?")
    _, second = decides(person, "Deny")
    result = second.body["messages"][-1]
    assert result["role"] == "tool"
    assert "denied" in result["content"].lower()


def test_the_server_says_once_that_it_runs_no_tools(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    person.asks("Hello")
    person.asks("Hello")
    (asked,) = person.wire.calls("/tools", "GET")
    assert asked.status == 403
    assert "not found" in json.loads(asked.answer)["error"]["message"]


@pytest.fixture
def with_clock(ui: Path, tmp_path: Path) -> Iterator[Server]:
    """A server whose tools have the names of the browser's own."""
    config = tmp_path / "mcp.json"
    clock = {"command": sys.executable, "args": [mcp_server.__file__, "--clock"]}
    config.write_text(json.dumps({"mcpServers": {"get": clock}}))
    options = ("--demo", "--webui", str(ui), "--mcp-config", str(config), "--api-key", KEY)
    with running(tmp_path, *options) as server:
        yield server
        assert server.errors() == []


def test_a_tool_of_the_server_is_run_there_and_its_result_is_read(with_clock: Server, visit: Visit) -> None:
    person = visit(with_clock, apiKey=KEY)
    person.expected.add((404, "/tools"))  # the page asks for a tool of llama-server's own, to choose folders with
    person.opens()
    person.writes("What time is it?")
    first, second = decides(person, "Allow once")
    names = [tool["function"]["name"] for tool in first.body["tools"]]
    assert sorted(names) == ["get_datetime", "get_info"]  # each once: the server's
    asked, result = second.body["messages"][-2:]
    (call,) = asked["tool_calls"]
    run = next(each for each in person.wire.calls("/tools", "POST") if each.body["tool"] in names)
    assert (run.status, run.body["tool"]) == (200, call["function"]["name"])
    assert (result["tool_call_id"], result["content"]) == (call["id"], mcp_server.TIME)
