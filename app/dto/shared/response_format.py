"""The format of an answer, as OpenAI spells it."""

import json
from typing import Any, Literal

from pydantic import Field, model_validator

import app.services.generation as gen
from app.dto.shared.base import Body


class JsonSchema(Body):
    """A named schema."""

    name: str = Field(default="answer", description="name of the schema")
    description: str | None = Field(default=None, description="what the schema is for; it does not reach the model")
    schema_: dict[str, Any] | bool = Field(
        default_factory=dict, alias="schema", description="JSON schema of the answer"
    )
    strict: bool = Field(default=True, description="the schema is enforced either way")


class ResponseFormat(Body):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="text, any JSON object, or JSON of a schema"
    )
    json_schema: JsonSchema | None = Field(default=None, description="the schema, for json_schema in chat completions")
    name: str | None = Field(default=None, description="name of the schema, in Responses")
    description: str | None = Field(
        default=None, description="what the schema is for, in Responses; it does not reach the model"
    )
    strict: bool = Field(default=True, description="the schema is enforced either way")
    schema_: dict[str, Any] | bool | None = Field(
        default=None,
        alias="schema",
        description="JSON schema of the answer; Responses and Messages have it here, and llama.cpp with json_object",
    )

    @model_validator(mode="after")
    def _complete(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None and self.schema_ is None:
            raise ValueError("'json_schema' is missing")
        return self

    def to_constraint(self) -> gen.Constraint | None:
        """Translate to the engine's vocabulary."""
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema else self.schema_
        if schema is None or schema == {}:
            schema = {"type": "object"}
        return gen.Constraint("json_schema", json.dumps(schema), "response_format")
