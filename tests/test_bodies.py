"""Bodies: how they may come, and that none is more than the server bears, on every route that takes one."""

import asyncio
import gzip
import json
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar
from pydantic import ValidationError

from app.application import create_app
from app.controllers import body as bodies
from app.controllers import content_encoding
from app.controllers.body_budget import BodyBudget, cost
from app.controllers.json_size import JsonSize
from app.dto.shared.base import RequestLimits
from app.services.errors import BodyTooLarge, Unavailable, UnprocessableBody, UnsupportedEncoding
from app.services.model_service import ModelService
from app.settings import Settings
from tests import routes
from tests.conftest import Server, running, wait_for
from tests.refusals import BASES, error_of, minimal
from tests.routes import BODIES, LISTS

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}
EVERY = (*routes.POSTS, *sorted(LISTS), *(path.replace("{id_slot}", "0") for path in BODIES if "{" in path))
ANSWERED = [route for route in BASES if route != "/infill"]  # the tiny model cannot fill in


def code_of(answer: httpx.Response, *statuses: int) -> str:
    """The code, or in Anthropic's envelope the kind, of a refusal."""
    assert answer.status_code in statuses, answer.text[:500]
    error = answer.json()["error"]
    return str(error.get("code") or error["type"])


# How much there is in JSON, before it is decoded.

TEXTS = st.text(st.sampled_from('"\\[]{},: aé😀\n'), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=40,
)


