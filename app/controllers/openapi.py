"""What the generated OpenAPI document says beyond types: event streams, errors, examples, and the page to read it."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import openapi_ui_bundles.swagger_ui
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import (
    Components,
    Example,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    Schema,
    SecurityScheme,
    Tag,
)
from litestar.openapi.spec import RequestBody as RequestBodySpec
from litestar.openapi.spec.base import BaseSchemaObject
from litestar.params import QueryParameter
from litestar.router import Router
from litestar.static_files import create_static_files_router

from app import __version__
from app.controllers.openapi_schemas import sentence
from app.dto.shared.base import Body, RequestBody
from app.services.ui import own_pages

_STATIC = "/schema/static"
_DESCRIPTION = """MLX language models behind one HTTP API: OpenAI's chat completions, Responses, completions,
embeddings and decisions, Anthropic's Messages, llama-server's routes, the llama.cpp Web UI, and the Tiles CLI.

Begin with `POST /v1/chat/completions`. Where the server has a key, press *Authorize* first.

Every error has the same envelope, `{"error": {"message", "type", "param", "code"}}` (the Messages API has Anthropic's
own). A request that cannot be read as HTTP gets a 400, 408, 414 or 431 before its route is known. Every answer carries
`X-Request-Id`; parameters without effect are named in `X-Tiles-Ignored`. In a body, null means the same as an absent
field."""

_TAGS = {
    "Chat": "Answer a conversation the way OpenAI's clients ask for it. Begin here.",
    "Responses": "OpenAI's Responses: conversations of items, which this machine can store and go on with.",
    "Messages": "Anthropic's Messages, for Claude's clients with `ANTHROPIC_BASE_URL` pointed here.",
    "Completions": "Continue a prompt as it is, without a chat template, as OpenAI and llama.cpp have it.",
    "Embeddings": "Turn texts into vectors, as OpenAI and llama.cpp have it.",
    "Decisions": "Questions about a text, answered by how likely each answer is, as OpenAI and llama-server have it.",
    "Ollama": "Ollama's API, for programs that know nothing else: point them here instead of at port 11434.",
    "Models": "Which models there are, what they can do, and which of them are in memory.",
    "Tokens": "Text to tokens and back, and how many of them a conversation has.",
    "Streams": "Find a streamed answer again, go on reading it, stop it, or end its reasoning.",
    "Operations": "Health and metrics, the slots that answers run in, and the scales of LoRA adapters.",
    "Tiles": "Sessions of the Tiles CLI.",
    "Disabled": "What llama-server offers its Web UI and this server does not, or only if it is started so.",
}
_REQUEST_ID = OpenAPIHeader(
    schema=Schema(type=OpenAPIType.STRING),
    description="Id of the request, as in the server's log: the one that was sent, if it could be used, else a new one",
)
_IGNORED = OpenAPIHeader(
    schema=Schema(type=OpenAPIType.STRING),
    description="Names of parameters of the body that had no effect, comma-separated; absent where there are none",
)
_RETRY_AFTER = OpenAPIHeader(schema=Schema(type=OpenAPIType.INTEGER), description="Seconds after which to try again")
_HEADERS = {"X-Request-Id": _REQUEST_ID, "X-Tiles-Ignored": _IGNORED, "Retry-After": _RETRY_AFTER}
_PARAMETERS: dict[str, Parameter | Reference] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            name="X-Request-Id",
            param_in="header",
            schema=Schema(type=OpenAPIType.STRING),
            description="Id of the request for the server's log; up to 128 letters, digits and -_.: are taken",
        ),
        Parameter(
            name="X-Conversation-Id",
            param_in="header",
            schema=Schema(type=OpenAPIType.STRING),
            description="Id of the conversation, up to 512 characters. A stream with it outlives its reader; "
            "GET /v1/stream reads it again",
        ),
        Parameter(
            name="anthropic-version",
            param_in="header",
            schema=Schema(type=OpenAPIType.STRING),
            description="With any value the answer, and every error, is as Anthropic's clients read it",
        ),
        Parameter(
            name="X-Confirm-Delete",
            param_in="header",
            schema=Schema(type=OpenAPIType.STRING),
            description="The name of the model that is to be deleted, as in the body",
        ),
        Parameter(
            name="autoload",
            param_in="query",
            schema=Schema(type=OpenAPIType.BOOLEAN, default=True),
            description="With --models-dir: false refuses a request whose model would have to be loaded first",
        ),
    )
}

ModelName = Annotated[str | None, QueryParameter(description="which model is meant, with --models-dir")]


def config() -> OpenAPIConfig:
    """Describe the document and the page at /schema, which loads nothing from elsewhere."""
    return OpenAPIConfig(
        title="Tiles Server",
        version=__version__,
        description=_DESCRIPTION,
        path="/schema",
        render_plugins=[_Page(path="/swagger")],
        use_handler_docstrings=True,
        components=Components(
            headers=dict(_HEADERS),
            parameters=dict(_PARAMETERS),
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer", description="A key of --api-key"),
                "x-api-key": SecurityScheme(
                    type="apiKey",
                    name="x-api-key",
                    security_scheme_in="header",
                    description="The same, as Anthropic's clients send it",
                ),
            },
        ),
        security=[{"bearer": []}, {"x-api-key": []}, {}],
        tags=[Tag(name=name, description=description) for name, description in _TAGS.items()],
    )


class _Page(OpenAPIRenderPlugin):
    """Swagger UI in the dress of the page at /; it asks for the document itself."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Give the page."""
        return own_pages.files()["schema.html"].path.read_bytes()


