"""The generated document and the page that shows it."""

import json
import re
from typing import Any
from urllib.parse import urljoin

import jsonschema
import pytest
from openapi_spec_validator import validate

from tests.conftest import Server, events
from tests.document import DOCUMENT, resolved
from tests.routes import BODIES, LISTS, POSTS, STREAMS

OPERATIONS = [
    pytest.param(path, method, operation, id=f"{method} {path}")
    for path, methods in sorted(DOCUMENT["paths"].items())
    for method, operation in sorted(methods.items())
]
every_operation = pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)

OFF = {"/tools", "/cors-proxy", "/models"}  # what is refused to everyone, of /models all but GET


def values(media: dict[str, Any]) -> list[Any]:
    return [example["value"] for example in media.get("examples", {}).values()]


def named(schema: dict[str, Any]) -> str:
    whole = schema.get("allOf") or schema.get("oneOf") or [schema]
    return str(schema.get("$ref") or whole[0]["$ref"]).rsplit("/", 1)[-1]


def test_the_document_validates() -> None:
    validate(json.loads(json.dumps(DOCUMENT)))


def test_the_document_is_served_as_it_is_made(server: Server) -> None:
    answer = server.client.get("/schema/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(DOCUMENT))


def test_every_route_of_the_contract_is_in_it() -> None:
    contract = {"/v1/responses", "/ping", "/health", "/v1/health", "/start", "/props", "/models/load", "/models/unload"}
    assert contract | {"/v1/models", "/models", "/v1/models/{model_id}"} | STREAMS <= set(DOCUMENT["paths"])


def test_operations_are_named_once_and_tagged() -> None:
    operations = [param.values[2] for param in OPERATIONS]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    known = {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(len(operation["tags"]) == 1 and set(operation["tags"]) <= known for operation in operations)
    assert {tag for operation in operations for tag in operation["tags"]} == known
    assert all(re.fullmatch(r"[A-Z][a-z]+( [a-z]+)+", operation["summary"]) for operation in operations)
    assert all(operation["description"] for operation in operations)
    answers = [answer for operation in operations for answer in operation["responses"].values()]
    assert not any(answer["description"].startswith("Request fulfilled") for answer in answers)
    assert all(tag["description"] for tag in DOCUMENT["tags"])


@every_operation
def test_a_body_is_typed_and_its_examples_are_taken(path: str, method: str, operation: dict[str, Any]) -> None:
    if method != "post" or path not in BODIES:
        assert ("requestBody" in operation) == (method == "post" and path in LISTS)
        return
    media = operation["requestBody"]["content"]["application/json"]
    assert operation["requestBody"]["required"] is (path != "/slots/{id_slot}")
    assert named(media["schema"]) == BODIES[path].__name__
    assert media["schema"]["examples"]
    for value in media["schema"]["examples"]:
        BODIES[path].model_validate(value)
        jsonschema.validate(value, resolved(media["schema"]))


@every_operation
def test_the_answer_is_typed_and_its_example_is_one(path: str, method: str, operation: dict[str, Any]) -> None:
    if "200" not in operation["responses"]:
        assert path in OFF or (method == "delete" and "content" not in operation["responses"]["204"])
        return
    content = operation["responses"]["200"]["content"]
    if path == "/metrics":
        assert all(name.startswith("text/plain") for name in content)
        return
    if path in {"/v1/stream", "/models/sse"}:
        assert set(content) == {"text/event-stream"}
        return
    assert set(content) == {"application/json", *(["text/event-stream"] if path in STREAMS else [])}
    media = content["application/json"]
    assert media["schema"]
    assert values(media)
    for value in values(media):
        jsonschema.validate(value, resolved(media["schema"]))
    if path in STREAMS:
        stream = content["text/event-stream"]
        (text,) = values(stream)
        chunks = text.removesuffix("\n\n").split("\n\n")
        named_events = path in {"/v1/responses", "/responses", "/v1/messages"}
        if operation["tags"] != ["llama.cpp"] and not named_events:
            assert chunks.pop() == "data: [DONE]"
        assert chunks
        for chunk in chunks:
            name, _, data = chunk.rpartition("data: ")
            jsonschema.validate(json.loads(data), resolved(stream["schema"]))
            assert name == (f"event: {json.loads(data)['type']}\n" if named_events else "")


@every_operation
def test_errors_have_the_envelope_and_an_example_each(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    expected = {"401", "403", "500"} | ({"408", "413", "415", "422"} if path in BODIES and method == "post" else set())
    generates = operation["tags"][0] in {"OpenAI", "llama.cpp", "Anthropic"} and path in BODIES and method == "post"
    expected |= {"400", "503"} if generates else set()
    assert expected <= set(responses)
    assert set(responses) - {"200", "204"} <= {
        *("400", "401", "403", "404", "408", "413", "415", "422", "500", "501", "503")
    }
    for status, response in responses.items():
        if status in {"200", "204"}:
            continue
        media = response["content"]["application/json"]
        anthropics = path.startswith("/v1/messages")
        assert named(media["schema"]) == ("AnthropicErrorReply" if anthropics else "ErrorReply")
        assert values(media), status
        for value in values(media):
            jsonschema.validate(value, resolved(media["schema"]))
            assert set(value["error"]) >= {"message", "type"} | (set() if anthropics else {"param", "code"})


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/models", "ModelList"), ("/props", "Props"), ("/health", "Health"), ("/ping", "Pong")]
)
def test_what_is_really_answered_is_what_is_described(server: Server, path: str, name: str) -> None:
    schema = DOCUMENT["components"]["schemas"][name]
    jsonschema.validate(server.client.get(path).json(), resolved(schema))


def test_a_real_chat_is_what_is_described(server: Server) -> None:
    schemas = DOCUMENT["components"]["schemas"]
    jsonschema.validate(server.chat(max_tokens=3).json(), resolved(schemas["ChatCompletion"]))
    options = {"include_usage": True}
    chunks = server.stream(max_tokens=3, stream_options=options, return_progress=True, timings_per_token=True)
    for chunk in chunks:
        jsonschema.validate(chunk, resolved(schemas["ChatCompletionChunk"]))
    refusal = server.chat(temperature=-1).json()
    jsonschema.validate(refusal, resolved(schemas["ErrorReply"]))


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/completions", {"prompt": ["Hi", "Ho"], "n": 2, "logprobs": 1, "max_tokens": 2}, "TextCompletion"),
        ("/completion", {"prompt": "Hi", "n_predict": 2, "n_probs": 1, "return_tokens": True}, "NativeCompletion"),
        ("/tokenize", {"content": "Hi 😀", "with_pieces": True}, "Tokens"),
        ("/detokenize", {"tokens": [1, 2]}, "Detokenized"),
        ("/apply-template", {"messages": [{"role": "user", "content": "Hi"}]}, "TemplatedPrompt"),
        ("/v1/chat/completions/input_tokens", {"messages": [{"role": "user", "content": "Hi"}]}, "InputTokens"),
    ],
)
def test_what_is_really_posted_is_what_is_described(server: Server, path: str, body: Any, name: str) -> None:
    schemas = DOCUMENT["components"]["schemas"]
    answer = server.client.post(path, json=body)
    assert answer.status_code == 200
    jsonschema.validate(answer.json(), resolved(schemas[name]))
    if path in STREAMS:
        more = {"stream": True, "return_progress": True, "timings_per_token": True}
        streamed = server.client.post(path, json=body | more).text
        *chunks, last = events(streamed, ended="[DONE]" in streamed)
        piece = "TextCompletionChunk" if path.startswith("/v1") else "NativeChunk"
        for chunk in chunks:
            jsonschema.validate(chunk, resolved(schemas[piece]))
        jsonschema.validate(last, resolved(schemas[name]))


