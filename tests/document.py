"""The OpenAPI document, and schemas in it with their references followed."""

from typing import Any

from app.application import create_app
from app.settings import Settings

DOCUMENT: dict[str, Any] = create_app(Settings()).openapi_schema.to_schema()


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that jsonschema can use alone."""
    return schema | {"components": DOCUMENT["components"]}
