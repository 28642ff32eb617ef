"""What the generated OpenAPI document says beyond types: event streams, errors, examples, and the page to read it."""

import asyncio
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import msgspec
import openapi_ui_bundles.swagger_ui
from annotated_types import Ge
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
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
from litestar.plugins import OpenAPISchemaPlugin
from litestar.plugins.pydantic import PydanticSchemaPlugin
from litestar.router import Router
from litestar.static_files import create_static_files_router
from litestar.typing import FieldDefinition

from app import __version__
from app.dto.shared import parameters
from app.dto.shared.base import Body, Reply, RequestBody

_STATIC = "/schema/static"
_DESCRIPTION = """MLX language models behind one HTTP API: OpenAI's chat completions, Responses, completions and
embeddings, Anthropic's Messages, llama-server's routes, the llama.cpp Web UI, and the Tiles CLI.

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
    "Models": "Which models there are, what they can do, and which of them are in memory.",
    "Tokens": "Text to tokens and back, and how many of them a conversation has.",
    "Streams": "Find a streamed answer again, go on reading it, stop it, or end its reasoning.",
    "Operations": "Health and metrics, the slots that answers run in, and the scales of LoRA adapters.",
    "Tiles": "Sessions of the Tiles CLI.",
    "Disabled": "What llama-server offers its Web UI and this server does not: every call is refused.",
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
    page = SwaggerRenderPlugin(
        path="/swagger",
        js_url=f"{_STATIC}/swagger-ui-bundle.js",
        css_url=f"{_STATIC}/swagger-ui.css",
        standalone_preset_js_url=f"{_STATIC}/swagger-ui-standalone-preset.js",
        favicon=f'<link rel="icon" type="image/png" href="{_STATIC}/favicon-32x32.png">',
    )
    return OpenAPIConfig(
        title="Tiles Server",
        version=__version__,
        description=_DESCRIPTION,
        path="/schema",
        render_plugins=[page],
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
                    description="The same",
                ),
            },
        ),
        security=[{"bearer": []}, {"x-api-key": []}, {}],
        tags=[Tag(name=name, description=description) for name, description in _TAGS.items()],
    )


def page_files() -> Router:
    """Serve the page's own files."""
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


class BodySchemas(OpenAPISchemaPlugin):
    """Says what every field of a body means, and of those that may be left out that null means the same."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        """Whether this is a body, or a part of one."""
        return isinstance(value, type) and issubclass(value, Body)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        """Describe a body; the parameters of a request in the words of their registry."""
        body: type[Body] = field_definition.annotation
        schema = PydanticSchemaPlugin.for_pydantic_model(field_definition, schema_creator)
        notes = parameters.descriptions(body.registry) if issubclass(body, RequestBody) else {}
        fields = {field.alias or name: field for name, field in body.model_fields.items()}
        properties = schema.properties or {}
        for name, part in properties.items():
            field = fields[name]
            whole = _property(
                part if field.is_required() else _or_null(part), notes.get(name) or field.description or ""
            )
            if not field.is_required() and field.default_factory is None:
                whole.default = field.default
            if any(isinstance(mark, Ge) and mark.ge == 0 for mark in field.metadata):
                whole.minimum = 0  # which Litestar leaves out
            properties[name] = whole
        schema.description = cleandoc(body.__doc__ or "")  # Litestar's is that of the field where it met it first
        return schema


class ReplySchemas(OpenAPISchemaPlugin):
    """Says what every field of a reply means."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Whether this is a reply, or a part of one."""
        return not field_definition.is_union and field_definition.is_subclass_of(Reply)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        """Describe a reply as Litestar does, and its constants too."""
        others = (plugin for plugin in schema_creator.plugins if plugin is not self)
        plugin = next(plugin for plugin in others if schema_creator.plugin_supports_field(plugin, field_definition))
        schema: Schema = plugin.to_openapi_schema(field_definition, schema_creator)
        properties = schema.properties or {}
        for name, part in properties.items():
            if isinstance(part, Schema):
                constant = f"always {part.const}: what kind of object it is" if part.const else ""
                properties[name] = _property(_alone(part), part.description or constant)
        schema.description = cleandoc(field_definition.annotation.__doc__ or "")
        return schema


