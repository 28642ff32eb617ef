"""The clients from npm, each with a small script that node runs: `openai`, `ollama`, the Vercel AI SDK, and Pi.

And an MCP server, whose tools are behind /tools.

cp tests/clients/package.json FOLDER; npm install --prefix FOLDER
TILES_TEST_NODE=FOLDER pytest tests/clients/test_npm.py
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import KEY, Server, running
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