def page_files() -> Router:
    """Serve the files of Swagger UI."""
    folder = Path(openapi_ui_bundles.swagger_ui.static_path)
    return create_static_files_router(path=_STATIC, directories=[folder], include_in_schema=False)


def yaml_document() -> HTTPRouteHandler:
    """Serve the document as YAML. It is written once, beside the event loop."""
    cache: list[bytes] = []

    @get("/schema/openapi.yaml", media_type="application/yaml", include_in_schema=False)
    async def read_yaml(request: Request[Any, Any, Any]) -> bytes:
        if not cache:
            document = request.app.openapi_schema.to_schema()
            cache.append(await asyncio.to_thread(msgspec.yaml.encode, document))
        return cache[0]

    return read_yaml


class Verbatim(BaseSchemaObject):
    """A value that stands in the document as it is; Litestar would leave out every null."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def to_schema(self) -> Any:
        """Give the value."""
        return self._value


def operation(
    answer: Any,
    *,
    events: str | None = None,
    pieces: int = 1,
    event_type: str = "text/event-stream",
    headers: Sequence[str] = (),
    others: Mapping[str, Any] = MappingProxyType({}),
) -> type[Operation]:
    """Make an operation whose 200 has an example. With `events`, the last `pieces` branches of the answer's type are
    what a stream of `event_type` carries, and they are its example. `headers` are those of the request that have a
    meaning; `others` are further examples, by name."""

    @dataclass
    class Documented(Operation):
        def __post_init__(self) -> None:
            if isinstance(self.request_body, RequestBodySpec):
                _say_whether_required(self.request_body)
            for parameter in self.parameters or ():
                if isinstance(parameter, Parameter):
                    parameter.description = sentence(parameter.description or "")
            names = ("X-Request-Id", *headers, *(("autoload",) if _has_registry(self.request_body) else ()))
            references = (Reference(ref=f"#/components/parameters/{name}") for name in names)
            self.parameters = [*(self.parameters or ()), *references]
            responses: dict[str, Any] = self.responses or {}
            if _is_litestars(responses.get("400")):
                del responses["400"]
            if isinstance(response := responses.get("200"), OpenAPIResponse) and response.content:
                _document(response, {"answer": answer, **others}, events, pieces, event_type)
            if isinstance(empty := responses.get("204"), OpenAPIResponse):
                empty.content, empty.description = None, "Done; there is nothing to say"
            for status, response in responses.items():
                response.headers = {
                    name: Reference(ref=f"#/components/headers/{name}") for name in self._header_names(status)
                }

        def _header_names(self, status: str) -> Iterator[str]:
            """Name the headers of an answer."""
            yield "X-Request-Id"
            if status == "200" and _has_registry(self.request_body):
                yield "X-Tiles-Ignored"
            if status == "503":
                yield "Retry-After"

    return Documented


def _has_registry(body: Any) -> bool:
    """Whether the parameters of a body stand in a registry, so that those without effect can be named."""
    schemas = [media.schema for media in body.content.values()] if isinstance(body, RequestBodySpec) else []
    parts = [part for schema in schemas for part in (getattr(schema, "all_of", None) or [schema])]
    names = tuple(_registered_names(RequestBody))
    return any(isinstance(part, Reference) and part.ref.endswith(names) for part in parts)


def _registered_names(body: type[Body]) -> Iterator[str]:
    yield body.__name__
    for inner in body.__subclasses__():
        yield from _registered_names(inner)


def _say_whether_required(body: RequestBodySpec) -> None:
    """Litestar says that a body may be null where it may be left out."""
    for media in body.content.values():
        if isinstance(media.schema, Schema) and media.schema.one_of:
            branches = [part for part in media.schema.one_of if getattr(part, "type", None) != OpenAPIType.NULL]
            body.required = len(branches) == len(media.schema.one_of)
            media.schema.one_of = branches


def _is_litestars(response: Any) -> bool:
    """Whether this is the answer that Litestar gives to what does not validate; ours is a 422."""
    content = response.content if isinstance(response, OpenAPIResponse) else None
    return content is not None and isinstance(content["application/json"].schema, Schema)


def _document(
    response: OpenAPIResponse, answers: Mapping[str, Any], events: str | None, pieces: int, event_type: str
) -> None:
    assert response.content is not None
    response.description = "The answer" if events is None else "The answer, whole; with `stream`, as events"
    media = next(iter(response.content.values()))
    media.examples = {name: Example(value=Verbatim(answer)) for name, answer in answers.items()}
    if events is None or not isinstance(media.schema, Schema) or not media.schema.one_of:
        return
    whole, parts = media.schema.one_of[:-pieces], media.schema.one_of[-pieces:]
    media.schema = whole[0] if len(whole) == 1 else Schema(any_of=whole)
    response.content[event_type] = OpenAPIMediaType(
        schema=parts[0] if len(parts) == 1 else Schema(one_of=parts),
        examples={"events": Example(summary="each event has a line of JSON", value=events)},
    )
