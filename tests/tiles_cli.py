"""Tiles' CLI, daemon and app of today, as far as they talk to their server: what they run, send and read of answers.

The Rust of `core/server.rs`, `repl.rs` and `daemon/` in Python: what that would take for an error is one here.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.services.tiles_library import swap
from tests import tiles_library
from tests.conftest import wait_for
from tests.response_events import events
from tests.tiles_library import PYTHON

Json = dict[str, Any]
LOGS = ("server.out.log", "server.err.log")


@dataclass
class Tiles:
    """A Tiles in its folders, of a release or a debug build."""

    library: Path
    home: Path  # of the account it runs in
    daemon_url: str
    is_debug: bool = False
    variables: dict[str, str] = field(default_factory=dict)  # of Tiles itself
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))
    process: subprocess.Popen[bytes] | None = None
    seen: int = 0  # characters of the log before the last start

    def __post_init__(self) -> None:
        for folder in (self.data / "logs", self.config):
            folder.mkdir(parents=True)
        for log in LOGS:
            (self.data / "logs" / log).touch()

    @property
    def data(self) -> Path:
        return self.home / ".local/share/tiles"

    @property
    def config(self) -> Path:
        return self.home / ".config/tiles"

    @property
    def log(self) -> str:
        return (self.data / "logs/server.err.log").read_text()

    @property
    def url(self) -> str | None:
        """Where the server listens. Tiles itself knows: 127.0.0.1:6969."""
        addresses = re.findall(r"^API +(http://\S+)/v1$", self.log[self.seen :], re.MULTILINE)
        return addresses[-1] if addresses else None

    def start(self) -> str:
        """`start_server_daemon`, which sets no variables: these keep the test off the machine's own 6969 and 1729."""
        if self.ping():
            return "server already up"
        self.seen = len(self.log)
        logs = [
            os.open(self.data / "logs" / name, os.O_WRONLY | os.O_APPEND)
            for name in ("server.out.log", "server.err.log")
        ]
        program = ".venv/bin/python3" if self.is_debug else PYTHON
        self.process = subprocess.Popen(
            [self.library / "server" / program, "-m", "server.main"],
            cwd=self.library,
            stdin=subprocess.DEVNULL,
            stdout=logs[0],
            stderr=logs[1],
            start_new_session=True,
            env={"HOME": str(self.home), "TILES_PORT": "0", "TILES_DAEMON_URL": self.daemon_url} | self.variables,
        )
        for log in logs:
            os.close(log)
        (self.config / "server.pid").write_text(str(self.process.pid))
        return "server started successfully"

    def stop(self) -> str:
        """`stop_server_daemon`."""
        if not self.ping():
            return "Server is not running"
        pid_file = self.config / "server.pid"
        if not pid_file.exists():
            return "server pid doesnt exist"
        subprocess.run(["kill", pid_file.read_text().strip()], check=True)
        pid_file.unlink()
        return "Server stopped"

    def ping(self) -> bool:
        """Any answer will do."""
        if self.url is None:
            return False
        try:
            self.client.get(f"{self.url}/ping")
        except httpx.TransportError:
            return False
        return True

    def wait_until_up(self) -> None:
        wait_for(self.ping, what=f"the server of Tiles; its log says: {self.log[-2000:]}")

    def warm_up(self, model: str) -> bool:
        """`warm_up`, of the app's switch and of every switch of models."""
        self.wait_until_up()
        return self._json("POST", "/v1/warmup", {"model": model}).get("prefilled") is True

    def hardware(self) -> Json:
        """What `best_device` makes of it: the device with the most free memory, and how much that is."""
        body = self._json("GET", "/v1/hardware")
        devices = [device for device in body["devices"] if not device["integrated"]]
        free = [_u64(device["free_bytes"]) + _u64(device["reclaimable_bytes"]) for device in devices]
        names = [(device["name"], _u64(device["total_bytes"])) for device in devices]
        return {"free": max(free, default=0) or _u64(body["memory"]["available_bytes"]), "devices": names}

    def estimate(self, url: str, size: int) -> tuple[int, int]:
        body = self._json("POST", "/v1/estimate", {"url": url, "size": size})
        return _u64(body["vram_bytes"]), _u64(body["expert_bytes"])

    def load(self, model: str, path: Path, system: str, memory: Path | None = None) -> list[str]:
        """`load_model_in_py`. Gives the warnings that are printed; only a status of 200 is a loaded model."""
        body = {
            "model": model,
            "memory_path": str(memory or self.data / "data/memory"),
            "model_cache_path": str(path),
            "system_prompt": system,
        }
        answer = self.client.post(f"{self.url}/start", json=body)
        assert answer.status_code == 200, answer.text
        return [text for text in answer.json().get("warnings", []) if isinstance(text, str)]

    def agent(self, model: str, items: list[Json] | None = None, **more: Any) -> Json:
        """A request of Pi. Gives the response of the last event."""
        answer = self.client.post(
            f"{self.url}/v1/responses",
            json=agent_body(model, items, **more),
            headers={"Authorization": "Bearer tiles", "session_id": SESSION},
        )
        assert answer.status_code == 200, answer.text
        last = events(answer.text)[-1]
        assert last["type"] in {"response.completed", "response.incomplete"}, last
        return dict(last["response"])

    def _json(self, method: str, path: str, body: Json | None = None) -> Json:
        answer = self.client.request(method, f"{self.url}{path}", json=body)
        answer.raise_for_status()
        return dict(answer.json())


