"""Messages and tools as chat templates read them."""

import json
from collections.abc import Mapping
from typing import Any

from app.services.engine.output.tool_call_arguments import parse_arguments
from app.services.generation import Message, ToolCall

_DEEPEST = 32  # levels of a schema; templates recurse


def spell(message: Message, *, text_content: bool = True, argument_objects: bool = True) -> dict[str, Any]:
    """Spell a message: its content as text or as a part of one, arguments of calls as an object or as JSON text."""
    content = message.content if text_content else [{"type": "text", "text": message.content}]
    spelled: dict[str, Any] = {"role": message.role, "content": content}
    if message.reasoning:
        spelled["reasoning_content"] = message.reasoning
    if message.tool_calls:
        spelled["tool_calls"] = [_call(call, argument_objects) for call in message.tool_calls]
    if message.tool_call_id:
        spelled["tool_call_id"] = message.tool_call_id
    if message.name:
        spelled["name"] = message.name
    return spelled


def _call(call: ToolCall, argument_objects: bool) -> dict[str, Any]:
    values = parse_arguments(call.arguments)
    written = values if argument_objects else json.dumps(values, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": written}}


def with_parameters(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Give a tool the schema of its arguments where it has none, or one that is not whole."""
    function = tool.get("function") or {}
    parameters = function.get("parameters") or {}
    known = {key: value for key, value in parameters.items() if value is not None}
    if not isinstance(known.get("properties", {}), dict):
        known["properties"] = {}
    return {**tool, "function": {**function, "parameters": {"type": "object", "properties": {}} | known}}


def with_descriptions(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Give a tool all that templates look for: of the function and of each argument, its kind and what it is for."""
    whole = with_parameters(tool)
    function: dict[str, Any] = {"description": ""} | whole["function"]
    parameters: dict[str, Any] = function["parameters"]
    properties = {name: _described(schema) for name, schema in parameters["properties"].items()}
    function["parameters"] = {"required": []} | parameters | {"properties": properties}
    return whole | {"function": function}


def _described(schema: Any) -> dict[str, Any]:
    written = schema if isinstance(schema, dict) else {}
    return {"type": "string", "description": ""} | {key: value for key, value in written.items() if value is not None}


_JSON_TYPES = ("string", "number", "integer", "boolean", "array", "object")


def with_plain_schemas(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Give a tool whose arguments are of one plain type each, for templates that spell types and know no others."""
    whole = with_descriptions(tool)
    function: dict[str, Any] = whole["function"]
    plain = _plain(function["parameters"] | {"type": "object"}, level=0)
    return whole | {"function": function | {"description": str(function["description"] or ""), "parameters": plain}}


def _plain(schema: Any, level: int) -> dict[str, Any]:
    described = _described(schema)
    kinds = described["type"] if isinstance(described["type"], list) else [described["type"]]
    kind = next((one for one in kinds if one in _JSON_TYPES), "string")
    if level > _DEEPEST:
        kind = "string"
    plain: dict[str, Any] = {"type": kind, "description": str(described["description"])}
    if kind == "array":
        plain["items"] = _plain(described.get("items"), level + 1)
    if kind == "object":
        properties, required = described.get("properties"), described.get("required")
        members = properties.items() if isinstance(properties, dict) else ()
        plain["properties"] = {name: _plain(member, level + 1) for name, member in members}
        plain["required"] = (
            [name for name in required if name in plain["properties"]] if isinstance(required, list) else []
        )
        if level:
            plain["additionalProperties"] = _plain(described.get("additionalProperties"), level + 1)
    if isinstance(described.get("enum"), list):
        plain["enum"] = described["enum"]
    return plain
