"""What the OpenAPI document says of bodies and replies: what each field means, its default, where it may be null."""

from copy import copy
from inspect import cleandoc
from typing import Any

from annotated_types import Ge
from litestar.openapi.spec import OpenAPIType, Reference, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.plugins.pydantic import PydanticSchemaPlugin
from litestar.typing import FieldDefinition

from app.dto.shared import parameters
from app.dto.shared.base import Body, Reply, RequestBody


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
    whole.description = sentence(description) or None
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


def sentence(text: str) -> str:
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