@contextmanager
def swapped_in(folder: Path, daemon_url: str, *, is_debug: bool = False) -> Iterator[Tiles]:
    """A Tiles whose own server has been replaced, in folders with the names that people have."""
    library = tiles_library.make(folder / "Geteilte Ablage é/tiles")
    swap.install(library, lambda work: None)
    tiles = Tiles(library, folder / "home of é", daemon_url, is_debug)
    try:
        yield tiles
    finally:
        tiles.client.close()
        if tiles.process is not None and tiles.process.poll() is None:
            tiles.process.kill()
            tiles.process.wait(10)


def _u64(value: Any) -> int:
    assert isinstance(value, int) and not isinstance(value, bool) and value >= 0, value
    return value


SESSION = "0199a1b2-0000-7000-8000-000000000000"
SYSTEM = "You are Tiles.\n\nAvailable tools:\n- read: Read file contents\n" * 12
SCHEMA: Json = {
    "type": "object",
    "required": ["path"],
    "properties": {"path": {"type": "string", "description": "Path to the file"}, "limit": {"type": "number"}},
}


def tool(name: str, parameters: Json = SCHEMA) -> Json:
    described = f"{name}: does what its name says, and tells what came of it"
    return {"type": "function", "name": name, "description": described, "parameters": parameters, "strict": False}


TOOLS = [tool(name) for name in ("read", "bash", "edit", "write", "web_search_exa", "web_fetch_exa")]


def user(text: str) -> Json:
    return {"role": "user", "content": [{"type": "input_text", "text": text}]}


def agent_body(model: str, items: list[Json] | None = None, **more: Any) -> Json:
    """What Pi sends: the prompt of the agent, the conversation, and the tools."""
    return {
        "model": model,
        "input": [{"role": "developer", "content": SYSTEM}, *(items or [user("hello")])],
        "stream": True,
        "store": False,
        "max_output_tokens": 24,
        "prompt_cache_key": SESSION,
        "prompt_cache_retention": "24h",
        "reasoning": {"effort": "medium", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "tools": TOOLS,
    } | more


def turn(call: Json, output: Json | None) -> list[Json]:
    """A turn in which the agent has called a tool."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look."}]}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "read", "arguments": "{}"} | call
    result = (
        [{"type": "function_call_output", "call_id": call["call_id"], "output": "text"} | output]
        if output is not None
        else []
    )
    return [user("What is in it?"), thought, call, *result, user("And?")]


UNION = {"anyOf": [{"type": "string"}, {"type": "null"}, {"$ref": "#/$defs/path"}]}
NESTED = {"type": "object", "properties": {"path": UNION}, "$defs": {"path": {"type": "string", "minLength": 1}}}
REFUSAL = {
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "id": "msg_1",
    "content": [{"type": "refusal", "refusal": "No."}, {"type": "output_text", "text": "Yes.", "annotations": []}],
}
LONG = "x" * 64
REQUESTS: dict[str, tuple[list[Json] | None, Json]] = {
    "effort none": (None, {"reasoning": {"effort": "none"}}),
    "effort low": (None, {"reasoning": {"effort": "low", "summary": "auto"}}),
    "effort medium": (None, {}),
    "effort high": (None, {"reasoning": {"effort": "high", "summary": "auto"}}),
    "effort xhigh": (None, {"reasoning": {"effort": "xhigh", "summary": "auto"}}),
    "history": (turn({"arguments": json.dumps({"path": "a.txt"})}, {}), {}),
    "output as a list": (turn({}, {"output": [{"type": "input_text", "text": "a"}]}), {}),
    "null fields": (turn({"status": None, "id": None}, {"status": None}), {"temperature": None, "tool_choice": None}),
    "broken arguments": (turn({"arguments": '{"path": '}, {}), {}),
    "empty arguments": (turn({"arguments": ""}, {}), {}),
    "a call without output": (turn({}, None), {}),
    "an output without a call": (
        [user("Hi"), {"type": "function_call_output", "call_id": "call_9", "output": "b"}],
        {},
    ),
    "a refusal": ([user("Hi"), REFUSAL, user("So?")], {}),
    "long ids": (turn({"call_id": f"call_{LONG}|fc_{LONG}", "id": f"fc_{LONG}"}, {}), {}),
    "anyOf and $defs": (None, {"tools": [tool("search", NESTED)]}),
    "40 tools": (None, {"tools": [tool(f"tool_{number}") for number in range(40)]}),
    "unknown fields": (None, {"service_tier": "auto", "x_tiles": {"a": 1}, "client_metadata": {"b": "c"}}),
}
