"""Values of tool calls that are tags themselves, as MiniMax-M3 writes objects and lists."""

from collections.abc import Sequence
from typing import Any

import regex

from app.services.engine.output.tool_call_values import coerce, to_json

M3_MARK = "]<]minimax[>["  # before each tag
_ELEMENT = regex.compile(
    rf"\s*+{regex.escape(M3_MARK)}<(?P<key>[^<>/\n][^<>\n]*+)>"
    rf"(?P<value>(?:(?!{regex.escape(M3_MARK)}).|(?P<inner>{regex.escape(M3_MARK)}<[^<>/\n][^<>\n]*+>"
    rf"(?:(?!{regex.escape(M3_MARK)}).|(?&inner))*+{regex.escape(M3_MARK)}</[^<>\n]++>))*+)"
    rf"{regex.escape(M3_MARK)}</(?P=key)>",
    regex.DOTALL,
)


def nested_value(text: str, schema: Any) -> str | None:
    """Give a value that consists of elements as JSON: a list where all are items, else an object. None for others.

    Nothing at all is an empty list or object, if the schema wants one.
    """
    schema = schema if isinstance(schema, dict) else {}
    elements = _elements(text)
    if not elements:
        kind = schema.get("type")
        return {"array": "[]", "object": "{}"}.get(str(kind)) if not text.strip() else None
    if all(key == "item" for key, _ in elements) and "item" not in (schema.get("properties") or {}):
        return f"[{', '.join(_value(value, schema.get('items')) for _, value in elements)}]"
    properties = schema.get("properties")
    schemas = properties if isinstance(properties, dict) else {}
    members = {to_json(key): _value(value, schemas.get(key)) for key, value in elements}
    return f"{{{', '.join(f'{key}: {value}' for key, value in members.items())}}}"


def _value(text: str, schema: Any) -> str:
    return nested_value(text, schema) or coerce(text, schema, untyped_is_text=False)


def _elements(text: str) -> Sequence[tuple[str, str]]:
    elements: list[tuple[str, str]] = []
    position = 0
    while match := _ELEMENT.match(text, position):
        elements.append((match["key"], match["value"]))
        position = match.end()
    return elements if not text[position:].strip() else []
