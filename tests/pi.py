"""Pi, the agent of Tiles, run as Tiles runs it: from npm, the newest and the one that Tiles has in it."""

import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("TILES_TEST_PI") or "/nowhere").absolute()

PACKAGES = {"newest": "@earendil-works/pi-coding-agent", "of Tiles": "pi-of-tiles"}


def cli(version: str) -> Path:
    return FOLDER / "node_modules" / PACKAGES[version] / "dist" / "cli.js"


SECONDS = 60


class Pi:
    """A Pi in rpc mode: JSON lines in, JSON lines out."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def until(self, kind: str) -> list[dict[str, Any]]:
        """Everything up to the first line of a kind, which is the last of the list."""
        lines: list[dict[str, Any]] = []
        deadline = time.monotonic() + SECONDS
        while not lines or lines[-1]["type"] != kind:
            lines.append(self._lines.get(timeout=max(0.1, deadline - time.monotonic())))
        return lines

    def ask(self, text: str) -> list[dict[str, Any]]:
        """The messages of a whole turn."""
        self.send(type="prompt", message=text)
        messages: list[dict[str, Any]] = self.until("agent_end")[-1]["messages"]
        return messages

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))


@contextmanager
def pi(url: str, model: str, home: Path, work: Path | None = None, *, version: str = "newest") -> Iterator[Pi]:
    """Run Pi with the settings, arguments and variables of Tiles, at home in a folder of its own, at work there or in
    another. What Tiles has besides is left out: its adapter for MCP, its plugins and their skills.
    """
    settings = home / "agent"
    settings.mkdir(parents=True)
    row = {"id": model, "reasoning": True, "maxTokens": 30_000}
    provider = {"api": "openai-responses", "apiKey": "tiles", "baseUrl": f"{url}/v1", "models": [row]}
    (settings / "models.json").write_text(json.dumps({"providers": {"tiles": provider}}))
    (settings / "settings.json").write_text(
        json.dumps({"compaction": {"enabled": False}, "defaultThinkingLevel": "medium"})
    )
    own = FOLDER / "node_modules" / ".bin" / "node"
    node = str(own) if own.exists() else shutil.which("node")
    if node is None:
        pytest.skip("no node to run Pi with")
    prompt = f"You are Tiles.\n\nCurrent date: {date.today():%A, %d %B %Y}"
    command = [node, str(cli(version)), "--mode", "rpc", "--append-system-prompt", prompt, "--no-session"]
    command.append("--no-extensions")
    keys = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_TOKEN"))}
    more = {"HOME": str(home), "PI_CODING_AGENT_DIR": str(settings), "PI_OFFLINE": "true"}
    with (home / "pi.log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            cwd=work or home,
            env=keys | more,
            start_new_session=True,
        )
    try:
        yield Pi(process)
    finally:
        process.kill()
        process.communicate()
