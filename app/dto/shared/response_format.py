"""What an answer has to be, as OpenAI says it."""

import json
from typing import Any, Literal

from pydantic import Field, model_validator

import app.services.generation as gen
from app.dto.shared.base import Body


class JsonSchema(Body):
    """A named schema."""

    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(default_factory=dict, alias="schema", description="JSON schema")
    strict: bool = True


class ResponseFormat(Body):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    name: str | None = Field(default=None, description="of Responses, as are description and strict")
    description: str | None = None
    strict: bool = Field(default=True, description="a schema is enforced in any case")
    schema_: dict[str, Any] | bool | None = Field(
        default=None, alias="schema", description="llama.cpp's, with json_object"
    )

    @model_validator(mode="after")
    def _complete(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None and self.schema_ is None:
            raise ValueError("'json_schema' is missing")
        return self

    def to_constraint(self) -> gen.Constraint | None:
        """Say it in the common vocabulary."""
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema else self.schema_
        if schema is None or schema == {}:
            schema = {"type": "object"}
        return gen.Constraint("json_schema", json.dumps(schema), "response_format")
