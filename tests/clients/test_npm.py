"""The clients from npm, each with a small script that node runs: `openai`, `ollama`, the Vercel AI SDK, and Pi.

And an MCP server, whose tools are behind /tools, and which is behind /cors-proxy.

cp tests/clients/package.json FOLDER; npm install --prefix FOLDER
TILES_TEST_NODE=FOLDER pytest tests/clients/test_npm.py
"""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.services.mcp.proxy import MARK
from tests.conftest import KEY, Server, running, wait_for
from tests.pi import cli, pi

FOLDER = Path(os.environ.get("TILES_TEST_NODE") or "/nowhere").absolute()
OWN = FOLDER / "node_modules" / ".bin" / "node"
EVERYTHING = FOLDER / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
NODE = str(OWN) if OWN.exists() else shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not (FOLDER / "node_modules").is_dir(),
    reason="no clients from npm: TILES_TEST_NODE names no folder where npm installed them",
)


@pytest.mark.parametrize("script", ["openai.mjs", "ai_sdk.mjs", "ollama.mjs"])
def test_its_checks_pass(demo: Server, script: str) -> None:
    run(demo, script)


@pytest.mark.parametrize("script", ["openai.mjs", "ai_sdk.mjs"])
def test_it_calls_tools(forced: Server, script: str) -> None:
    run(forced, script, "tools")


def run(server: Server, script: str, *more: str) -> None:
    """Run a script where its packages are; it ends with an error where a check fails."""
    assert NODE is not None
    copied = shutil.copy(Path(__file__).parent / script, FOLDER)
    done = subprocess.run(
        [NODE, str(copied), server.url, *more], capture_output=True, text=True, timeout=300, cwd=FOLDER, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well" in done.stdout


@pytest.mark.skipif(not cli("newest").exists(), reason="no Pi: TILES_TEST_PI names no folder where npm installed it")
def test_pi_is_greeted(demo: Server, tmp_path: Path) -> None:
    with pi(demo.url, "tiles-nano", tmp_path) as agent:
        message = agent.ask("hello")[-1]
    assert message["role"] == "assistant"
    assert message.get("errorMessage") is None
    assert any(part["type"] in {"text", "thinking", "toolCall"} for part in message["content"])


@pytest.mark.skipif(not EVERYTHING.exists(), reason="npm has not installed server-everything")
def test_its_tools_are_listed_and_called(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"everything": {"command": NODE, "args": [str(EVERYTHING)]}}}))
    with running(tmp_path, "--demo", "--mcp-config", str(path), "--api-key", KEY) as server:
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        names = [tool["tool"] for tool in server.client.get("/tools").json()]
        assert {"everything_echo", "everything_get-sum"} <= set(names)
        calls = (
            ({"tool": "everything_echo", "params": {"message": "ü"}}, {"plain_text_response": "Echo: ü"}),
            (
                {"tool": "everything_get-sum", "params": {"a": 2, "b": 40}},
                {"plain_text_response": "The sum of 2 and 40 is 42."},
            ),
        )
        for body, answer in calls:
            assert server.client.post("/tools", json=body).json() == answer
        wrong = server.client.post("/tools", json={"tool": "everything_get-sum", "params": {"a": "x"}})
        assert set(wrong.json()) == {"error"}


@contextmanager
def everything_over_http(log: Path) -> Iterator[str]:
    """Run it as a server with a URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(NODE), str(EVERYTHING), "streamableHttp"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, "PORT": str(port)}, stdout=output, stderr=output)
    try:
        wait_for(lambda: "listening on port" in log.read_text(), what="server-everything")
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.skipif(not EVERYTHING.exists(), reason="npm has not installed server-everything")
def test_the_web_ui_reaches_it_through_the_proxy(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    with everything_over_http(tmp_path / "everything.log") as url:
        path.write_text(json.dumps({"mcpServers": {"everything": {"type": "streamable-http", "url": url}}}))
        with running(tmp_path, "--demo", "--mcp-config", str(path), "--api-key", KEY) as server:
            server.client.headers["Authorization"] = f"Bearer {KEY}"
            mark = MARK.decode()
            headers = {
                f"{mark}content-type": "application/json",
                f"{mark}accept": "application/json, text/event-stream",
                f"{mark}authorization": f"Bearer {KEY}",  # as the Web UI marks it
            }

            def result(answer: httpx.Response) -> Any:
                last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
                return json.loads(last.removeprefix("data: "))["result"]

            def says(method: str, **message: object) -> httpx.Response:
                body = {"jsonrpc": "2.0", "method": method, **message}
                return server.client.post("/cors-proxy", params={"url": url}, json=body, headers=headers)

            client = {"name": "test", "version": "1"}
            hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
            begin = says("initialize", id=1, params=hello)
            assert result(begin)["serverInfo"]
            headers[f"{mark}mcp-session-id"] = begin.headers["mcp-session-id"]
            assert says("notifications/initialized").status_code == 202
            listed = result(says("tools/list", id=2))["tools"]
            assert "echo" in {tool["name"] for tool in listed}
            with server.client.stream("GET", "/cors-proxy", params={"url": url}, headers=headers) as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                said = says("tools/call", id=3, params={"name": "echo", "arguments": {"message": "ü"}})
                assert result(said)["content"][0]["text"] == "Echo: ü"
            assert server.errors() == []
