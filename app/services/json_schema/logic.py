"""What is not: the schema of all that another does not take, and whether two take nothing in common."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from app.services.json_schema.patterns import none_of
from app.services.json_schema.types import TYPES, constraints_of, types_of

Resolve = Callable[[dict[str, Any]], Any]

_DEEPEST = 8  # of what is looked into
_MOST_NUMBERS = 4  # that are ruled out
_LONGEST = 2000  # characters of texts that are ruled out by a pattern

# Keywords of a bound, the type that they speak of, and the bound beyond.
_BOUNDS: dict[str, tuple[str, str, int]] = {
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1),
    "maxProperties": ("object", "minProperties", 1),
    "minimum": ("number", "exclusiveMaximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0),
    "exclusiveMaximum": ("number", "minimum", 0),
}


def opposite(schema: Any, context: Any, resolve: Resolve, depth: int = 0) -> Any:
    """Write the schema of what `schema` does not take, as far as `context` takes it too; it may take less.

    None where that cannot be said. `resolve` gives what a schema's reference means.
    """
    if isinstance(schema, bool):
        return not schema
    if not isinstance(schema, dict) or depth > _DEEPEST or schema.get("nullable") is True:
        return None
    ways = []
    for keyword, value in constraints_of(schema).items():
        way = _violated(keyword, value, schema, context, resolve, depth + 1)
        if way is None:
            return None
        ways.append(way)
    return {"anyOf": ways} if ways else False


def _violated(keyword: str, value: Any, schema: dict[str, Any], context: Any, resolve: Resolve, depth: int) -> Any:
    match keyword:
        case "$ref":
            return opposite(resolve(schema), context, resolve, depth)
        case "type":
            return _other_types(types_of(value))
        case "const":
            return _other_values([value], context, resolve)
        case "enum" if isinstance(value, list):
            return _other_values(value, context, resolve)
        case "not":
            return value
        case "allOf" | "anyOf" if isinstance(value, list):
            parts = [opposite(part, context, resolve, depth) for part in value]
            return None if None in parts else {"anyOf" if keyword == "allOf" else "allOf": parts}
        case "required" if isinstance(value, list) and all(isinstance(name, str) for name in value):
            absent = [{"type": "object", "properties": {name: False}} for name in value]
            return {"anyOf": absent} if absent else False
        case "properties" if isinstance(value, dict):
            parts = [_with_other(name, part, context, resolve, depth) for name, part in value.items()]
            return None if None in parts else {"anyOf": parts} if parts else False
    if keyword in _BOUNDS and isinstance(value, int | float) and not isinstance(value, bool):
        kind, beyond, step = _BOUNDS[keyword]
        return {"type": kind, beyond: value + step} if value + step >= 0 or kind == "number" else False
    return None


def _with_other(name: str, schema: Any, context: Any, resolve: Resolve, depth: int) -> Any:
    inner = opposite(schema, property_of(context, name, resolve), resolve, depth)
    return None if inner is None else {"type": "object", "required": [name], "properties": {name: inner}}


def _other_types(types: list[str] | None) -> Any:
    if types is None:
        return None
    excluded = {*types, "number"} if "integer" in types else set(types)  # no pattern knows the numbers with a fraction
    rest = [name for name in TYPES if name not in excluded]
    return {"type": rest} if rest else False


def _other_values(values: list[Any], context: Any, resolve: Resolve) -> Any:
    domain = values_of(context, resolve)
    spellings = {json.dumps(value, sort_keys=True) for value in values}
    if domain is not None:
        return {"enum": [value for value in domain if json.dumps(value, sort_keys=True) not in spellings]}
    if any(isinstance(value, list | dict) for value in values):
        return None
    words = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if _kind(value) == "number"]
    if sum(map(len, words)) > _LONGEST or len(numbers) > _MOST_NUMBERS:
        return None
    kinds = {_kind(value) for value in values}
    ways: list[Any] = [{"type": [name for name in TYPES if name not in kinds]}]
    if words:
        ways.append({"type": "string", "pattern": none_of(words)})
    if numbers:
        sides = [{"anyOf": [{"exclusiveMaximum": number}, {"exclusiveMinimum": number}]} for number in numbers]
        ways.append({"type": "number", "allOf": sides})
    return {"anyOf": ways + [{"const": value} for value in (True, False) if "boolean" in kinds and value not in values]}


def property_of(schema: Any, name: str, resolve: Resolve, depth: int = 0) -> Any:
    """Give what a schema says of one property, None where it says nothing."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return None
    properties = schema.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    return property_of(resolve(schema), name, resolve, depth + 1) if "$ref" in schema else None


