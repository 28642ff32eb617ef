"""Tools of MCP servers for the Web UI: listed, called, watched and ended; and nobody else's."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.mcp.config import read
from app.settings import SettingError, Settings
from tests.conftest import KEY, Server, running, wait_for

SERVER = Path(__file__).parent / "mcp_server.py"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def tools(home: Path) -> Iterator[Server]:
    """A server with two MCP servers, of which one cannot be started. It may log no error."""
    one = {"command": sys.executable, "args": ["-S", str(SERVER), str(home / "cancelled")], "env": {"MINE": "1"}}
    servers = {"test": one | {"timeout_ms": 20_000}, "broken": {"command": "no-such-program"}}
    (home / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    flags = (
        "--demo",
        "--mcp-config",
        str(home / "mcp.json"),
        "--api-key",
        KEY,
        "--allow-origin",
        "https://app.example",
    )
    with running(home, *flags, env={"SECRET": "x"}) as server:
        server.client.headers.update(HEADERS)
        yield server
        assert server.errors() == []


def call(server: Server, tool: str, **params: Any) -> dict[str, Any]:
    answer = server.client.post("/tools", json={"tool": f"test_{tool}", "params": params})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.slow
def test_tools_of_all_pages_are_listed_as_llama_server_does(tools: Server) -> None:
    listed = tools.client.get("/tools").json()
    names = ["echo", "fail", "environment", "die", "never", "picture", "child"]
    assert [tool["tool"] for tool in listed] == [f"test_{name}" for name in names]
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    function = {"name": "test_echo", "description": "Say it again", "parameters": schema}
    assert listed[0] == {
        "display_name": "test_echo",
        "tool": "test_echo",
        "type": "mcp",
        "permissions": {"write": False},
        "uses_cwd": False,
        "definition": {"type": "function", "function": function},
    }


@pytest.mark.slow
def test_a_call_gives_the_text_or_the_error(tools: Server) -> None:
    assert call(tools, "echo", text="Bananarama ü\n") == {"plain_text_response": "Bananarama ü\n\n!"}
    assert call(tools, "fail") == {"error": "no tile left"}
    assert call(tools, "picture") == {"plain_text_response": ""}
    unknown = tools.client.post("/tools", json={"tool": "file_glob_search", "params": {}})
    assert unknown.status_code == 404 and "file_glob_search" in unknown.json()["error"]["message"]
    streamed = tools.client.post("/tools", json={"tool": "test_echo", "params": {}, "stream": True})
    assert streamed.status_code == 404
    lines = tools.logged("tool called")
    assert [(line["server"], line["tool"], line["outcome"]) for line in lines[-3:]] == [
        ("test", "echo", "ok"),
        ("test", "fail", "error"),
        ("test", "picture", "ok"),
    ]
    assert "Bananarama" not in tools.log


@pytest.mark.slow
def test_a_server_sees_no_key_and_nothing_else_of_the_environment(tools: Server) -> None:
    names = set(call(tools, "environment")["plain_text_response"].split()) - {"LC_CTYPE"}
    assert names <= {"HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER", "MINE"}
    assert "MINE" in names


@pytest.mark.slow
def test_a_server_that_ends_is_started_again(tools: Server) -> None:
    assert "has ended" in call(tools, "die")["error"]
    assert call(tools, "echo", text="again") == {"plain_text_response": "again\n!"}


@pytest.mark.slow
def test_a_call_whose_client_hangs_up_is_cancelled(tools: Server, home: Path) -> None:
    with pytest.raises(httpx.ReadTimeout):
        tools.client.post("/tools", json={"tool": "test_never", "params": {}}, timeout=0.5)
    wait_for(lambda: (home / "cancelled").exists(), what="the cancellation")
    wait_for(lambda: tools.logged("tool called")[-1]["outcome"] == "broken off", what="its line")


@pytest.mark.slow
def test_only_pages_of_this_machine_with_the_key_may_use_them(tools: Server) -> None:
    for method, body in (("GET", None), ("POST", {"tool": "test_echo", "params": {"text": "x"}})):

        def status(method: str = method, body: Any = body, **headers: str) -> int:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return tools.client.request(method, "/tools", json=body, headers=names).status_code

        assert status() == status(Origin="http://localhost:5173") == status(Origin=tools.url) == 200
        assert status(Authorization="Bearer wrong") == 401
        assert status(Origin="https://app.example") == 403  # which may use all else
        assert status(Origin="null") == status(Host="evil.example") == 403
    assert tools.client.get("/v1/models", headers={"Origin": "https://app.example"}).status_code == 200


@pytest.mark.slow
def test_nothing_is_left_of_them_at_the_end(home: Path) -> None:
    (home / "one.json").write_text(
        json.dumps({"mcpServers": {"test": {"command": sys.executable, "args": ["-S", str(SERVER)]}}})
    )
    for end in ("stop", "kill"):
        with running(home, "--demo", "--mcp-config", str(home / "one.json"), "--api-key", KEY) as server:
            server.client.headers.update(HEADERS)
            own, child = map(int, call(server, "child")["plain_text_response"].split())
            assert psutil.pid_exists(own) and psutil.pid_exists(child)
            getattr(server, end)()
            wait_for(lambda own=own: not _runs(own), what="the end of the MCP server")  # type: ignore[misc]
            if end == "stop":
                assert not _runs(child)
            elif _runs(child):
                os.kill(child, 9)  # of what a server starts, only its own server knows


def _runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_they_need_a_key_and_a_file_that_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {}}')
    Settings(mcp_config=path, api_key=("k",)).check()
    with pytest.raises(SettingError, match="give --api-key too"):
        Settings(mcp_config=path).check()
    one = {"command": "x"}
    wrong: list[tuple[Any, str]] = [
        ("", "is no JSON"),
        ([], "give "),
        ({"mcpServers": []}, "give "),
        ({"mcpServers": {"a b": one}}, "give a name"),
        ({"mcpServers": {"a": {}}}, "give a command, or a url"),
        ({"mcpServers": {"a": {"url": "ftp://x"}}}, "url: give an http"),
        ({"mcpServers": {"a": {"url": "http://me:secret@x"}}}, "url: give an http"),
        ({"mcpServers": {"a": {"url": "http://x", "type": "stdio"}}}, "the type of a url is one of"),
        ({"mcpServers": {"a": {"url": "http://x", "headers": {}}}}, "headers is not known"),
        ({"mcpServers": {"a": one | {"url": "http://x"}}}, "url is not known"),
        ({"mcpServers": {"a": one | {"args": "x"}}}, "args is a list"),
        ({"mcpServers": {"a": one | {"env": {"A": 1}}}}, "env is an object"),
        ({"mcpServers": {"a": one | {"cwd": "/no/such"}}}, "cwd is no folder"),
        ({"mcpServers": {"a": one | {"timeout_ms": 0}}}, "timeout_ms"),
        ({"mcpServers": {"a": one | {"type": "sse"}}}, "the type of a command is stdio"),
        ({"mcpServers": {"a": {"url": "http://x", "type": []}}}, "the type of a url is one of"),
        ({"mcpServers": {"a": one | {"other": 1}}}, "other is not known"),
    ]
    for content, message in wrong:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(SettingError, match=f"--mcp-config: .*{message}") as refused:
            Settings(mcp_config=path, api_key=("k",)).check()
        assert "\n" not in str(refused.value)
    with pytest.raises(SettingError, match="cannot be read"):
        Settings(mcp_config=tmp_path / "no", api_key=("k",)).check()


keys = st.sampled_from(["command", "url", "args", "env", "cwd", "timeout_ms", "type", "disabled"])
plain = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
json_values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "b c", ""]), json_values, max_size=3))
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, servers: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    try:
        config = read(path)
        assert all(server.command for server in config.servers)
        assert all(url.startswith("http") for url in config.urls)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) <= 2
