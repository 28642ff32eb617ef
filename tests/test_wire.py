"""What comes over the wire, byte by byte: bounds, broken requests, old clients, half-closed and idle connections."""

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from app.connections import Connections
from app.protocol import BoundedProtocol
from app.request_head import MOST_HEAD_BYTES, MOST_HEADERS, MOST_URL_BYTES
from tests.conftest import Server, events, running, wait_for
from tests.routes import ROUTES

HOST = b"Host: localhost\r\n"
PING = b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n"
LAST_PING = b"GET /ping HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}


def connect(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 0), timeout=30)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def exchange(server: Server, *pieces: bytes, end: bool = False) -> bytes:
    """Send pieces, say with `end` that there are no more, and read until the server closes."""
    with closing(connect(server)) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def parsed(received: bytes) -> tuple[int, str | None]:
    """Status and code of a refusal, which is the last answer on its connection."""
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"connection: close" in lines
    assert any(line.startswith(b"x-request-id: ") for line in lines)
    status = int(lines[0].split()[1])
    if not body:  # of HEAD
        return status, None
    error = json.loads(body)["error"]
    if isinstance(error, str):  # Ollama's
        return status, None
    assert error["message"] and error["type"] == "invalid_request_error"
    anthropics = b"request-id: " in [line[:12] for line in lines]
    assert set(error) == {"message", "type"} | (set() if anthropics else {"param", "code"})
    return status, error.get("code")


def post(path: bytes = b"/v1/chat/completions", *, version: bytes = b"1.1", head: bytes = b"", **more: Any) -> bytes:
    """A request with a chat as its body, the last on its connection."""
    body = json.dumps(CHAT | more).encode()
    host = HOST + b"Connection: close\r\n" if version == b"1.1" else b""
    return b"POST %s HTTP/%s\r\n%s%sContent-Length: %d\r\n\r\n%s" % (path, version, host, head, len(body), body)