def _property(schema: Schema | Reference, description: str) -> Schema:
    """Put what a property means on the property itself, where readers look, and not on the kinds of its values."""
    whole = Schema(all_of=[schema]) if isinstance(schema, Reference) else copy(schema)
    whole.one_of = [_bare(branch) for branch in whole.one_of] if whole.one_of else None
    whole.description = _sentence(description) or None
    return whole


def _bare(schema: Schema | Reference) -> Schema | Reference:
    """Leave out what stands on the property. A reference stays what it is: Litestar changes its target in the end."""
    if isinstance(schema, Reference):
        return schema
    bare = copy(schema)
    bare.description = bare.default = None
    return bare


def _alone(schema: Schema) -> Schema:
    """Take the only kind of value that there is: what may be absent is described as one of one kind."""
    (*others, last) = schema.one_of or [schema]
    if others or not isinstance(last, Schema):
        return schema
    alone = copy(last)
    alone.description = schema.description
    return alone


def _sentence(text: str) -> str:
    """Begin with a capital, unless a name comes first."""
    return text if "_" in text.partition(" ")[0] else text[:1].upper() + text[1:]


def _or_null(schema: Schema | Reference) -> Schema:
    branches = schema.one_of if isinstance(schema, Schema) and schema.one_of else [schema]
    if isinstance(schema, Schema) and not (schema.type or schema.one_of or schema.any_of or schema.all_of):
        return schema  # takes anything
    if any(isinstance(branch, Schema) and branch.type == OpenAPIType.NULL for branch in branches):
        assert isinstance(schema, Schema)
        return schema
    return Schema(one_of=[*branches, Schema(type=OpenAPIType.NULL)])


class Verbatim(BaseSchemaObject):
    """A value that stands in the document as it is; Litestar would leave out every null."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def to_schema(self) -> Any:
        """Give the value."""
        return self._value


def operation(
    answer: Any, *, events: str | None = None, pieces: int = 1, headers: Sequence[str] = ()
) -> type[Operation]:
    """Make an operation whose 200 has an example. With `events`, the last `pieces` branches of the answer's type are
    what an event stream carries, and they are its example. `headers` are those of the request that have a meaning."""

    @dataclass
    class Documented(Operation):
        def __post_init__(self) -> None:
            if isinstance(self.request_body, RequestBodySpec):
                _say_whether_required(self.request_body)
            for parameter in self.parameters or ():
                if isinstance(parameter, Parameter):
                    parameter.description = _sentence(parameter.description or "")
            names = ("X-Request-Id", *headers, *(("autoload",) if _has_registry(self.request_body) else ()))
            references = (Reference(ref=f"#/components/parameters/{name}") for name in names)
            self.parameters = [*(self.parameters or ()), *references]
            responses: dict[str, Any] = self.responses or {}
            if _is_litestars(responses.get("400")):
                del responses["400"]
            if isinstance(response := responses.get("200"), OpenAPIResponse) and response.content:
                _document(response, answer, events, pieces)
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


def _document(response: OpenAPIResponse, answer: Any, events: str | None, pieces: int) -> None:
    assert response.content is not None
    response.description = "The answer" if events is None else "The answer, whole; with `stream`, as events"
    media = next(iter(response.content.values()))
    media.examples = {"answer": Example(value=Verbatim(answer))}
    if events is None or not isinstance(media.schema, Schema) or not media.schema.one_of:
        return
    whole, parts = media.schema.one_of[:-pieces], media.schema.one_of[-pieces:]
    media.schema = whole[0] if len(whole) == 1 else Schema(any_of=whole)
    response.content["text/event-stream"] = OpenAPIMediaType(
        schema=parts[0] if len(parts) == 1 else Schema(one_of=parts),
        examples={"events": Example(summary="every event has a line of data", value=events)},
    )
