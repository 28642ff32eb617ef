"""Half an emoji in a body becomes the replacement character: a client that sends it once sends it again and again."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.controllers.body import decode
from app.controllers.half_characters import replace_halves
from app.services.errors import UnprocessableBody
from tests.conftest import Server

HALVES = st.text(st.sampled_from('a\\"u/\n\ud83d\ude00\udbff\udc00\ud800d83é😀'), max_size=12)
VALUES = st.recursive(
    HALVES | st.integers(0, 9), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HALVES, inner, max_size=3)
)


def whole(value: Any) -> Any:
    """What a value becomes: halves that meet in a text are one character, every other is replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {whole(name): whole(item) for name, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=100, deadline=None)
@given(VALUES, st.booleans())
def test_every_half_in_texts_and_names_is_replaced(value: Any, upper: bool) -> None:
    text = json.dumps({"value": value})
    if upper:
        text = text.replace("\\ud", "\\uD").replace("\\\\uD", "\\\\ud")
    assert decode(text.encode()) == whole(json.loads(text))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20))
def test_what_has_no_halves_stays_byte_for_byte(text: str) -> None:
    for body in (json.dumps(text).encode(), text.encode()):
        assert replace_halves(body) == body


@pytest.mark.parametrize(
    "body", [b'{"a": "\\ud83d', b'{"a": "\\ud83', b'{"a": "\\', b'{"a": \\ud83d}', b'{"a": "\\ud83d" "b"}']
)
def test_broken_json_with_halves_is_still_refused(body: bytes) -> None:
    with pytest.raises(UnprocessableBody) as refusal:
        decode(body)
    assert refusal.value.code == "invalid_json"


def test_a_long_body_with_many_halves_is_gone_through_once() -> None:
    body = b'{"a": "' + b"\\\\x\\n\\ud83d\\ude00 word " * 100_000 + b"\\ud83d" * 100_000 + b'"}'
    assert decode(body)["a"].count("\ufffd") == 100_000


@pytest.mark.parametrize("item", [b"\\ud83d", b"\\ud83da", b"\\udc00\\ud83d\\ude00", b"\\n"])
def test_a_body_of_halves_takes_little_more_room_than_it_has_bytes(item: bytes) -> None:
    body = item * (140_000 // len(item))
    tracemalloc.start()
    replace_halves(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(body)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/chat/completions", b'{"max_tokens": 1, "messages": [{"role": "user", "content": "cut \\ud83d"}]}'),
        ("/v1/completions", b'{"max_tokens": 1, "prompt": "cut \\ud83d off"}'),
        ("/completion", b'{"n_predict": 1, "prompt": "\\ude00 cut"}'),
        ("/v1/responses", b'{"max_output_tokens": 1, "store": false, "input": "cut \\ud83d"}'),
        ("/v1/messages", b'{"max_tokens": 1, "messages": [{"role": "user", "content": "cut \\ud83d"}]}'),
        ("/v1/messages/count_tokens", b'{"messages": [{"role": "user", "content": "cut \\ud83d\\ud83d"}]}'),
        ("/v1/embeddings", b'{"input": "cut \\ud83d"}'),
        ("/tokenize", b'{"content": "cut \\ud83d"}'),
    ],
)
def test_every_route_answers_half_an_emoji(server: Server, route: str, body: bytes) -> None:
    assert server.client.post(route, content=body).status_code == 200