def content(received: bytes) -> str:
    """What the only answer on a connection says; informational ones may come before it."""
    informed = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert informed.startswith(b"HTTP/1.1 200 "), received
    return str(json.loads(informed.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"])


# Bounds of what comes before a request is known.


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_headers_and_the_url_are_bounded_on_every_route_before_the_key(guarded: Server, method: str, path: str) -> None:
    coded = method != "HEAD" and not path.startswith(("/v1/messages", "/api/"))
    line = f"{method} {path} HTTP/1.1\r\n".encode() + HOST
    for refused in (line + b"x: a\r\n" * (MOST_HEADERS + 1), line + b"x: " + b"a" * (MOST_HEAD_BYTES + 1)):
        assert parsed(exchange(guarded, refused)) == (431, "headers_too_large" if coded else None)
    long = f"{method} {path}?{'a' * MOST_URL_BYTES}".encode()
    assert parsed(exchange(guarded, long)) == (414, "url_too_long" if coded else None)


@pytest.mark.parametrize(
    "endless",
    [b"GET /ping HTTP/1.1\r\n" + HOST + b"x: ", b"GET /", b"GET /ping HTTP/1.1\r\n" + HOST + b"x", b"G", b""],
    ids=["value", "url", "name", "method", "nothing"],
)
@pytest.mark.parametrize("filling", [b"a", b"x: a\r\n", b"\r\n"], ids=["letters", "lines", "empty lines"])
def test_what_does_not_end_is_answered_all_the_same(server: Server, endless: bytes, filling: bytes) -> None:
    flood = endless + filling * (2_000_000 // len(filling))
    with closing(connect(server)) as connection:
        with contextlib.suppress(OSError):  # the server need not take all of it
            connection.sendall(flood)
        received = read_all(connection)
    assert received.split()[1] in {b"400", b"414", b"431", b"200"}
    assert b"connection: close" in received
    assert server.client.get("/ping").status_code == 200


sizes = st.lists(st.integers(0, 3000), max_size=2 * MOST_HEADERS)


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(1, 3 * MOST_URL_BYTES), st.lists(st.integers(1, 100_000), max_size=4))
def test_what_is_within_the_bounds_is_answered_however_it_is_cut(
    server: Server, lengths: list[int], url: int, cuts: list[int]
) -> None:
    lines = b"".join(b"x-%d: %s\r\n" % (number, b"a" * length) for number, length in enumerate(lengths))
    target = b"/ping?" + b"u" * url
    head = b"GET %s HTTP/1.1\r\n%sConnection: close\r\n%s\r\n" % (target, HOST, lines)
    places = sorted({0, len(head), *(cut for cut in cuts if cut < len(head))})
    received = exchange(server, *(head[here:there] for here, there in pairwise(places)))
    status = int(received.split()[1])
    if len(target) > MOST_URL_BYTES:
        assert status == 414
    elif len(lengths) + 2 > MOST_HEADERS or len(head) > MOST_HEAD_BYTES + 100:
        assert status == 431
    elif len(head) <= MOST_HEAD_BYTES:
        assert status == 200


def test_what_stands_behind_a_body_is_bounded_and_is_no_header(server: Server) -> None:
    chat = json.dumps(CHAT).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%s\r\n0\r\n" % (len(chat), chat)
    trailers = b"Host: evil.example\r\nOrigin: https://evil.example\r\nX-Request-Id: forged\r\n\r\n"
    answer = exchange(server, head + body + trailers)
    assert content(answer.replace(b"transfer-encoding: chunked\r\n", b""))
    assert b"forged" not in answer
    for endless in (body + b"x: a\r\n" * 50_000, body + b"x: " + b"a" * 300_000, b"5;" + b"a" * 300_000):
        assert parsed(exchange(server, head + endless)) == (431, "headers_too_large")


def test_answers_before_a_refused_request_are_whole_and_nothing_after_it_is_read(server: Server) -> None:
    refused = b"GET /ping HTTP/1.1\r\n" + HOST + b"x: a\r\n" * (MOST_HEADERS + 1)
    received = exchange(server, PING + PING + refused + PING)
    assert [part.split()[0] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"431"]
    long = post(max_tokens=40, ignore_eos=True).replace(b"Connection: close\r\n", b"")
    received = exchange(server, long + b"\x00" + PING)
    assert [part.split()[0] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]


# What is no request.


@pytest.mark.parametrize(
    "broken",
    [
        *(b"GARBAGE\r\n\r\n", b"GET\r\n\r\n", b"GET /ping HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"),
        *(b"GET /ping HTTP/2.0\r\n" + HOST + b"\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        *(b"GET /ping HTTP/1.1\r\nHost localhost\r\n\r\n", b"GET /ping HTTP/1.1\r\n" + HOST + b"x\x00y: z\r\n\r\n"),
        *(b"GET http:// HTTP/1.1\r\n" + HOST + b"\r\n", b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
        b"POST /ping HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST /ping HTTP/1.1\r\n" + HOST + b"Content-Length: -3\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n",
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_in_the_envelope(server: Server, broken: bytes) -> None:
    assert parsed(exchange(server, broken, end=True) or exchange(server, broken)) == (400, "invalid_http")


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(min_size=1, max_size=200), st.binary(max_size=80).map(lambda tail: PING[:30] + tail)))
def test_no_bytes_are_a_fault_of_the_server(server: Server, data: bytes) -> None:
    received = exchange(server, data, end=True)
    assert received == b"" or (received.startswith(b"HTTP/1.1 ") and received[9:10] in b"24")


# Hosts, and clients of HTTP/1.0.


def test_http_1_1_needs_one_host_and_http_1_0_none(server: Server) -> None:
    assert b'"invalid_http"' in exchange(server, b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n")
    for version in (b"1.0", b"1.1"):
        for hosts in (
            b"Host:\r\n",
            HOST + HOST,
            b"Host: \r\n",
            HOST + b"Host: evil.example\r\n",
            b"Host: evil.example\r\n",
        ):
            received = exchange(server, b"GET /ping HTTP/%s\r\nConnection: close\r\n%s\r\n" % (version, hosts))
            assert received.split()[1] in {b"400", b"403"}, hosts
    assert exchange(server, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_answers_http_1_0_without_a_host_and_without_chunks(server: Server, method: str, path: str) -> None:
    if path == "/models/sse":
        pytest.skip("it has no end")
    received = exchange(server, f"{method} {path} HTTP/1.0\r\nContent-Length: 2\r\n\r\n[]".encode())
    head = received.partition(b"\r\n\r\n")[0].lower()
    assert head.split()[1] not in {b"400", b"403", b"500"} or b'"code":"host"' not in received
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/responses", b"/v1/messages", b"/v1/completions"])
def test_a_stream_to_http_1_0_is_plain_and_ends_with_the_connection(server: Server, path: bytes) -> None:
    said = (
        {"input": "Hello"} if path == b"/v1/responses" else {"prompt": "Hello"} if path == b"/v1/completions" else CHAT
    )
    body = {"max_tokens": 4, "stream": True} | said
    if path == b"/v1/responses":
        body["max_output_tokens"] = body.pop("max_tokens")
    data = json.dumps(body).encode()
    received = exchange(server, b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (path, len(data), data))
    head, _, stream = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head.lower()
    lines = stream.decode().splitlines()
    assert {line.partition(":")[0] for line in lines if line} <= {"event", "data"}
    if path == b"/v1/chat/completions":
        assert events(stream.decode())


# Offers of another protocol, and clients that close one half or all.


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_body_of_a_request_that_offers_another_protocol_is_read(server: Server, framing: str) -> None:
    chat = json.dumps(CHAT).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + UPGRADE
    if framing == "length":
        pieces = [head + b"Content-Length: %d\r\n\r\n" % len(chat), chat[:9], chat[9:] + PING, LAST_PING]
    else:
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(chat), chat)
        pieces = [head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked[:9], chunked[9:], PING + LAST_PING]
    received = exchange(server, *pieces)
    answers = received.split(b"HTTP/1.1 ")[1:]
    assert [answer.split()[0] for answer in answers] == [b"200"] * 3
    assert json.loads(answers[0].partition(b"\r\n\r\n")[2])["choices"]
    offers = (b"GET /ping HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n") * 1000
    assert exchange(server, offers, LAST_PING).count(b"pong") == 1001


@pytest.mark.parametrize("last", [LAST_PING, b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"])
def test_nothing_is_answered_after_the_last_answer(server: Server, last: bytes) -> None:
    assert exchange(server, PING + last + last + PING).count(b"pong") == 2
    assert exchange(server, last, end=True).count(b"pong") == 1


def test_a_client_that_has_no_more_to_say_gets_its_answer(server: Server) -> None:
    whole = content(exchange(server, post(), end=True))
    assert whole == content(exchange(server, post()))
    for more in ({"max_tokens": 60, "ignore_eos": True}, {"max_tokens": 60, "ignore_eos": True, "stream": True}):
        connection = http.client.HTTPConnection(httpx.URL(server.url).netloc.decode(), timeout=30)
        connection.request("POST", "/v1/chat/completions", json.dumps(CHAT | more))
        connection.sock.shutdown(socket.SHUT_WR)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200
        assert text.endswith("data: [DONE]\n\n") if "stream" in more else json.loads(text)["choices"]
        connection.close()
    assert exchange(server, PING, end=True).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_that_is_gone_costs_no_more_steps(server: Server, stream: bool, version: bytes) -> None:
    identity = f"gone-{stream}-{version.decode()}"
    head = f"X-Request-Id: {identity}\r\n".encode()
    with closing(connect(server)) as connection:
        connection.sendall(post(head=head, version=version, max_tokens=900, ignore_eos=True, stream=stream))
        wait_for(lambda: busy(server), what="the answer to begin")
    line = wait_for(lambda: logged(server, identity), what="the line of the request")
    assert "finish" not in line
    wait_for(lambda: not busy(server), what="the engine to rest")


@pytest.mark.slow
@pytest.mark.parametrize("has_begun", [False, True], ids=["nothing sent yet", "a silent stream"])
def test_a_client_that_is_gone_is_noticed_though_nothing_is_sent(has_begun: bool) -> None:
    def is_noticed(hang_up: Callable[[socket.socket], None]) -> bool:
        async def go() -> bool:
            async with silent(has_begun) as (port, gone, _):
                connection = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port), 30)
                with closing(connection):
                    connection.sendall(PING)
                    if has_begun:
                        assert await asyncio.to_thread(connection.recv, 65536)
                    await asyncio.to_thread(hang_up, connection)
                    await asyncio.wait_for(gone.wait(), 30)
            return True

        return asyncio.run(go())

    def as_a_proxy(connection: socket.socket) -> None:
        """Pass the end of a client on, and go when what the server writes finds nobody."""
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536)
        connection.close()

    assert is_noticed(socket.socket.close)
    assert is_noticed(as_a_proxy)


def test_a_stream_is_whole_for_a_client_that_was_written_to_while_it_was_silent() -> None:
    async def go() -> bytes:
        async with silent(has_begun=True) as (port, _, ready):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", "/ping")
            with closing(client.sock) as connection, closing(await asyncio.to_thread(client.getresponse)) as answer:
                connection.shutdown(socket.SHUT_WR)
                assert await asyncio.to_thread(connection.recv, 1, socket.MSG_PEEK) == b"0"
                ready.set()
                return await asyncio.to_thread(answer.read)

    assert asyncio.run(go()) == b"whole"


@contextlib.asynccontextmanager
async def silent(has_begun: bool) -> AsyncIterator[tuple[int, asyncio.Event, asyncio.Event]]:
    """A server that is silent: its port, an event of its client's going, and one that makes it speak."""
    gone, ready = asyncio.Event(), asyncio.Event()

    async def application(_: Any, receive: Any, send: Any) -> None:
        if has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        speaking = asyncio.ensure_future(ready.wait())
        while not speaking.done():
            listening = asyncio.ensure_future(receive())
            await asyncio.wait({speaking, listening}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done() and listening.result()["type"] == "http.disconnect":
                gone.set()
                return
            listening.cancel()
        await send({"type": "http.response.body", "body": b"whole", "more_body": False})

    config = uvicorn.Config(application, log_config=None, lifespan="off")
    config.load()
    connections, state = Connections(), ServerState()
    loop = asyncio.get_running_loop()

    def connected() -> BoundedProtocol:
        return BoundedProtocol(connections, config=config, server_state=state, app_state={})

    server = await loop.create_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], gone, ready


def test_half_a_body_is_no_request_when_its_client_has_no_more_to_say(server: Server) -> None:
    for identity, framing in (("half-length", b"Content-Length: 100\r\n\r\n{"), ("half-chunked", CHUNKED + b"f\r\n{")):
        head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"X-Request-Id: %s\r\n" % identity.encode()
        assert exchange(server, head + framing, end=True) == b""
        line = wait_for(partial(logged, server, identity), what="the line of the request")
        assert line["status"] == 499
    assert server.errors() == []


def test_http_1_0_is_not_told_to_continue(server: Server) -> None:
    expecting = post(version=b"1.0", head=b"Expect: 100-continue\r\n")
    assert exchange(server, expecting).startswith(b"HTTP/1.1 200 ")


# Connections on which nothing happens. Each server here is one of its own, with little time and few files.


IMPATIENT = """
import resource
from app import connections, protocol
from app.commands.cli import main

connections.raise_limit = lambda: None
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
protocol._HEAD_SECONDS, protocol._BODY_SECONDS = {head}, {body}
main()
"""


@contextlib.contextmanager
def impatient(home: Path, *flags: str, files: int = 1024, head: float = 60.0, body: float = 60.0) -> Iterator[Server]:
    program = ("-c", IMPATIENT.format(files=files, head=head, body=body))
    with running(home, *flags, program=program) as server:
        yield server
        assert server.errors() == []


@pytest.mark.slow
def test_a_request_has_to_come_to_its_end_in_time(tiny: Path, tmp_path: Path) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n{"
    with impatient(tmp_path, "--model", str(tiny), head=0.4, body=0.4) as server:
        assert exchange(server) == b""
        for beginning in (b"\r\n", b"G", b"GET /ping HTTP/1.1\r\nx", head):
            assert parsed(exchange(server, beginning)) == (408, "request_timeout")
        with closing(connect(server)) as slow:  # a byte now and then does not help a head
            with contextlib.suppress(OSError):
                for byte in b"GET /ping HTTP/1.1\r\nx: " + b"a" * 500:
                    slow.sendall(bytes([byte]))
                    time.sleep(0.02)
            assert parsed(read_all(slow)) == (408, "request_timeout")
        assert len(content(exchange(server, post(max_tokens=900, ignore_eos=True)))) > 100  # an answer may take longer


@pytest.mark.slow
@pytest.mark.parametrize("files", [64, 300])
def test_idle_connections_shut_nobody_out_and_end_no_answer(tiny: Path, tmp_path: Path, files: int) -> None:
    beginnings = (b"", PING[:20], post()[:-9], PING)
    with (
        impatient(tmp_path, "--model", str(tiny), files=files) as server,
        ThreadPoolExecutor(4) as pool,
        contextlib.ExitStack() as held,
    ):
        under_way = [pool.submit(server.chat, "Hi", max_tokens=900, ignore_eos=True, stream=True) for _ in range(4)]
        wait_for(lambda: busy(server), what="answers under way")
        for number in range(3 * files):
            idle = held.enter_context(closing(connect(server)))
            with contextlib.suppress(OSError):
                idle.sendall(beginnings[number % len(beginnings)])
            if number % 50 == 0:  # on a connection of its own: one that was kept may be the one that makes room
                answer = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=60)
                assert answer.status_code == 200
        with httpx.Client(base_url=server.url, timeout=60) as newcomer:
            assert newcomer.get("/ping").status_code == 200
            assert newcomer.post("/v1/chat/completions", json=CHAT).status_code == 200
        for streamed in under_way:
            assert streamed.result().text.endswith("data: [DONE]\n\n")
        (line,) = server.logged("too many connections: idle ones are closed")
        assert line["level"] == "warning"
        assert len(list(Path(f"/proc/{server.process.pid}/fd").glob("*"))) < files if Path("/proc").is_dir() else True


@pytest.mark.slow
def test_when_all_connections_are_at_work_one_more_is_told_so(tiny: Path, tmp_path: Path) -> None:
    with impatient(tmp_path, "--models-dir", str(tiny.parent), files=64) as server, contextlib.ExitStack() as held:
        listeners = [held.enter_context(closing(connect(server))) for _ in range(32)]
        for listener in listeners:
            listener.sendall(b"GET /models/sse HTTP/1.1\r\n" + HOST + b"\r\n")
            assert listener.recv(65536)
        received = exchange(server, PING)
        assert received.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in received and b'"code":"busy"' in received
        listeners.pop().close()
        wait_for(lambda: exchange(server, LAST_PING).startswith(b"HTTP/1.1 200 "), what="a free place")


@pytest.mark.slow
def test_a_low_limit_of_open_files_does_not_keep_the_model_from_loading(tiny: Path, tmp_path: Path) -> None:
    low = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 1000)); "
    command = f"{low} from app.commands.cli import main; main()"
    with running(tmp_path, "--model", str(tiny), program=("-c", command)) as server:
        assert server.chat().status_code == 200
        if Path("/proc").is_dir():
            limits = Path(f"/proc/{server.process.pid}/limits").read_text()
            assert next(line for line in limits.splitlines() if "open files" in line).split()[3:5] == ["1000", "1000"]


@pytest.mark.slow
def test_a_request_that_is_still_coming_when_the_server_ends_is_told_so(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny)) as server, closing(connect(server)) as connection:
        connection.sendall(post(head=b"Expect: 100-continue\r\n")[:-5])
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"  # somebody waits for the body
        server.process.send_signal(signal.SIGINT)
        received = read_all(connection)
        assert server.process.wait(20) == 0
        assert received.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in received and b'"code":"shutting_down"' in received
        assert "Traceback" not in server.log


def busy(server: Server) -> bool:
    return "llamacpp:requests_processing 0.0" not in server.client.get("/metrics").text


def logged(server: Server, identity: str) -> dict[str, Any] | None:
    return next((line for line in server.logged("request") if line.get("request_id") == identity), None)
