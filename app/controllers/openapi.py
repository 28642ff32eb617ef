"""What the generated OpenAPI document says beyond types: event streams, errors, examples, and the page to read it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openapi_ui_bundles.swagger_ui
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import (
    Components,
    Example,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
    Tag,
)
from litestar.openapi.spec.base import BaseSchemaObject
from litestar.plugins import OpenAPISchemaPlugin
from litestar.plugins.pydantic import PydanticSchemaPlugin
from litestar.router import Router
from litestar.static_files import create_static_files_router
from litestar.typing import FieldDefinition

from app import __version__
from app.dto.shared.base import Body

_STATIC = "/schema/static"
_DESCRIPTION = """One server, several dialects: OpenAI clients, the llama.cpp Web UI and the Tiles CLI.

Every refusal has the same envelope, `{"error": {"message", "type", "param", "code"}}` (the Messages API has
Anthropic's own), and every answer carries `X-Request-Id`. Parameters without effect are named in `X-Tiles-Ignored`.
Where the server has a key, press *Authorize* first."""


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
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"key": []}, {}],
        tags=[
            Tag(name="OpenAI", description="What OpenAI clients call"),
            Tag(name="Anthropic", description="What Anthropic clients call, with ANTHROPIC_BASE_URL pointed here"),
            Tag(name="llama.cpp", description="What llama.cpp's clients call"),
            Tag(name="Web UI", description="What llama.cpp's Web UI asks for besides"),
            Tag(name="Models", description="What is loaded and what it can do"),
            Tag(name="Tiles", description="Sessions of the Tiles CLI"),
            Tag(name="Health", description="Whether the server lives"),
        ],
    )


def page_files() -> Router:
    """Serve the page's own files."""
    folder = Path(openapi_ui_bundles.swagger_ui.static_path)
    return create_static_files_router(path=_STATIC, directories=[folder], include_in_schema=False)


class BodySchemas(OpenAPISchemaPlugin):
    """Says of every field of a body that may be left out that it may be null too, which means the same."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        """Whether this is a body, or a part of one."""
        return isinstance(value, type) and issubclass(value, Body)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        """Describe a body."""
        schema = PydanticSchemaPlugin.for_pydantic_model(field_definition, schema_creator)
        required = schema.required or ()
        properties = (schema.properties or {}).items()
        schema.properties = {name: part if name in required else _or_null(part) for name, part in properties}
        return schema


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


def operation(answer: Any, *, events: str | None = None, pieces: int = 1) -> type[Operation]:
    """Make an operation whose 200 has an example. With `events`, the last `pieces` branches of the answer's type are
    what an event stream carries, and they are its example."""

    @dataclass
    class Documented(Operation):
        def __post_init__(self) -> None:
            if isinstance(self.request_body, RequestBody):
                _say_whether_required(self.request_body)
            self.summary = _in_words(self.summary or "")
            responses: dict[str, Any] = self.responses or {}
            if _is_litestars(responses.get("400")):
                del responses["400"]
            if isinstance(response := responses.get("200"), OpenAPIResponse) and response.content:
                _document(response, answer, events, pieces)
            if isinstance(empty := responses.get("204"), OpenAPIResponse):
                empty.content, empty.description = None, "Done; there is nothing to say"

    return Documented


def _in_words(name: str) -> str:
    """Give a handler's name as a title: `CreateChatCompletion` is `Create chat completion`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()


def _say_whether_required(body: RequestBody) -> None:
    """Litestar says that a body may be null where it may be left out."""
    for media in body.content.values():
        if isinstance(media.schema, Schema) and media.schema.one_of:
            given = [part for part in media.schema.one_of if getattr(part, "type", None) != OpenAPIType.NULL]
            body.required = len(given) == len(media.schema.one_of)
            media.schema.one_of = given


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
