"""The generated document and the page that shows it."""

import json
import re
from typing import Any
from urllib.parse import urljoin

import jsonschema
import pytest
import yaml
from openapi_spec_validator import validate

from app.dto.shared.base import RequestBody
from app.dto.shared.parameters import CHAT, descriptions
from app.services.errors import every_error
from tests import documented
from tests.conftest import Server, events
from tests.document import DOCUMENT, resolved
from tests.routes import BODIES, LISTS, POSTS, STREAMS

OPERATIONS = [
    pytest.param(path, method, operation, id=f"{method} {path}")
    for path, methods in sorted(DOCUMENT["paths"].items())
    for method, operation in sorted(methods.items())
]
every_operation = pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)

GENERATE = {
    "Chat",
    "Responses",
    "Messages",
    "Completions",
    "Embeddings",
    "Decisions",
    "Tokens",
}  # what a model has to be there for
DELETIONS = {("delete", "/models")}  # that say once more in a body what is to go
# What is refused to everyone.
OFF = {*(f"/api/{name}" for name in ("pull", "push", "create", "copy", "delete"))}


def values(media: dict[str, Any]) -> list[Any]:
    return [example["value"] for example in media.get("examples", {}).values()]


def referred(thing: dict[str, Any]) -> dict[str, Any]:
    """What stands at the other end of a reference, or the thing itself."""
    if "$ref" not in thing:
        return thing
    _, _, kind, name = thing["$ref"].split("/")
    there: dict[str, Any] = DOCUMENT["components"][kind][name]
    return there


def is_sentence(text: str) -> bool:
    first, *others = text.split()
    return (first[0].isupper() or not first.isalpha()) and bool(others)


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
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(len(operation["tags"]) == 1 and set(operation["tags"]) <= tags for operation in operations)
    assert {tag for operation in operations for tag in operation["tags"]} == tags
    answers = [answer for operation in operations for answer in operation["responses"].values()]
    assert not any(answer["description"].startswith("Request fulfilled") for answer in answers)


def test_tags_tell_where_to_begin() -> None:
    names = [tag["name"] for tag in DOCUMENT["tags"]]
    apis = ["Chat", "Responses", "Messages", "Completions", "Embeddings", "Decisions", "Ollama"]
    assert names[:9] == [*apis, "Models", "Tokens"]
    assert names[-3:] == ["Operations", "Tiles", "Disabled"]
    assert all(is_sentence(tag["description"]) for tag in DOCUMENT["tags"])


@every_operation
def test_an_operation_says_what_it_does(path: str, method: str, operation: dict[str, Any]) -> None:
    summary = operation["summary"]
    assert is_sentence(summary) and len(summary) <= 50 and not summary.endswith(".")
    assert is_sentence(operation["description"]) and operation["description"].endswith(".")


@every_operation
def test_a_parameter_is_described(path: str, method: str, operation: dict[str, Any]) -> None:
    parameters = [referred(parameter) for parameter in operation["parameters"]]
    assert all(is_sentence(parameter["description"]) for parameter in parameters)
    headers = {parameter["name"] for parameter in parameters if parameter["in"] == "header"}
    chat = path in {"/v1/chat/completions", "/chat/completions"}
    models = method == "get" and path in {"/v1/models", "/models", "/v1/models/{model_id}"}
    own = {"X-Conversation-Id"} if chat else {"anthropic-version"} if models else set()
    own |= {"X-Confirm-Delete"} if (method, path) == ("delete", "/models") else set()
    assert headers == {"X-Request-Id"} | own


@every_operation
def test_headers_stand_on_the_answers_that_carry_them(path: str, method: str, operation: dict[str, Any]) -> None:
    names_ignored = method == "post" and path in BODIES and issubclass(BODIES[path], RequestBody)
    for status, answer in operation["responses"].items():
        expected = {"X-Request-Id"} | ({"X-Tiles-Ignored"} if names_ignored and status == "200" else set())
        assert set(answer["headers"]) == expected | ({"Retry-After"} if status == "503" else set())
        assert all(is_sentence(referred(header)["description"]) for header in answer["headers"].values())


def test_nearly_every_property_is_described() -> None:
    properties = {
        f"{name}.{field}": part
        for name, schema in DOCUMENT["components"]["schemas"].items()
        for field, part in schema.get("properties", {}).items()
    }
    bare = [name for name, part in properties.items() if not part.get("description")]
    assert len(properties) > 900
    assert len(bare) <= 0.05 * len(properties), bare
    assert all(is_sentence(part["description"]) for part in properties.values() if "description" in part)


def test_a_parameter_of_a_request_has_the_words_of_its_registry_its_default_and_its_bounds() -> None:
    schema = DOCUMENT["components"]["schemas"]["ChatRequest"]["properties"]
    notes = descriptions(CHAT)
    assert {name for name, part in schema.items() if part["description"].lower() == notes[name].lower()} == set(schema)
    assert schema["xtc_threshold"]["default"] == 0.1
    assert (schema["temperature"]["minimum"], schema["temperature"]["maximum"]) == (0, 100)
    assert schema["n"]["default"] == 1