def test_the_routes_are_told_apart() -> None:
    assert {"/v1/completions", "/completion", "/infill"} | {"/v1/chat/completions"} <= STREAMS
    assert {"/tokenize", "/start"} & STREAMS == set()
    assert len(POSTS) >= 14


def test_a_key_can_be_given() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert {(scheme["type"], scheme["scheme"]) for scheme in schemes.values()} == {("http", "bearer")}
    assert {} in DOCUMENT["security"]


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    page = server.client.get("/schema")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    references = re.findall(r"""(?:src|href|url)\s*[=:(]\s*["']?([^"'\s>)]+)""", page.text)
    files = [reference for reference in references if not reference.startswith(("data:", "#"))]
    assert len([reference for reference in files if reference.endswith((".js", ".css"))]) >= 3
    for reference in files:
        address = urljoin("/schema", reference)
        assert address.startswith("/schema"), reference
        assert server.client.get(address).status_code == 200, reference
    assert not re.search(
        r"https?://(?!www\.w3\.org|localhost)", re.sub(r"<script>.*?</script>", "", page.text, flags=re.DOTALL)
    )


@pytest.mark.parametrize("path", ["/schema", "/schema/swagger"])
def test_the_page_is_there_without_a_key(guarded: Server, path: str) -> None:
    assert guarded.client.get(path).status_code == 200
    assert guarded.client.get("/schema/openapi.json").status_code == 200


def test_the_front_door_says_what_is_loaded(server: Server) -> None:
    page = server.client.get("/")
    assert page.status_code == 200
    assert "tiny is loaded" in page.text
    icon, *references = re.findall(r'href="([^"]+)"', page.text)
    assert icon.startswith("data:image/svg+xml,")  # or a browser asks for /favicon.ico, and logs that there is none
    for reference in references:
        assert server.client.get(reference).status_code == 200