def values_of(value: Any) -> int:
    """Brackets that open, commas and colons."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    names = len(value) if isinstance(value, dict) else 0
    return 0 if inside is None else 1 + names + max(0, len(inside) - 1) + sum(map(values_of, inside))


def depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(depth, inside), default=0)


def feed(text: bytes, cut: int, most_values: int, most_nesting: int) -> JsonSize:
    size = JsonSize(most_values, most_nesting)
    for start in range(0, len(text), cut):
        size.feed(text[start : start + cut])
    return size


@settings(deadline=None, max_examples=300)
@given(JSON, st.integers(1, 40), st.booleans(), st.sampled_from([None, 3]))
def test_values_and_nesting_are_counted_however_the_bytes_come(
    value: Any, cut: int, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert feed(text, cut, 1000, 1000).values == values_of(value)
    assert feed(text, cut, 1000, depth(value)).values == values_of(value)
    if depth(value):
        with pytest.raises(UnprocessableBody, match="nests deeper"):
            feed(text, cut, 1000, depth(value) - 1)
    if values_of(value):
        with pytest.raises(UnprocessableBody, match="more than"):
            feed(text, cut, values_of(value) - 1, 1000)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200) | st.text('"\\[]{},', max_size=200).map(str.encode), st.integers(1, 50))
def test_any_bytes_are_counted_the_same_however_they_come(text: bytes, cut: int) -> None:
    def outcome(cut: int) -> int | str:
        try:
            return feed(text, cut, 20, 10).values
        except UnprocessableBody as error:
            return error.code or ""

    assert (outcome(cut) == outcome(max(1, len(text)))) or isinstance(outcome(cut), str)


@pytest.mark.parametrize(
    "text",
    [
        b'{"prompt": [' + b"9" * 100_000 + b"]}",
        b'{"prompt": [' + b",".join([b"9" * 4000] * 20) + b"]}",
        b'"' * 100_000,
        b"]" * 100_000,
        b"[" + b"1," * 5000,
    ],
)
def test_what_takes_long_to_read_is_refused_while_it_comes(text: bytes) -> None:
    for cut in (1, 100, 65536):
        with pytest.raises(UnprocessableBody, match="--max-values") as refused:
            feed(text, cut, 1000, 64)
        assert refused.value.code == "too_many_values"


@pytest.mark.parametrize("text", ['"' + "a,[{" * 50_000 + '"', '"' + '\\"[,' * 50_000 + '"', " " * 200_000 + "{}"])
def test_what_stands_in_a_string_or_is_blank_counts_for_nothing(text: str) -> None:
    assert feed(text.encode(), 999, 1000, 4).values <= 1


# Compressed bodies.


def compress(data: bytes, name: str) -> bytes:
    if name == "raw deflate":
        stream = zlib.compressobj(wbits=-15)
        return stream.compress(data) + stream.flush()
    return zlib.compress(data) if name == "deflate" else gzip.compress(data)


def inflate(data: bytes, header: str, most: int = 2**20, cut: int = 2**16) -> bytes:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), cut):
            yield data[start : start + cut]

    async def go() -> bytes:
        return b"".join([piece async for piece in content_encoding.inflate(pieces(), header, most)])

    return asyncio.run(go())


@settings(deadline=None, max_examples=100)
@given(
    st.binary(max_size=2000),
    st.lists(st.sampled_from(["gzip", "x-gzip", "deflate", "raw deflate"]), max_size=3),
    st.integers(1, 100),
)
def test_layers_of_compression_are_undone_last_first(data: bytes, names: list[str], cut: int) -> None:
    sent = data
    for name in names:
        sent = compress(sent, name)
    header = ", ".join(name.removeprefix("raw ").upper() for name in ["identity", *names])
    assert inflate(sent, header, cut=cut) == data


@pytest.mark.parametrize("header", ["gzip", "deflate", "gzip, gzip"])
def test_a_compressed_body_is_refused_once_more_comes_out_than_may(header: str) -> None:
    bomb = b"\0" * 2**24
    for name in header.split(", "):
        bomb = compress(bomb, name)
    assert len(bomb) < 2**15
    with pytest.raises(BodyTooLarge):
        inflate(bomb, header, most=2**20)
    assert len(inflate(bomb, header, most=2**24)) == 2**24


@pytest.mark.parametrize("name", ["gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 131072, 200_000])
def test_what_comes_out_in_pieces_is_whole(name: str, size: int) -> None:
    for cut in (1, 2**16):
        assert inflate(compress(b"\0" * size, name), name.removeprefix("raw "), cut=cut) == b"\0" * size


@settings(deadline=None, max_examples=100)
@given(st.binary(min_size=1, max_size=300), st.sampled_from(["gzip", "deflate", "raw deflate"]), st.data())
def test_a_broken_compression_is_said(data: bytes, name: str, draw: st.DataObject) -> None:
    sent = compress(data, name)
    cut = sent[: draw.draw(st.integers(1, len(sent) - 1))]
    for wrong in (cut, sent + b"{}"):
        with pytest.raises(UnprocessableBody, match=name.removeprefix("raw ")):
            inflate(wrong, name.removeprefix("raw "))


@pytest.mark.parametrize(
    "header", ["br", "zstd", "compress", "gzip, br", "br, gzip", "x" * 500, "gzip, " * 4, "gzip;q=1"]
)
def test_another_compression_is_named(header: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="gzip or deflate") as refused:
        inflate(gzip.compress(b"{}"), header)
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("route", ANSWERED)
@pytest.mark.parametrize("name", ["gzip", "deflate", "raw deflate"])
def test_compressed_bodies_are_answered(server: Server, route: str, name: str) -> None:
    sent = compress(json.dumps(minimal(route)).encode(), name)
    headers = {"Content-Encoding": name.removeprefix("raw "), "Content-Type": "application/json"}
    assert server.client.post(route, content=sent, headers=headers).status_code == 200
    pieces = (sent[place : place + 7] for place in range(0, len(sent), 7))
    assert server.client.post(route, content=pieces, headers=headers).status_code == 200


def ask(application: Any, send: Callable[[httpx.AsyncClient], Any]) -> httpx.Response:
    """Ask an application in this process."""

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer: httpx.Response = await send(client)
            return answer

    return asyncio.run(go())


SMALL = Settings(max_body=2**18, max_values=1000, max_nesting=8)


@pytest.fixture(scope="module")
def small() -> Litestar:
    """An application with small limits, and without a model."""
    return create_app(SMALL, ModelService(SMALL))


@pytest.mark.parametrize("route", EVERY)
@pytest.mark.parametrize(
    ("body", "encoding", "status", "word"),
    [
        (b"{}", "br", 415, "'br'"),
        (b"{}", "zstd", 415, "'zstd'"),
        (gzip.compress(b"{}", mtime=0), "gzip, br", 415, "'br'"),
        ('{"a": 1}'.encode("utf-16"), "", 415, "UTF-16"),
        ('{"a": 1}'.encode("utf-32"), "", 415, "UTF-32"),
        (b"{}", "gzip", 422, "gzip"),
        (b"{}", "deflate", 422, "deflate"),
        (gzip.compress(b" " * 2**20, mtime=0), "gzip", 413, "--max-body"),
        (b" " * (2**18 + 1), "", 413, "--max-body"),
        (b"[" + b"[]," * 1000, "", 422, "--max-values"),
        (b'{"a": [' + b'{"b": 1},' * 1000, "", 422, "--max-values"),
        (gzip.compress(b"{" + b'"a": 1,' * 1001, mtime=0), "gzip", 422, "--max-values"),
        (b'{"a": [' + b"1" * 20_000, "", 422, "--max-values"),
        (b'{"model": ' + b"[" * 9, "", 422, "nests"),
        (b'{"model": "\xe9"}', "", 422, "at byte 11"),
    ],
)
def test_every_route_reads_a_body_in_the_one_way(
    small: Litestar, route: str, body: bytes, encoding: str, status: int, word: str
) -> None:
    headers = {"Content-Encoding": encoding} if encoding else {}
    answer = ask(small, lambda client: client.post(route, content=body, headers=headers))
    assert answer.status_code == status, answer.text
    assert answer.headers.get("accept-encoding") == ("gzip, deflate" if status == 415 else None)
    error = answer.json()["error"]
    assert word in (error if route.startswith("/api/") else error["message"])


# Texts that are not plain UTF-8.


@pytest.mark.parametrize("route", ANSWERED)
@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=iso-8859-1", "text/plain"])
def test_a_byte_order_mark_is_passed_over_and_the_charset_does_not_count(server: Server, route: str, kind: str) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(minimal(route) | {"user": "é"}, ensure_ascii=False).encode()
    assert server.client.post(route, content=body, headers={"Content-Type": kind}).status_code == 200


@pytest.mark.parametrize("beginning", [b"", b"\xef\xbb\xbf", b" \n"])
@pytest.mark.parametrize("before", ["", "plain", "é😀"])
def test_the_first_byte_that_is_not_utf8_is_counted_from_the_beginning(
    server: Server, beginning: bytes, before: str
) -> None:
    body = beginning + b'{"messages": [{"role": "user", "content": "' + before.encode()
    error = error_of(server.client.post(CHAT, content=body + b'\xe9 au lait"}]}'), 422)
    assert f"at byte {len(body)};" in error["message"]
    assert "UTF-8" in error["message"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_unicode_encoding_is_named(server: Server, encoding: str) -> None:
    answer = server.client.post(CHAT, content=json.dumps({"messages": [USER]}).encode(encoding))
    assert encoding[:6].upper() in error_of(answer, 415)["message"]


# Counts are looked at before items.


FIELDS = [(route, name) for route, model in BODIES.items() for name in model.model_fields]


@pytest.mark.parametrize(("route", "name"), FIELDS)
def test_many_wrong_items_are_no_more_mistakes_than_a_few(route: str, name: str) -> None:
    def mistakes(value: Any) -> int:
        try:
            BODIES[route].model_validate({name: value}, strict=True, context=RequestLimits())
        except ValidationError as error:
            return error.error_count()
        return 0

    for item in (None, {}, {"a": 1}, [None], "", 1.5):
        assert mistakes([item] * 500) <= mistakes([item] * 2) + 1


@pytest.mark.parametrize("route", [CHAT, "/apply-template", "/v1/messages", "/v1/messages/count_tokens"])
def test_too_many_messages_are_counted_before_they_are_looked_at(route: str) -> None:
    for item in (None, {}, USER):
        with pytest.raises(ValidationError, match="more than 3 messages") as refused:
            BODIES[route].model_validate({"messages": [item] * 4}, strict=True, context=RequestLimits(messages=3))
        assert len([one for one in refused.value.errors() if one["loc"] == ("messages",)]) == 1


def test_too_many_fields_are_refused_whether_known_or_not(server: Server) -> None:
    many = {f"field_{number}": number for number in range(2000)}
    for body in ({"messages": [USER]} | many, {"messages": [USER | many]}):
        assert "more than 1024 fields" in error_of(server.client.post(CHAT, json=body), 422)["message"]


# What cannot fit is not computed.


def call_message(arguments: str) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}]}


RIVER = "the river runs " * 40_000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("route", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": RIVER}]}),
        (CHAT, {"messages": [{"role": "assistant", "content": RIVER[:9000]}, USER] * 60}),
        ("/v1/completions", {"prompt": RIVER}),
        ("/v1/completions", {"prompt": [1] * 100_000}),
        ("/completion", {"prompt": [1, RIVER, 2]}),
        ("/v1/responses", {"input": RIVER, "store": False}),
        ("/v1/messages", {"messages": [{"role": "user", "content": RIVER}]}),
        (CHAT, {"messages": [USER, call_message("[" + "1," * 300_000 + "1]"), USER]}),
    ],
)
def test_a_long_prompt_is_refused_with_what_it_has_at_least(
    server: Server, route: str, body: dict[str, Any], stream: bool
) -> None:
    answer = server.client.post(route, json=body | {"stream": stream})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["n_prompt_tokens"] > error["n_ctx"] == 8192


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/tokenize", {"content": RIVER}),
        ("/tokenize", {"content": ["a", 1, RIVER]}),
        ("/v1/chat/completions/input_tokens", {"messages": [{"role": "user", "content": RIVER}]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": RIVER}]}),
        ("/v1/responses/input_tokens", {"input": RIVER}),
        ("/v1/chat/completions/input_tokens", {"messages": [USER, call_message(f'{{"a": "{RIVER}"}}'), USER]}),
        ("/apply-template", {"messages": [USER, call_message(f'{{"a": "{RIVER}"}}'), USER]}),
        ("/v1/chat/completions", {"messages": [USER], "logit_bias": [[RIVER, 1]]}),
    ],
)
def test_a_very_long_text_is_not_tokenized(server: Server, route: str, body: dict[str, Any]) -> None:
    assert code_of(server.client.post(route, json=body), 422) in {"text_too_long", "invalid_request_error"}


@pytest.mark.parametrize(
    "wish",
    [{"regex": "a" * 300_000}, {"grammar": "#" * 300_000}, {"choice": ["abcdefgh"] * 40_000}],
    ids=["regex", "grammar", "choice"],
)
def test_a_very_long_grammar_is_not_compiled(server: Server, wish: dict[str, Any]) -> None:
    error = error_of(server.client.post(CHAT, json={"messages": [USER]} | wish), 422)
    assert error["param"] == next(iter(wish))


def test_too_many_tokens_are_not_embedded_in_one_request(server: Server) -> None:
    inputs = [[1] * 8000] * 60 + [RIVER[:20_000]] * 1000
    error = error_of(server.client.post("/v1/embeddings", json={"input": inputs}), 422)
    assert (error["param"], "1048576" in error["message"]) == ("input", True)


def test_a_text_of_some_contexts_is_tokenized(server: Server) -> None:
    answer = server.client.post("/tokenize", json={"content": RIVER[: 2**18]})
    assert len(answer.json()["tokens"]) > 8192 * 4


# Clients that go in the middle, or never come to the end.


def head(route: str, *headers: str) -> bytes:
    lines = (f"POST {route} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers)
    return "\r\n".join([*lines, "", ""]).encode()


def test_who_hangs_up_in_mid_body_is_no_error_on_any_route(server: Server) -> None:
    address = (httpx.URL(server.url).host, httpx.URL(server.url).port)
    failures = server.client.get("/metrics").text.count('status="500"')
    for place, route in enumerate(EVERY):
        for kind, rest in (("Content-Length: 9000", b'{"model": "a'), ("Transfer-Encoding: chunked", b'9\r\n{"a": ')):
            identity = f"mid-body-{place}-{kind[0]}"
            with closing(socket.create_connection(address, timeout=10)) as connection:
                connection.sendall(head(route, kind, f"X-Request-Id: {identity}") + rest)
                if kind[0] == "T":  # reset rather than close
                    linger = b"\1\0\0\0\0\0\0\0"
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def gone() -> dict[str, int]:
        return {line["request_id"]: line["status"] for line in server.logged("request") if is_gone(line)}

    def is_gone(line: dict[str, Any]) -> bool:
        return str(line.get("request_id", "")).startswith("mid-body-")

    wait_for(lambda: len(gone()) >= 2 * len(EVERY), what="the lines of all of them")
    assert set(gone().values()) == {499}
    assert not [line for line in server.errors() if "mid-body-" in line]
    assert server.client.get("/metrics").text.count('status="500"') == failures


def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_SECONDS", 0.01)
    application = create_app(Settings(), ModelService(Settings()))

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"model": "'
        await asyncio.Event().wait()

    for route in ("/v1/chat/completions", "/tokenize", "/start"):
        answer = ask(application, lambda client, route=route: client.post(route, content=endless()))
        assert code_of(answer, 408) == "request_timeout"


# All bodies together.


def test_bodies_that_take_too_much_together_are_refused_until_one_is_over() -> None:
    sizes = Settings(max_body=2**20, max_values=1000)
    budget = BodyBudget(sizes)
    largest = cost(sizes.max_body, sizes.max_values)
    first: Any = {"state": {}}
    second: Any = {"state": {}}

    async def go() -> None:
        async def application(scope: Any, *_: Any) -> None:
            budget.take(scope, largest // 2)
            budget.take(scope, largest)  # in all, not more of it
            with pytest.raises(Unavailable) as refused:
                budget.take(second, 1)
            assert (refused.value.code, refused.value.retry_after) == ("busy", 1)

        await budget.around(application)(first, None, None)  # type: ignore[arg-type]
        budget.take(second, largest)

    asyncio.run(go())


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_body_took_is_free_again_however_its_request_ends(fails: bool) -> None:
    application = create_app(Settings(max_body=2**20, max_values=20_000), ModelService(Settings()))
    text = "x" * 900_000
    body: dict[str, Any] = {"messages": [USER], "user": text} if fails else {"conversation_ids": [], "more": text}
    route = CHAT if fails else "/v1/streams/lookup"
    for _ in range(10):
        answer = ask(application, lambda client: client.post(route, json=body))
        assert answer.status_code == (400 if fails else 200), answer.text  # no model is loaded


# The worst, on a server of its own.


def items(size: int, item: bytes, before: bytes, after: bytes) -> bytes:
    return before + b",".join([item] * (size // (len(item) + 1))) + after


HOSTILE: dict[str, Callable[[], bytes]] = {
    "nested": lambda: b'{"messages":[' + b"[[[[[[[[]]]]]]]]," * 1_700_000 + b"1]}",
    "objects": lambda: items(30_000_000, b'{"a":1}', b'{"messages":[', b"]}"),
    "messages": lambda: items(30_000_000, b'{"role":"user","content":"x"}', b'{"messages":[', b"]}"),
    "tools": lambda: items(30_000_000, b'{"function":{"name":"a"}}', b'{"messages":[{"role":"user"}],"tools":[', b"]}"),
    "ids": lambda: items(30_000_000, b"12", b'{"prompt":[', b"]}"),
    "nothings": lambda: items(2_400_000, b"null", b'{"prompt":[', b"]}"),
    "digits": lambda: b'{"prompt":[' + b"9" * 30_000_000 + b"]}",
    "numbers": lambda: items(30_000_000, b"9" * 4200, b'{"prompt":[', b"]}"),
    "strings": lambda: items(30_000_000, b'"a"', b'{"prompt":[', b"]}"),
    "key": lambda: b'{"' + b"k" * 30_000_000 + b'":1}',
    "same keys": lambda: items(30_000_000, b'"k":1', b"{", b"}"),
    "keys": lambda: b"{" + b",".join(b'"k%d":1' % number for number in range(240_000)) + b"}",
    "escapes": lambda: b'{"model":5,"a":"' + b"\\u0041" * 5_000_000 + b'"}',
    "emoji": lambda: '{"model":5,"a":"😀'.encode() + b"a" * 30_000_000 + b'"}',
    "arguments": lambda: json.dumps({"messages": [USER, call_message("[" + "1," * 15_000_000 + "1]"), USER]}).encode(),
    "bomb": lambda: gzip.compress(b'{"a":"' + b"a" * 200_000_000 + b'"}', 1),
}


@pytest.fixture(scope="module")
def besieged(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("besieged"), "--model", str(tiny)) as server:
        yield server
        assert server.errors() == []
        assert server.chat(max_tokens=2).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_hostile_body_takes_the_server_down(besieged: Server, kind: str) -> None:
    sent = HOSTILE[kind]()
    headers = {"Content-Encoding": "gzip"} if kind == "bomb" else {}
    process = psutil.Process(besieged.process.pid)
    for route in EVERY if kind in {"nested", "emoji", "bomb"} else (CHAT, "/v1/completions", "/tokenize"):
        answers: list[httpx.Response] = []

        def send(route: str = route, answers: list[httpx.Response] = answers) -> None:
            answers.append(httpx.post(besieged.url + route, content=sent, headers=headers, timeout=120))

        asking = threading.Thread(target=send)
        asking.start()
        pings = 0
        while asking.is_alive():
            assert besieged.client.get("/ping").status_code == 200
            assert process.memory_info().rss < 700 * 2**20
            pings += 1
        asking.join()
        assert pings
        assert answers[0].status_code in {400, 413, 422}, answers[0].text[:300]


@pytest.mark.slow
def test_many_large_bodies_at_once_are_bounded_and_others_are_answered(besieged: Server) -> None:
    sent = b'{"messages":[{"role":"user","content":"' + b"the river runs " * 2_000_000 + b'"}]}'
    statuses: list[int] = []

    def send() -> None:
        statuses.append(httpx.post(besieged.url + CHAT, content=sent, timeout=120).status_code)

    asking = [threading.Thread(target=send) for _ in range(10)]
    for one in asking:
        one.start()
    while any(one.is_alive() for one in asking):
        assert besieged.client.get("/ping").status_code == 200
        assert psutil.Process(besieged.process.pid).memory_info().rss < 1200 * 2**20
    assert len(statuses) == 10
    assert set(statuses) <= {400, 503}
    assert 400 in statuses
