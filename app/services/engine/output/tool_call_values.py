"""The values of a tool call's arguments as JSON text, however a model writes them."""

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.services.engine.output.json_reader import repair

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,400})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_NULLS = {"null", "none", "nil"}
_TRUTHS = {"true": "true", "false": "false", "yes": "true", "no": "false", "on": "true", "off": "false"}
_MEMBERS = ("arguments", "parameters", "args", "input", "params")  # where models put the arguments of a call


def to_json(value: Any) -> str:
    """Give a value as JSON that every parser takes. Raises ValueError or RecursionError for what JSON cannot hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character beyond the first 65,536
        return json.dumps(value, allow_nan=False)
    return text


def parse_json(text: str) -> Any:
    """Parse JSON; a number that is too large for one becomes a string. Raises ValueError or RecursionError."""
    return json.loads(text, parse_float=_float, parse_int=lambda digits: int(digits) if len(digits) < 400 else digits)


def _float(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def arguments_json(value: Any) -> str | None:
    """Give the arguments of a call as the JSON text of an object. None: they are no arguments."""
    if value is None or value in ("", []):
        return "{}"
    if isinstance(value, str):
        return repair(value) if value.lstrip().startswith("{") else None
    return to_json(value) if isinstance(value, dict) else None


def parse_call(value: Any, *, has_arguments: bool = False) -> tuple[str, str, str] | None:
    """Parse a call that is a JSON object: its id (may be empty), its name, and its arguments as JSON text.

    None where it is no call. `has_arguments`: an object without arguments is no call.
    """
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = {"id": value.get("id"), **inner}
    name = value.get("name", value.get("tool_name", inner))
    arguments = arguments_json(next((value[member] for member in _MEMBERS if member in value), None))
    if has_arguments and not any(member in value for member in _MEMBERS):
        return None
    if not isinstance(name, str) or not name.strip() or arguments is None:
        return None
    return str(value.get("id") or ""), name.strip(), arguments


def properties(tools: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Give the JSON schemas of a tool's arguments by argument name."""
    for tool in tools:
        if tool["function"]["name"] == name:
            schema = tool["function"].get("parameters")
            inner = schema.get("properties") if isinstance(schema, dict) else None
            return inner if isinstance(inner, dict) else {}
    return {}


def coerce(text: str, schema: Any, *, untyped_is_text: bool) -> str:
    """Give an unquoted value as JSON of a type that its schema allows; a string where it fits none of them.

    Where the schema names no type, objects and lists become what they are, and other values strings if
    `untyped_is_text`, else what they look like.
    """
    types = set(_types(schema))
    bare = text.strip()
    if types == {"string"}:
        return to_json(text)
    if "null" in types and bare.lower() in _NULLS:
        return "null"
    if types & {"integer", "number"} and (number := _parse_number(bare, "number" in types)):
        return number
    if "boolean" in types and (truth := _TRUTHS.get(bare.lower())) and ("string" not in types or truth == bare.lower()):
        return truth
    if (not types or types & {"object", "array"}) and bare[:1] in ("{", "["):
        return _parse_container(bare) or to_json(text)
    if not types and not untyped_is_text:
        return _parse_untyped(bare) or to_json(text)
    return to_json(text)


def _types(schema: Any) -> Iterator[str]:
    """Give the types that a schema names or implies."""
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    yield from (name for name in ([kind] if isinstance(kind, str) else _as_list(kind)) if isinstance(name, str))
    if kind is None:
        yield from map(_type_of, [schema["const"]] if "const" in schema else _as_list(schema.get("enum")))
    for keyword in ("anyOf", "oneOf", "allOf"):
        for subschema in _as_list(schema.get(keyword)):
            yield from _types(subschema)


def _as_list(value: Any) -> list[Any]:
    """Take what is no list for an empty one: clients write all sorts of schemas."""
    return value if isinstance(value, list) else []


def _type_of(value: Any) -> str:
    types = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    return types.get(type(value), "null")


def _parse_number(text: str, fractions: bool) -> str | None:
    text = text.removeprefix("+")
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    if not math.isfinite(number):
        return None
    return text if fractions or text.lstrip("-").isdigit() else str(int(number)) if number == int(number) else None


def _parse_container(text: str) -> str | None:
    """Parse an object or a list in JSON, or in Python's notation."""
    if (json_text := repair(text)) is not None:
        return json_text
    try:
        return to_json(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _parse_untyped(text: str) -> str | None:
    if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return text
    if text in ("true", "false", "null"):
        return text
    literal = {"True": "true", "False": "false", "None": "null"}.get(text)
    if literal is None and len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return to_json(json.loads(text))
        except ValueError:
            return None
    return literal
