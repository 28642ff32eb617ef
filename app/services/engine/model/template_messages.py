"""Messages and tools as the dictionaries that chat templates take."""

import json
import re
from collections.abc import Mapping
from typing import Any

from app.services.engine.model.image_markers import digest_of, split
from app.services.engine.output.tool_call_arguments import parse_arguments
from app.services.generation import Message, ToolCall

_FIELD = r"\b(?:message|msg|m)(?:\.{0}\b|\[['\"]{0}['\"]\])"  # of a message
_DEEPEST = 32  # levels of a schema; templates recurse


def to_template(
    message: Message,
    *,
    text_content: bool = True,
    argument_objects: bool = True,
    reasoning_field: str = "reasoning_content",
    image_parts: bool = False,
) -> dict[str, Any]:
    """Give a message as a dictionary. Content is text or a list of parts, arguments are an object or JSON text.

    With `image_parts` a message with images is a list of parts, of which each image is one of type `image`; else the
    markers stand in the text.

    Reasoning is a field of the message, or a part of type `thinking` before the text if `reasoning_field` is that.
    """
    in_parts = reasoning_field == "thinking" and bool(message.reasoning)
    parts: list[dict[str, Any]] = [{"type": "thinking", "thinking": message.reasoning}] if in_parts else []
    pieces = split(message.content) if image_parts else []
    shows = any(map(digest_of, pieces))
    parts += map(_part, pieces) if shows else [_text(message.content)] if message.content or not in_parts else []
    content = message.content if text_content and not in_parts and not shows else parts
    template_message: dict[str, Any] = {"role": message.role, "content": content}
    if message.reasoning and not in_parts:
        template_message[reasoning_field] = message.reasoning
    if message.tool_calls:
        template_message["tool_calls"] = [_call(call, argument_objects) for call in message.tool_calls]
    if message.tool_call_id:
        template_message["tool_call_id"] = message.tool_call_id
    if message.name:
        template_message["name"] = message.name
    return template_message


def _part(piece: str) -> dict[str, str]:
    return {"type": "image"} if digest_of(piece) else _text(piece)


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _call(call: ToolCall, argument_objects: bool) -> dict[str, Any]:
    values = parse_arguments(call.arguments)
    arguments = values if argument_objects else json.dumps(values, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def reasoning_field(template: str) -> str:
    """Say where a chat template looks for the reasoning of a message: mostly in `reasoning_content`."""
    if "reasoning_content" in template:
        return "reasoning_content"
    if "[THINK]" in template and re.search(r"\[['\"]thinking['\"]\]", template):
        return "thinking"  # a part of the content, as in Mistral's templates
    fields = ("reasoning", "thought")
    return next((name for name in fields if re.search(_FIELD.format(name), template)), "reasoning_content")


def with_parameters(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Add a schema of the arguments to a tool that has none, or an incomplete one."""
    function = tool.get("function") or {}
    parameters = function.get("parameters") or {}
    schema = {key: value for key, value in parameters.items() if value is not None}
    if not isinstance(schema.get("properties", {}), dict):
        schema["properties"] = {}
    return {**tool, "function": {**function, "parameters": {"type": "object", "properties": {}} | schema}}


def with_descriptions(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Add all members that templates look for: descriptions of the function and its arguments, and their types."""
    complete = with_parameters(tool)
    function: dict[str, Any] = {"description": ""} | complete["function"]
    parameters: dict[str, Any] = function["parameters"]
    properties = {name: _with_description(schema) for name, schema in parameters["properties"].items()}
    function["parameters"] = {"required": []} | parameters | {"properties": properties}
    return complete | {"function": function}


def _with_description(schema: Any) -> dict[str, Any]:
    members = schema if isinstance(schema, dict) else {}
    return {"type": "string", "description": ""} | {key: value for key, value in members.items() if value is not None}


_JSON_TYPES = ("string", "number", "integer", "boolean", "array", "object")


def with_plain_schemas(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce the schema of each argument to one plain type, for templates that handle no others."""
    complete = with_descriptions(tool)
    function: dict[str, Any] = complete["function"]
    plain = _plain(function["parameters"] | {"type": "object"}, level=0)
    return complete | {"function": function | {"description": str(function["description"] or ""), "parameters": plain}}


def _plain(schema: Any, level: int) -> dict[str, Any]:
    schema = _with_description(schema)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    kind = next((name for name in kinds if name in _JSON_TYPES), "string")
    if level > _DEEPEST:
        kind = "string"
    plain: dict[str, Any] = {"type": kind, "description": str(schema["description"])}
    if kind == "array":
        plain["items"] = _plain(schema.get("items"), level + 1)
    if kind == "object":
        properties, required = schema.get("properties"), schema.get("required")
        members = properties.items() if isinstance(properties, dict) else ()
        plain["properties"] = {name: _plain(member, level + 1) for name, member in members}
        plain["required"] = (
            [name for name in required if name in plain["properties"]] if isinstance(required, list) else []
        )
        if level:
            plain["additionalProperties"] = _plain(schema.get("additionalProperties"), level + 1)
    if isinstance(schema.get("enum"), list):
        plain["enum"] = schema["enum"]
    return plain
