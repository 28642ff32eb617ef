"""An MCP server with a URL on this machine, which the page reaches through the server's proxy."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import KEY, Server, running
from tests.e2e.conftest import Visit
from tests.http_server import serving

RESULTS = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "notes", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "read_notes", "inputSchema": {"type": "object", "properties": {}}}]},
}


class Notes(BaseHTTPRequestHandler):
    """The least that a page can connect to. It allows no other origin."""

    seen: list[tuple[str, dict[str, str]]]  # methods and headers

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((message["method"], {name.lower(): value for name, value in self.headers.items()}))
        result: Any = RESULTS.get(message["method"])
        body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": result}).encode() if result else b""
        self.send_response(200 if result else 202)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Mcp-Session-Id", "s1")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_error(405)  # no events of its own

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def notes() -> Iterator[str]:
    Notes.seen = []
    with serving(Notes) as url:
        yield f"{url}/mcp"


@pytest.fixture
def proxy(ui: Path, tmp_path: Path, notes: str) -> Iterator[Server]:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"notes": {"type": "streamable-http", "url": notes}}}))
    with running(tmp_path, "--demo", "--webui", str(ui), "--mcp-config", str(path), "--api-key", KEY) as server:
        yield server
        assert server.errors() == []


def test_the_page_offers_the_tools_of_a_server_that_only_the_proxy_reaches(
    proxy: Server, visit: Visit, notes: str
) -> None:
    servers = [{"id": "notes", "name": "Notes", "enabled": True, "url": notes, "useProxy": True}]
    person = visit(proxy, apiKey=KEY, mcpServers=json.dumps(servers))
    person.expected |= {(404, "/tools"), (405, "/cors-proxy")}
    person.opens()
    person.asks("Hello")
    assert [method for method, _ in Notes.seen][:3] == ["initialize", "notifications/initialized", "tools/list"]
    assert Notes.seen[2][1]["mcp-session-id"] == "s1"
    assert KEY not in repr(Notes.seen)
    assert {"origin", "referer", "cookie", "authorization"}.isdisjoint(Notes.seen[0][1])
    assert "read_notes" in {tool["function"]["name"] for tool in person.wire.chats[0].body["tools"]}
    call = person.wire.calls("/cors-proxy", "POST")[0]
    assert call.headers["x-llama-server-proxy-header-authorization"] == f"Bearer {KEY}"  # which stays here
