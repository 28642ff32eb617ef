"""The proxy between the Web UI and MCP servers with a URL: what goes through, what never does, and whose it is."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.errors import ProxyFailed, TargetForbidden
from app.services.mcp.config import web_url
from app.services.mcp.proxy import MARK, McpProxy, forwarded
from tests.conftest import KEY, OTHER_KEY, Server, running, wait_for
from tests.http_server import serving

MARKED = MARK.decode()


@dataclass
class Site:
    """A server that the file names, and what it was asked."""

    url: str = ""
    other_url: str = ""  # the same server under an origin that no file names
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            site.requests.append((self.command, self.path, headers, self.rfile.read(length)))
            match self.path.partition("?")[0]:
                case "/empty":
                    self._head(204)
                case "/events":
                    self._head(200, Content_Type="text/event-stream", Connection="close")
                    self.wfile.write(b"data: one\n\n")
                    site.go_on.wait(30)
                    self.wfile.write(b"data: two\n\n")
                case "/endless":
                    self._head(200, Content_Type="text/event-stream", Connection="close")
                    try:
                        while True:
                            self.wfile.write(b": \n\n")
                            site.left.wait(0.02)
                    except OSError:
                        site.left.set()
                case "/silent":
                    self.connection.recv(1)  # until the proxy leaves
                    site.left.set()
                case "/cut":
                    self._head(200, Content_Length="100")
                    self.wfile.write(b"half")
                    self.close_connection = True
                case "/away":
                    self._head(307, Location=site.other_url, Content_Length="0")
                case "/metadata":
                    self._head(302, Location="http://169.254.169.254/latest", Content_Length="0")
                case "/refusal":
                    self._body(400, b"no session", "text/plain")
                case _:
                    self._body(200, b'{"tiles":43}')

        do_POST = do_GET  # noqa: N815 - the name that the class gives it

        def _body(self, status: int, content: bytes, media_type: str = "application/json") -> None:
            self._head(
                status,
                Content_Type=media_type,
                Content_Length=str(len(content)),
                Mcp_Session_Id="s1",
                Set_Cookie="seen=1",
                Access_Control_Allow_Origin="*",
                Content_Security_Policy="script-src *",
            )
            self.wfile.write(content)

        def _head(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    with serving(handler(site)) as site.url, serving(handler(site)) as site.other_url:
        yield site
        site.go_on.set()
        site.left.set()


@pytest.fixture(scope="module")
def proxy(home: Path, site: Site) -> Iterator[Server]:
    """A server whose file names the site. It may log no error."""
    path = home / "remote.json"
    path.write_text(json.dumps({"mcpServers": {"site": {"type": "streamable-http", "url": f"{site.url}/mcp"}}}))
    flags = ("--demo", "--mcp-config", str(path), "--api-key", f"laptop:{KEY}", "--allow-origin", "https://app.example")
    with running(home, *flags) as server:
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        yield server
        assert server.errors() == []


def ask(server: Server, url: str, method: str = "GET", body: Any = None, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.request(method, "/cors-proxy", params={"url": url}, json=body, headers=names)


def marked(**headers: str) -> dict[str, str]:
    return {f"{MARKED}{name}": value for name, value in headers.items()}


def outcomes(server: Server) -> list[tuple[Any, ...]]:
    lines = server.logged("proxied")
    return [(line["method"], line["host"], line["status"], line["outcome"]) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_marked_goes_there_and_the_answer_comes_back(proxy: Server, site: Site, method: str) -> None:
    body = {"jsonrpc": "2.0", "method": "ping", "id": 1} if method == "POST" else None
    headers = marked(accept="text/event-stream", mcp_session_id="s0", authorization="Bearer theirs", cookie="a=1")
    answer = ask(proxy, f"{site.url}/mcp?token=hush", method, body, **headers, Cookie="mine=1", Origin=proxy.url)
    assert (answer.status_code, answer.json()) == (200, {"tiles": 43})
    assert answer.headers["mcp-session-id"] == "s1" and answer.headers["content-type"] == "application/json"
    assert "set-cookie" not in answer.headers and "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["access-control-allow-origin"] == proxy.url
    came_method, path, seen, content = site.requests[-1]
    assert (came_method, path) == (method, "/mcp?token=hush")
    assert json.loads(content or b"null") == body
    assert {name: seen.pop(name) for name in ("accept", "mcp-session-id", "authorization")} == {
        "accept": "text/event-stream",
        "mcp-session-id": "s0",
        "authorization": "Bearer theirs",
    }
    assert set(seen) - {"content-length"} == {"host", "accept-encoding"}
    wait_for(lambda: outcomes(proxy)[-1:] == [(method, site.url[7:], 200, "ok")], what="the line of the log")
    assert not [secret for secret in ("hush", "theirs", "/mcp", KEY) if secret in proxy.log]


@pytest.mark.slow
def test_the_key_of_this_server_does_not_leave_it_though_the_page_marks_it(proxy: Server, site: Site) -> None:
    for value in (f"Bearer {KEY}", KEY, f"Basic laptop:{KEY}", f"Token token={KEY}"):
        assert ask(proxy, f"{site.url}/mcp", "POST", {}, **marked(authorization=value, x_api_key=value)).is_success
        assert KEY not in repr(site.requests[-1])


@pytest.mark.slow
def test_a_status_passes_and_an_empty_answer_is_empty(proxy: Server, site: Site) -> None:
    refusal = ask(proxy, f"{site.url}/refusal", "POST", {})
    assert (refusal.status_code, refusal.text) == (400, "no session")
    empty = ask(proxy, f"{site.url}/empty", "POST", {})
    assert (empty.status_code, empty.content) == (204, b"")
    head = proxy.client.head("/cors-proxy", params={"url": f"{site.url}/endless"})
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.slow
def test_events_come_as_they_are_sent(proxy: Server, site: Site) -> None:
    with proxy.client.stream("GET", "/cors-proxy", params={"url": f"{site.url}/events"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        pieces = answer.iter_raw()
        assert next(pieces) == b"data: one\n\n"
        site.go_on.set()
        assert b"".join(pieces) == b"data: two\n\n"


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/endless", "/silent"])
def test_when_the_page_leaves_the_other_server_is_left(proxy: Server, site: Site, path: str) -> None:
    site.left.clear()
    before = len(outcomes(proxy))
    with (
        suppress(httpx.ReadTimeout),
        proxy.client.stream("GET", "/cors-proxy", params={"url": f"{site.url}{path}"}, timeout=1) as answer,
    ):
        assert path == "/endless" and next(answer.iter_raw())
    wait_for(site.left.is_set, what="the end of the connection")
    wait_for(lambda: len(outcomes(proxy)) > before, what="the line of the log")
    assert outcomes(proxy)[-1][-1] == "broken off"


@pytest.mark.slow
def test_an_answer_that_breaks_off_ends_and_is_said_to_have(proxy: Server, site: Site) -> None:
    assert ask(proxy, f"{site.url}/cut").content == b"half"
    wait_for(lambda: outcomes(proxy)[-1][-1] == "RemoteProtocolError", what="the line of the log")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/away", "/metadata"])
def test_a_redirect_is_neither_followed_nor_given_to_the_browser(proxy: Server, site: Site, path: str) -> None:
    before = len(site.requests)
    answer = ask(proxy, f"{site.url}{path}", "POST", {}, **marked(authorization="Bearer theirs"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "proxy_failed")
    assert "location" not in answer.headers
    assert len(site.requests) == before + 1
    assert outcomes(proxy)[-1][-2:] == (307 if path == "/away" else 302, "redirect")


@pytest.mark.slow
def test_what_no_file_names_on_this_machine_and_its_network_is_not_reached(proxy: Server, site: Site) -> None:
    port = site.url.rpartition(":")[2]
    others = (site.other_url, proxy.url, f"http://localhost:{port}", f"https://127.0.0.1:{port}", "http://[::1]:9")
    before = len(site.requests)
    for url in (*others, "http://169.254.169.254/latest/meta-data", "http://[fe80::1]/", "http://192.168.1.1/"):
        for method in ("GET", "POST"):
            answer = ask(proxy, url, method, {} if method == "POST" else None)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "proxy_target"), url
            assert outcomes(proxy)[-1][-1] == "proxy_target"
    assert len(site.requests) == before


@pytest.mark.slow
def test_a_target_that_is_none_or_does_not_answer_is_said_in_the_envelope(home: Path, proxy: Server) -> None:
    for url in ("", "x", "ftp://example.org", "http://me:secret@example.org", "http://", "file:///etc/passwd"):
        answer = ask(proxy, url)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "url"), url
    with serving(BaseHTTPRequestHandler) as gone:
        (home / "gone.json").write_text(json.dumps({"mcpServers": {"gone": {"url": gone}}}))
    with running(home, "--demo", "--mcp-config", str(home / "gone.json"), "--api-key", KEY) as server:
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        answer = ask(server, gone)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "proxy_failed")


@pytest.mark.slow
def test_only_pages_of_this_machine_with_the_key_may_use_it(proxy: Server, site: Site) -> None:
    target, before = f"{site.url}/mcp", len(site.requests)
    for method in ("GET", "POST"):
        assert ask(proxy, target, method, Authorization="Bearer wrong").status_code == 401
        for headers in ({"Origin": "https://app.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
            assert ask(proxy, target, method, **headers).status_code == 403
        assert ask(proxy, target, method, Sec_Fetch_Site="cross-site").status_code == 403
    assert len(site.requests) == before
    assert ask(proxy, target, Origin="http://localhost:5173").status_code == 200
    assert proxy.client.get("/props").json()["cors_proxy_enabled"] is True


# Without a server: what may go through.

BROWSERS = ("cookie", "origin", "referer", "host", "forwarded", "sec-fetch-site", "x-forwarded-for", "set-cookie")
HOPS = ("connection", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "proxy-authorization")
OWN = ("content-length", "accept-encoding", "expect", "")
THEIRS = ("accept", "authorization", "content-type", "mcp-session-id", "x-api-key")
names = st.sampled_from([*BROWSERS, *HOPS, *OWN, *THEIRS]) | st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
values = st.text("abc ,;=", max_size=8) | st.sampled_from([KEY, f"Bearer {KEY}", f"x={OTHER_KEY};", "te, accept"])
rows = st.lists(st.tuples(st.sampled_from(["", MARKED, MARKED.upper()]), names, values), max_size=12)


@given(rows)
def test_no_header_goes_through_that_is_not_marked_or_is_not_the_other_servers_business(headers: Any) -> None:
    keys = {KEY.encode(), OTHER_KEY.encode()}
    through = forwarded([(f"{mark}{name}".encode(), value.encode()) for mark, name, value in headers], keys)
    with_mark = [(name.encode(), value.encode()) for mark, name, value in headers if mark]
    lists = [value.split(b",") for name, value in with_mark if name == b"connection"]
    hop_by_hop = {name.strip() for some in lists for name in some}
    never = {name.encode() for name in (*BROWSERS, *HOPS, *OWN)} | hop_by_hop
    assert through == [
        (name, value) for name, value in with_mark if name not in never and not any(key in value for key in keys)
    ]


inside = st.sampled_from(["127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "192.168.0.9", "[fe80::1]", "0.0.0.0"])


@given(st.sampled_from(["http", "https"]), inside, st.integers(1, 65535), st.sampled_from(["", "/mcp", "/?a=b"]))
def test_no_address_inside_is_a_target_but_of_an_origin_that_is_named(
    scheme: str, host: str, port: int, path: str
) -> None:
    other = {"http": "https", "https": "http"}[scheme]
    urls = [f"{scheme}://{host}:{port % 65535 + 1}/mcp", f"{other}://{host}:{port}", f"{scheme}://example.org:{port}"]
    proxy = McpProxy(urls, set(), enabled=True)
    with pytest.raises(TargetForbidden):
        asyncio.run(proxy.send("GET", f"{scheme}://{host}:{port}{path}", []))


@given(st.text(max_size=20) | st.text(":/@[]%?#.1", max_size=12).map("http://".__add__) | st.integers())
def test_any_text_is_a_url_of_the_web_or_is_refused(text: Any) -> None:
    with suppress(ValueError):
        url = web_url(text)
        assert url.scheme in {"http", "https"} and url.host and not url.userinfo and not url.fragment


def test_an_answer_is_bounded_in_size_and_in_time_without_a_byte(site: Site) -> None:
    async def read(path: str) -> int:
        proxy = McpProxy([site.url], set(), enabled=True, seconds=0.5, most_bytes=32)
        answer = await proxy.send("GET", f"{site.url}{path}", [])
        return len(b"".join([chunk async for chunk in answer.read()]))

    site.go_on.clear()
    site.left.clear()
    assert asyncio.run(read("/endless")) <= 32
    assert asyncio.run(read("/events")) == len("data: one\n\n")
    with pytest.raises(ProxyFailed, match="ReadTimeout"):
        asyncio.run(read("/silent"))
