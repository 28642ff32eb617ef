"""Values of a call's arguments as JSON text, from the ways in which models write them beside JSON."""

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.services.engine.output.json_reader import repaired

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,400})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_NULLS = {"null", "none", "nil"}
_TRUTHS = {"true": "true", "false": "false", "yes": "true", "no": "false", "on": "true", "off": "false"}
_MEMBERS = ("arguments", "parameters", "args", "input", "params")  # where models put the arguments of a call


def written(value: Any) -> str:
    """Write a value as JSON that every reader takes. Raises ValueError or RecursionError for what JSON cannot hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character beyond the first 65,536
        return json.dumps(value, allow_nan=False)
    return text


def loaded(text: str) -> Any:
    """Read JSON; a number that is too large to be one is a string. Raises ValueError or RecursionError."""
    return json.loads(text, parse_float=_float, parse_int=lambda digits: int(digits) if len(digits) < 400 else digits)


def _float(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def arguments_text(value: Any) -> str | None:
    """Write the arguments of a call as the JSON text of an object. None: they are none."""
    if value is None or value in ("", []):
        return "{}"
    if isinstance(value, str):
        return repaired(value) if value.lstrip().startswith("{") else None
    return written(value) if isinstance(value, dict) else None


def called(value: Any, *, has_arguments: bool = False) -> tuple[str, str, str] | None:
    """Read a call that is a JSON object: its id, or nothing, its name, and the JSON text of its arguments.

    `has_arguments`: one without them is none.
    """
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = {"id": value.get("id"), **inner}
    name = value.get("name", inner)
    arguments = arguments_text(next((value[member] for member in _MEMBERS if member in value), None))
    if has_arguments and not any(member in value for member in _MEMBERS):
        return None
    if not isinstance(name, str) or not name.strip() or arguments is None:
        return None
    return str(value.get("id") or ""), name.strip(), arguments


def properties(tools: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Give the schemas of a tool's arguments, by their names."""
    for tool in tools:
        if tool["function"]["name"] == name:
            schema = tool["function"].get("parameters")
            inner = schema.get("properties") if isinstance(schema, dict) else None
            return inner if isinstance(inner, dict) else {}
    return {}


def typed(text: str, schema: Any, *, untyped_is_text: bool) -> str:
    """Write what stands for a value, without quotes, as JSON of a type that its schema allows; a string if of none.

    Where the schema says nothing, it is a string if `untyped_is_text`, but for objects and lists; else what it looks
    like.
    """
    kinds = set(_kinds(schema))
    bare = text.strip()
    if kinds == {"string"}:
        return written(text)
    if "null" in kinds and bare.lower() in _NULLS:
        return "null"
    if kinds & {"integer", "number"} and (number := _number(bare, "number" in kinds)):
        return number
    if "boolean" in kinds and (truth := _TRUTHS.get(bare.lower())) and ("string" not in kinds or truth == bare.lower()):
        return truth
    if (not kinds or kinds & {"object", "array"}) and bare[:1] in ("{", "["):
        return _container(bare) or written(text)
    if not kinds and not untyped_is_text:
        return _looks_like(bare) or written(text)
    return written(text)


def _kinds(schema: Any) -> Iterator[str]:
    """The types that a schema speaks of, however it does."""
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    yield from (one for one in ([kind] if isinstance(kind, str) else _list(kind)) if isinstance(one, str))
    if kind is None:
        yield from map(_kind, [schema["const"]] if "const" in schema else _list(schema.get("enum")))
    for several in ("anyOf", "oneOf", "allOf"):
        for one in _list(schema.get(several)):
            yield from _kinds(one)


def _list(value: Any) -> list[Any]:
    """What is no list is an empty one: clients write all sorts of schemas."""
    return value if isinstance(value, list) else []


def _kind(value: Any) -> str:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    return kinds.get(type(value), "null")


def _number(text: str, fractions: bool) -> str | None:
    text = text.removeprefix("+")
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    if not math.isfinite(number):
        return None
    return text if fractions or text.lstrip("-").isdigit() else str(int(number)) if number == int(number) else None


def _container(text: str) -> str | None:
    """Read an object or a list, written as JSON or, nearly so, as Python."""
    if (mended := repaired(text)) is not None:
        return mended
    try:
        return written(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _looks_like(text: str) -> str | None:
    if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return text
    if text in ("true", "false", "null"):
        return text
    literal = {"True": "true", "False": "false", "None": "null"}.get(text)
    if literal is None and len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return written(json.loads(text))
        except ValueError:
            return None
    return literal