def test_the_document_is_there_as_yaml_too(guarded: Server) -> None:
    answer = guarded.client.get("/schema/openapi.yaml", headers={"authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in Python takes two seconds
    assert yaml.load(answer.text, loader) == guarded.client.get("/schema/openapi.json").json()


@every_operation
def test_a_body_is_typed_and_its_examples_are_taken(path: str, method: str, operation: dict[str, Any]) -> None:
    if method != "post" or path not in BODIES:
        assert ("requestBody" in operation) == ((method, path) in {("post", one) for one in LISTS} | DELETIONS)
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
    if path == "/cors-proxy":
        assert set(content) == {"*/*"}  # what another server says
        return
    if path in {"/v1/stream", "/models/sse"}:
        assert set(content) == {"text/event-stream"}
        return
    streamed = "application/x-ndjson" if path.startswith("/api/") else "text/event-stream"
    assert set(content) == {"application/json", *([streamed] if path in STREAMS else [])}
    media = content["application/json"]
    assert media["schema"]
    assert values(media)
    for value in values(media):
        jsonschema.validate(value, resolved(media["schema"]))
    if path in STREAMS:
        stream = content[streamed]
        (text,) = values(stream)
        if path.startswith("/api/"):
            for line in text.splitlines():
                jsonschema.validate(json.loads(line), resolved(stream["schema"]))
            return
        chunks = text.removesuffix("\n\n").split("\n\n")
        named_events = path in {"/v1/responses", "/responses", "/v1/messages"}
        native = path in {"/completion", "/completions", "/infill"}
        if not native and not named_events:
            assert chunks.pop() == "data: [DONE]"
        assert chunks
        for chunk in chunks:
            name, _, data = chunk.rpartition("data: ")
            jsonschema.validate(json.loads(data), resolved(stream["schema"]))
            assert name == (f"event: {json.loads(data)['type']}\n" if named_events else "")


@every_operation
def test_errors_have_the_envelope_and_an_example_each(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    expected = {"401", "403", "500", "503"}
    expected |= {"408", "413", "415", "422"} if path in BODIES and method == "post" else set()
    generates = operation["tags"][0] in GENERATE and path in BODIES and method == "post"
    expected |= {"400", "404"} if generates else set()
    assert expected <= set(responses)
    assert set(responses) - {"200", "204"} <= {
        *("400", "401", "403", "404", "408", "413", "415", "422", "500", "501", "502", "503", "507")
    }
    for status, response in responses.items():
        if status in {"200", "204"}:
            continue
        media = response["content"]["application/json"]
        anthropics = path.startswith("/v1/messages")
        own = "Anthropic" if anthropics else "Ollama" if path.startswith("/api/") else ""
        assert named(media["schema"]) == f"{own}ErrorReply"
        assert values(media), status
        for value in values(media):
            jsonschema.validate(value, resolved(media["schema"]))
            if own != "Ollama":
                assert set(value["error"]) >= {"message", "type"} | (set() if anthropics else {"param", "code"})


def test_every_error_stands_at_an_operation_and_no_other_does() -> None:
    responses = [response for param in OPERATIONS for response in param.values[2]["responses"].items()]
    documented_codes = {
        (int(status), code)
        for status, body in responses
        if int(status) >= 400
        for code in documented.codes(body)
        if code
    }
    errors = {(error.status, error.code) for error in every_error() if error.code}
    assert {code for _, code in errors - documented_codes} == documented.WITHOUT_ROUTE
    assert documented_codes <= errors


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
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["x-api-key"]["in"], schemes["x-api-key"]["name"]) == ("header", "x-api-key")
    assert DOCUMENT["security"] == [{"bearer": []}, {"x-api-key": []}, {}]


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    page = server.client.get("/schema")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    references = re.findall(r"""(?:src|href|url)\s*[=:(]\s*["']?([^"'\s>)]+)""", page.text)
    files = [reference for reference in references if not reference.startswith(("data:", "#"))]
    assert len([reference for reference in files if reference.endswith((".js", ".css"))]) >= 3
    for reference in files:
        address = urljoin("/schema", reference)
        assert address.startswith(("/schema", "/home")), reference
        assert server.client.get(address).status_code == 200, reference
    assert not re.search(
        r"https?://(?!www\.w3\.org|localhost|hub\.example)",
        page.text,
    )


@pytest.mark.parametrize("path", ["/schema", "/schema/swagger"])
def test_the_page_is_there_without_a_key(guarded: Server, path: str) -> None:
    assert guarded.client.get(path).status_code == 200
    assert guarded.client.get("/schema/openapi.json").status_code == 200
