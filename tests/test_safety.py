"""Who may ask: every route of the app, every kind of caller that may not."""

import json
import re
import socket
from contextlib import closing
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access import NEVER_FROM_PAGES, Access, is_public
from app.origins import is_loopback
from app.services.errors import Forbidden, Unauthorized
from app.settings import Settings
from tests.conftest import KEY, OTHER_KEY, Server
from tests.routes import ROUTES

PUBLIC = {"/", "/ping", "/health", "/v1/health", "/favicon.ico", "/sw.js"}
JSON = {"Content-Type": "application/json"}


every_route = pytest.mark.parametrize(("method", "path"), ROUTES)


def public(path: str) -> bool:
    return path in PUBLIC or is_page(path)


def is_page(path: str) -> bool:
    return path in {"/home", "/schema"} or path.startswith(("/home/", "/schema/"))


def ask(server: Server, method: str, path: str, **headers: str | None) -> httpx.Response:
    """Ask with these headers (a_b for A-B); the key comes along unless it is None."""
    usual = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    present = {name: value for name, value in (usual | more).items() if value is not None}
    with server.client.stream(method, path, headers=present, content=b"[]") as answer:
        if method == "HEAD" or not answer.headers.get("content-type", "").startswith("text/event-stream"):
            answer.read()  # a stream may have no end
    return answer