def values_of(schema: Any, resolve: Resolve, depth: int = 0) -> list[Any] | None:
    """Give all values that a schema may take, None where they are not few."""
    if not isinstance(schema, dict) or depth > _DEEPEST or schema.get("nullable") is True:
        return None
    if "const" in schema:
        return [schema["const"]]
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    if "$ref" in schema:
        return values_of(resolve(schema), resolve, depth + 1)
    types = types_of(schema.get("type"))
    if types and set(types) <= {"boolean", "null"}:
        return [*([True, False] if "boolean" in types else []), *([None] if "null" in types else [])]
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            each = [values_of(part, resolve, depth + 1) for part in schema[keyword]]
            return None if None in each else [value for values in each for value in values or ()]
    return None


def disjoint(one: Any, other: Any, resolve: Resolve, required: frozenset[str] | None = None, depth: int = 0) -> bool:
    """Whether nothing is taken by both, for certain.

    Of what is an object for certain, `required` are the properties that are there anyway.
    """
    if one is False or other is False:
        return True
    if not isinstance(one, dict) or not isinstance(other, dict) or depth > _DEEPEST:
        return False
    for first, second in ((one, other), (other, one)):
        if "$ref" in first and disjoint(resolve(first), second, resolve, required, depth + 1):
            return True
        if any(disjoint(part, second, resolve, required, depth + 1) for part in _listed(first, "allOf")):
            return True
        for keyword in ("anyOf", "oneOf"):
            parts = _listed(first, keyword)
            if parts and all(disjoint(part, second, resolve, required, depth + 1) for part in parts):
                return True
    return _apart(one, other, resolve) or _apart_by_property(one, other, resolve, required, depth)


def _apart(one: dict[str, Any], other: dict[str, Any], resolve: Resolve) -> bool:
    """Whether the values or the types of two schemas have nothing in common."""
    values, others = values_of(one, resolve), values_of(other, resolve)
    if values is not None and others is not None:
        spellings = {json.dumps(value, sort_keys=True) for value in values if not isinstance(value, float)}
        return not any(isinstance(value, float) for value in [*values, *others]) and not spellings & {
            json.dumps(value, sort_keys=True) for value in others
        }
    kinds, other_kinds = _kinds(one, values), _kinds(other, others)
    return kinds is not None and other_kinds is not None and not kinds & other_kinds


def _kinds(schema: Mapping[str, Any], values: list[Any] | None) -> set[str] | None:
    if values is not None:
        return {_kind(value) for value in values}
    types = types_of(schema.get("type"))
    return (
        None if types is None or schema.get("nullable") is True else {"number" if t == "integer" else t for t in types}
    )


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return kinds[type(value)]


def _apart_by_property(
    one: dict[str, Any], other: dict[str, Any], resolve: Resolve, more: frozenset[str] | None, depth: int
) -> bool:
    """Whether a property that has to be there cannot be right for both."""
    if more is None and not all(types_of(schema.get("type")) == ["object"] for schema in (one, other)):
        return False
    needed = (more or frozenset()) | {
        name for schema in (one, other) for name in _listed(schema, "required") if isinstance(name, str)
    }
    for name in needed:
        first, second = property_of(one, name, resolve), property_of(other, name, resolve)
        if first is not None and second is not None and disjoint(first, second, resolve, depth=depth + 1):
            return True
        for schema, mine in ((one, first), (other, second)):
            closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
            if mine is False or (mine is None and closed and "$ref" not in schema):
                return True
    return False


def _listed(schema: dict[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return value if isinstance(value, list) else []
