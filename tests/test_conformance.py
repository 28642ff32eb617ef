"""What the tables of docs/compatibility.md say of fields inside of parameters is what the server does."""

from typing import Any

import pytest

from app.dto.shared import fields
from tests.conftest import Server
from tests.routes import STREAMS

USER = {"role": "user", "content": "Hi"}
BASES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [USER], "max_tokens": 1},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 1},
    "/completion": {"prompt": "Hi", "n_predict": 1},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1, "store": False},
    "/v1/messages": {"messages": [USER], "max_tokens": 1},
    "/api/chat": {"model": "tiny", "messages": [USER], "options": {"num_predict": 1}},
    "/api/generate": {"model": "tiny", "prompt": "Hi", "options": {"num_predict": 1}},
}
CASES = [
    pytest.param(route, field, id=f"{route} {field.name}")
    for route, registry in fields.REGISTRIES.items()
    for field in registry
]


@pytest.mark.parametrize(("route", "field"), CASES)
def test_a_field_is_treated_as_the_table_says(server: Server, route: str, field: fields.Field) -> None:
    answer = server.client.post(route, json=BASES[route] | field.example)
    top = next(iter(set(field.example) - {"stream"}))
    if field.treatment == "refused":
        assert answer.status_code in {400, 422}, answer.text
        error = answer.json()["error"]
        if isinstance(error, str):  # Ollama's
            assert error.startswith(top)
            return
        assert error["message"]
        assert "param" not in error or error["param"].startswith(top)  # Anthropic's errors have none
        return
    assert answer.status_code == 200, answer.text
    named = {name for name in answer.headers.get("x-tiles-ignored", "").split(", ") if name}
    assert named == (set(ignored(field.name)) if field.treatment == "ignored" else set())


def ignored(name: str) -> list[str]:
    """What the header calls the fields of a row: `messages[].content[].a, b` is two of them."""
    first, *more = (
        name.replace("[]", "").replace(" of any other type", f".{fields.MADE_UP}").replace(" of type ", ".").split(", ")
    )
    return [first, *(f"{first.rpartition('.')[0]}.{other}" for other in more)]


def test_every_streaming_dialect_has_a_table() -> None:
    other = {"/infill", "/completions", "/chat/completions", "/responses"}  # another path, or no fields inside
    assert {route for route in STREAMS if not route.startswith("/v1/stream")} <= set(fields.REGISTRIES) | other


@pytest.mark.parametrize("route", fields.REGISTRIES)
def test_unknown_fields_are_named_however_deep_they_are(server: Server, route: str) -> None:
    deep: dict[str, Any] = {
        "/v1/chat/completions": {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "novel": 1}], "fresh": 2}] * 3
        },
        "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi", "novel": 1}]}]},
        "/v1/messages": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "novel": 1}]}]},
        "/api/chat": {"messages": [USER | {"novel": 1}]},
        "/api/generate": {"options": {"num_predict": 1, "novel": 1}},
    }.get(route, {"prompt": [{"prompt_string": "Hi", "novel": 1}]})
    for more in ({}, {"stream": True}):
        named = server.client.post(route, json=BASES[route] | deep | more).headers["x-tiles-ignored"].split(", ")
        assert sum(name.endswith(".novel") for name in named) == 1
        assert all(name.rpartition(".")[2] in {"novel", "fresh"} for name in named)