def refused(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Check a refusal of the gate."""
    assert answer.status_code == status
    if answer.request.method != "HEAD":
        if answer.request.url.path.startswith("/api/"):
            assert set(answer.json()) == {"error"} and isinstance(answer.json()["error"], str)
            return _headers_of_a_refusal(answer)
        error: dict[str, Any] = answer.json()["error"]
        anthropics = answer.request.url.path.startswith("/v1/messages")
        assert set(error) == {"message", "type"} | (set() if anthropics else {"param", "code"})
        assert error["type"] == {401: "authentication_error", 403: "permission_error"}[status]
        assert code is None or anthropics or error["code"] == code
    return _headers_of_a_refusal(answer)


def _headers_of_a_refusal(answer: httpx.Response) -> dict[str, Any]:
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]
    assert answer.headers["x-request-id"]
    return answer.json() if answer.content else {}


def passed(answer: httpx.Response) -> None:
    """The gate let it through, whatever became of it."""
    off = answer.request.url.path in {"/tools", "/cors-proxy"} and answer.json()["error"]["code"] == "feature_disabled"
    assert answer.status_code not in {401, 403} or off, answer.text
    assert "Origin" in answer.headers["vary"]


def test_all_the_routes_are_walked() -> None:
    assert {("POST", "/v1/messages"), ("POST", "/v1/responses"), ("DELETE", "/v1/responses/x")} <= set(ROUTES)
    assert {("POST", "/v1/chat/completions"), ("POST", "/start"), ("GET", "/props"), ("GET", "/schema")} <= set(ROUTES)
    assert {("GET", "/schema/openapi.json"), ("GET", "/schema/openapi.yaml")} <= set(ROUTES)
    assert len(ROUTES) > 20


# Every route.


@every_route
def test_a_foreign_host_is_refused(guarded: Server, method: str, path: str) -> None:
    refused(ask(guarded, method, path, host="evil.example"), 403, "host")


@every_route
def test_a_missing_or_wrong_key_is_refused_but_on_public_paths(guarded: Server, method: str, path: str) -> None:
    for key in (None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}"):
        answer = ask(guarded, method, path, authorization=key)
        if public(path):
            passed(answer)
        else:
            refused(answer, 401, "invalid_api_key")


@every_route
def test_a_foreign_origin_is_refused(guarded: Server, method: str, path: str) -> None:
    for origin in ("https://evil.example", "null", "file://", "https://app.example.evil.example"):
        refused(ask(guarded, method, path, origin=origin), 403, "origin")


@every_route
def test_an_embedding_page_of_another_site_is_refused(guarded: Server, method: str, path: str) -> None:
    answer = ask(guarded, method, path, sec_fetch_site="cross-site")
    if method in {"GET", "HEAD"} and (path == "/" or is_page(path)):
        passed(answer)
    else:
        refused(answer, 403)


@every_route
def test_a_preflight_needs_an_allowed_origin_and_no_key(guarded: Server, method: str, path: str) -> None:
    preflight = {"access_control_request_method": method, "access_control_request_headers": "x-one, authorization"}
    foreign = ask(guarded, "OPTIONS", path, authorization=None, origin="https://evil.example", **preflight)
    refused(foreign, 403, "origin")
    own = ask(guarded, "OPTIONS", path, authorization=None, origin="http://localhost:5173", **preflight)
    assert own.status_code in {200, 204}
    assert own.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert method in own.headers["access-control-allow-methods"]
    assert own.headers["access-control-allow-headers"] == "x-one, authorization"
    assert "Origin" in own.headers["vary"]


@every_route
def test_an_allowed_origin_may_read_the_answer_errors_too(guarded: Server, method: str, path: str) -> None:
    for origin in ("http://localhost:5173", "http://127.0.0.1", "https://[::1]:8443", "https://app.example"):
        for key in (f"Bearer {KEY}", None):
            answer = ask(guarded, method, path, origin=origin, authorization=key)
            assert answer.headers["access-control-allow-origin"] == origin
            assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
            assert "Origin" in answer.headers["vary"]
            assert "access-control-allow-credentials" not in answer.headers
            assert answer.headers.get_list("access-control-allow-origin") == [origin]
            if key is None and not public(path):
                assert answer.status_code == (403 if path in NEVER_FROM_PAGES else 401)


@every_route
def test_without_an_origin_no_cors_header_is_sent(guarded: Server, method: str, path: str) -> None:
    answer = ask(guarded, method, path)
    passed(answer)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/nothing", "/v1/messages/nothing", "*", "/ping/nothing"])
def test_a_path_without_a_route_has_no_options(guarded: Server, path: str) -> None:
    answer = guarded.client.request("OPTIONS", "/", extensions={"target": path.encode()})
    assert answer.status_code == 404
    assert "allow" not in answer.headers
    assert answer.json()["error"]["type"] == "not_found_error"


@every_route
def test_no_type_says_a_thing_twice(guarded: Server, method: str, path: str) -> None:
    answer = ask(guarded, method, path)
    (value,) = answer.headers.get_list("content-type") or ["none"]
    names = [part.partition("=")[0].strip() for part in value.split(";")]
    assert len(names) == len(set(names)), value


@pytest.mark.parametrize("path", sorted({path for method, path in ROUTES if method == "GET"}))
def test_head_is_get_without_a_body(guarded: Server, path: str) -> None:
    get, head = ask(guarded, "GET", path), ask(guarded, "HEAD", path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers.get("content-type") == get.headers.get("content-type")
    if path not in {"/metrics", "/v1/activity"}:  # their numbers are others each time
        assert head.headers.get("content-length") == get.headers.get("content-length")


# Keys, hosts, origins and pages, one by one.


@pytest.mark.parametrize(
    "header",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"authorization": f"Bearer   {KEY}"},
        {"authorization": f"Bearer {OTHER_KEY}"},
        {"authorization": None, "x_api_key": KEY},
        {"authorization": None, "x_api_key": OTHER_KEY},
        {"authorization": "Bearer of-another-service", "x_api_key": KEY},
        {"authorization": "Basic dXNlcjpwYXNz", "x_api_key": KEY},
        {"authorization": f"Bearer {KEY}", "x_api_key": "of-another-service"},
    ],
)
def test_each_key_lets_in_either_way(guarded: Server, header: dict[str, str | None]) -> None:
    assert ask(guarded, "GET", "/v1/models", **header).status_code == 200


def test_a_key_may_hold_any_bytes_without_harm(guarded: Server) -> None:
    for key in (b"Bearer \xff\xfe", b"Bearer " + b"x" * 10_000, "Bearer ключ".encode()):
        answer = guarded.client.get("/v1/models", headers={b"Authorization": key})
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "host",
    [
        "tiles.example",
        "TILES.example:6969",
        "tiles.example.",
        "localhost:1",
        "127.0.0.1",
        "[::1]:9",
        "LOCALHOST",
        "tiles.localhost",
        "127.8.9.1",
    ],
)
def test_own_hosts_are_answered(guarded: Server, host: str) -> None:
    assert ask(guarded, "GET", "/v1/models", host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1.evil.com", "localhost.evil.com", "evil.com#localhost", "user@localhost", "localhost@evil.com"),
        *("127.1", "0x7f.1", "2130706433", "017700000001", "0.0.0.0", "192.168.1.5", "[::]", "[fe80::1]", "::1"),
        *("[::ffff:192.168.1.5]", "tiles.example.evil.com", "eviltiles.example", "localhost:x", "localhost:99999"),
        *("localhost/", "localhost?", "local host", "localhost\\evil.com", ".localhost.evil.com", "", ":80", "[::1"),
        *("notlocalhost", "127.0.0.1,evil.com", "localhost,evil.com"),
    ],
)  # fmt: skip
def test_no_other_host_is(guarded: Server, host: str) -> None:
    answer = ask(guarded, "GET", "/v1/models", host=host)
    assert answer.status_code in {400, 403}, host  # some are no host at all for the HTTP parser
    assert Access(Settings()).allows_origin(f"http://{host}", "localhost") is False


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.com", "http://127.0.0.1.evil.com", "http://localhost.evil.com", "http://evil.com#localhost"),
        *("null", "", "file://", "localhost", "//localhost", "http://", "http://localhost@evil.com", "http://127.1"),
        *("http://192.168.1.5", "https://app.example:8443", "http://app.example", "http://localhost/path", "*"),
        *("http://localhost http://evil.com", "http://evil.com http://localhost", "chrome-extension://abc"),
    ],
)  # fmt: skip
def test_no_other_origin_is_answered(guarded: Server, origin: str) -> None:
    refused(ask(guarded, "GET", "/v1/models", origin=origin), 403)


def test_the_servers_own_origin_is_answered(guarded: Server) -> None:
    for host, origin in [
        ("tiles.example", "http://tiles.example"),
        ("tiles.example:6969", "http://tiles.example:6969"),
        ("tiles.example", "https://tiles.example"),  # behind a proxy that ends TLS
    ]:
        answer = ask(guarded, "GET", "/v1/models", host=host, origin=origin)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
    for origin in ("http://tiles.example:1", "http://other.example"):
        refused(ask(guarded, "GET", "/v1/models", host="tiles.example", origin=origin), 403, "origin")


@pytest.mark.parametrize(
    "header",
    [
        {"origin": "http://localhost:5173"},
        {"origin": "https://app.example"},
        *({"sec_fetch_site": site} for site in ("none", "same-origin", "same-site", "cross-site")),
    ],
)
def test_no_page_may_start_a_session(guarded: Server, header: dict[str, str]) -> None:
    answer = ask(guarded, "POST", "/start", **header)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "browser_page"
    name, value = next(iter(header.items()))
    lines = (
        f"Host: localhost\nAuthorization: Bearer {KEY}\n{name.replace('_', '-')}: {value}\nContent-Length: 2\n\n{{}}"
    )
    for path in ("/start/", "//start", "/%73tart", "//start//", "/./start", "/START", "/start%2f", "/start?x=1"):
        answer = raw_any(guarded, f"POST {path} HTTP/1.1\n{lines}")
        assert answer.split()[1] in {b"403", b"404", b"405"}, path


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none", "cross-site"])
def test_a_page_of_an_allowed_origin_may_chat(guarded: Server, site: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    headers = {"Origin": "http://localhost:5173", "Sec-Fetch-Site": site, "X-Api-Key": KEY}
    assert guarded.client.post("/v1/chat/completions", json=body, headers=headers).status_code == 200


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_pages_of_this_site_may_read(guarded: Server, site: str) -> None:
    passed(ask(guarded, "GET", "/props", sec_fetch_site=site))


def test_a_private_network_preflight_is_granted_to_allowed_origins_alone(guarded: Server) -> None:
    preflight = {"access_control_request_method": "POST", "access_control_request_private_network": "true"}
    answer = ask(guarded, "OPTIONS", "/v1/chat/completions", origin="https://app.example", **preflight)
    assert answer.headers["access-control-allow-private-network"] == "true"
    answer = ask(guarded, "OPTIONS", "/v1/chat/completions", origin="https://evil.example", **preflight)
    assert "access-control-allow-private-network" not in answer.headers


def raw(server: Server, head: str) -> bytes:
    """Send the head of a request whose body never comes, and read what is answered."""
    address = (httpx.URL(server.url).host, httpx.URL(server.url).port or 0)
    with closing(socket.create_connection(address, timeout=10)) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        answer = b""
        while b"}}" not in answer:
            piece = connection.recv(65536)
            assert piece, answer
            answer += piece
        return answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: evil.example", 403),
        ("Host: localhost", 401),
        (f"Host: localhost\nAuthorization: Bearer {KEY}\nOrigin: https://evil.example", 403),
        (f"Host: localhost\nAuthorization: Bearer {KEY}\nSec-Fetch-Site: cross-site", 403),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/start", "/models/load"])
def test_the_body_of_a_refused_request_is_not_read(guarded: Server, path: str, headers: str, status: int) -> None:
    head = f"POST {path} HTTP/1.1\n{headers}\nContent-Type: application/json\nContent-Length: 90000000\n\n"
    answer = raw(guarded, head)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert set(body["error"]) == {"message", "type", "param", "code"}


def test_two_hosts_or_origins_do_not_slip_through(guarded: Server) -> None:
    for pair in (("Host: localhost", "Host: evil.example"), ("Host: evil.example", "Host: localhost")):
        answer = raw_any(guarded, f"GET /v1/models HTTP/1.1\n{pair[0]}\n{pair[1]}\nAuthorization: Bearer {KEY}\n\n")
        assert answer.split()[1] in {b"400", b"403"}
    for first, second in (("http://localhost", "https://evil.example"), ("https://evil.example", "http://localhost")):
        head = f"GET /v1/models HTTP/1.1\nHost: localhost\nOrigin: {first}\nOrigin: {second}\n"
        answer = raw_any(guarded, f"{head}Authorization: Bearer {KEY}\n\n")
        assert answer.split()[1] in {b"400", b"403"}


def raw_any(server: Server, head: str) -> bytes:
    address = (httpx.URL(server.url).host, httpx.URL(server.url).port or 0)
    with closing(socket.create_connection(address, timeout=10)) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        return connection.recv(65536)


@pytest.mark.parametrize(
    "path",
    [
        "/schema/../props",
        "/schema/%2e%2e/props",
        "/ping/../props",
        "//props",
        "/schema/static/../../props",
        "/schema/static/%2e%2e/%2e%2e/__init__.py",
        "/schema/static//etc/passwd",
        "/schema/static/..%2f..%2f__init__.py",
    ],
)
def test_no_path_leads_around_the_key(guarded: Server, path: str) -> None:
    answer = raw_any(guarded, f"GET {path} HTTP/1.1\nHost: localhost\n\n")
    assert answer.split()[1] in {b"401", b"404", b"405"}


# Request ids.


@pytest.mark.parametrize("identity", ["abc", "A-1_b.c:d", "x" * 128])
def test_a_request_id_that_is_given_comes_back(guarded: Server, identity: str) -> None:
    for path in ("/ping", "/v1/models", "/nothing"):
        assert ask(guarded, "GET", path, x_request_id=identity).headers["x-request-id"] == identity
    assert ask(guarded, "GET", "/ping", host="evil.example", x_request_id=identity).headers["x-request-id"] == identity


@pytest.mark.parametrize("identity", ["", "x" * 129, "a b", "a;b", '{"a": 1}', "é"])
def test_a_request_id_that_is_odd_is_replaced(guarded: Server, identity: str) -> None:
    answers = [guarded.client.get("/ping", headers={b"X-Request-Id": identity.encode()}) for _ in range(2)]
    made = {answer.headers["x-request-id"] for answer in answers}
    assert len(made) == 2
    assert all(re.fullmatch(r"req_[0-9a-f]{16}", one) for one in made)
    assert answers[0].headers.get_list("x-request-id") == [answers[0].headers["x-request-id"]]


def test_without_keys_or_lists_only_loopback_is_answered(server: Server) -> None:
    assert server.client.get("/v1/models").status_code == 200
    assert server.client.get("/v1/models", headers={"Authorization": "Bearer anything"}).status_code == 200
    assert server.client.get("/v1/models", headers={"Host": "tiles.example"}).status_code == 403
    assert server.client.get("/v1/models", headers={"Origin": "https://app.example"}).status_code == 403


def test_keys_are_in_no_log_line(guarded: Server) -> None:
    assert KEY not in guarded.log
    assert "wrong" not in guarded.log


# The rules themselves.


def allows(access: Access, **headers: str) -> bool:
    try:
        access.check("GET", "/v1/models", {name.replace("_", "-"): value for name, value in headers.items()})
    except (Forbidden, Unauthorized):
        return False
    return True


LOOPBACK = ("localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.255.0.9", "[::1]")
ODD = st.one_of(
    st.text(max_size=40),
    st.text("localhost127.0:[]@#/?%\\ ,;-x", max_size=30),
    st.builds(
        lambda *p: "".join(p),
        st.sampled_from(LOOPBACK),
        st.text(max_size=3),
        st.sampled_from([".evil.com", "@evil.com", "%2eevil.com"]),
    ),
)


@given(ODD, ODD, ODD)
def test_no_header_crashes_the_rules(host: str, origin: str, site: str) -> None:
    for settings in (
        Settings(),
        Settings(host=("0.0.0.0",), api_key=("k",), allow_host=("a",), allow_origin=("http://b",)),
    ):
        access = Access(settings)
        allows(access, host=host, origin=origin, sec_fetch_site=site, authorization=origin)
        access.allows_origin(origin, host)


@given(st.text("abc.-", min_size=1, max_size=12), st.sampled_from(["com", "example", "1", "localhos"]))
def test_no_foreign_name_is_taken_for_loopback(name: str, end: str) -> None:
    access = Access(Settings())
    for host in (f"{name}.{end}", f"localhost.{name}.{end}", f"127.0.0.1.{name}.{end}", f"localhost{name}.{end}"):
        assert not allows(access, host=host)
        assert not access.allows_origin(f"http://{host}", "localhost")


@given(st.sampled_from(LOOPBACK), st.one_of(st.none(), st.integers(1, 65535)))
def test_loopback_is_answered_at_any_port(name: str, port: int | None) -> None:
    host = name if port is None else f"{name}:{port}"
    access = Access(Settings())
    assert allows(access, host=host)
    assert allows(access, host="localhost", origin=f"http://{host}")
    assert allows(access, host="localhost", origin=f"https://{host}")


def test_other_addresses_are_answered_only_when_bound_beyond_loopback() -> None:
    beyond = Access(Settings(host=("0.0.0.0",), insecure=True))
    assert allows(beyond, host="192.168.1.5:6969")
    assert allows(beyond, host="[fd00::1]:6969")
    assert allows(beyond, host="192.168.1.5", origin="http://192.168.1.5")
    assert not allows(beyond, host="192.168.1.5", origin="http://192.168.1.6")
    assert not allows(beyond, host="rebound.example")
    assert not allows(Access(Settings()), host="192.168.1.5")


def test_public_paths_are_those_of_the_design() -> None:
    assert all(is_public(path) for path in (*PUBLIC, "/schema", "/schema/openapi.json", "/schema/static/x.js"))
    assert not any(
        is_public(path) for path in ("/schemas", "/props", "/v1/models", "/Schema", "//", "/ping/x", "/slots")
    )


def test_loopback_names() -> None:
    assert all(is_loopback(name) for name in ("localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(name) for name in ("", "local", "128.0.0.1", "::2", "0.0.0.0", "127.1", "xlocalhost"))
