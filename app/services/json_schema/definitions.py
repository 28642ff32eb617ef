"""The definitions of a rewritten schema: what refers to those that take anything, nothing, or never come to an end."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

_PREFIX = "#/$defs/"


def depth(schema: Any, definitions: Mapping[str, Any]) -> int:
    """Say how deep the grammar library goes into a schema: it looks into each definition where it meets it first."""
    deepest, met = 0, set[str]()
    pending = [(schema, 1)]
    while pending:
        part, level = pending.pop()
        deepest = max(deepest, level)
        if isinstance(part, list):
            pending += [(one, level + 1) for one in reversed(part)]
        elif isinstance(part, dict):
            name = str(part.get("$ref", "")).removeprefix(_PREFIX)
            if name in definitions and name not in met:
                met.add(name)
                pending.append((definitions[name], level + 1))
            pending += [(one, level + 1) for key, one in reversed(part.items()) if key != "$defs"]
    return deepest


def prune(schema: dict[str, Any], is_possible: Callable[[Any], bool]) -> Any:
    """Put false into the place of references to definitions that nothing can match: the grammar library minds them.

    `is_possible` tells it of a schema without references.
    """
    definitions = dict(schema["$defs"])
    root = {key: part for key, part in schema.items() if key != "$defs"}
    while impossible := [
        name for name, one in definitions.items() if one is not False and not is_possible(_alone(one))
    ]:
        definitions |= dict.fromkeys(impossible, False)
        root = settle(root, definitions)
    return root | {"$defs": definitions} if isinstance(root, dict) else root


def _alone(part: Any) -> Any:
    """A schema in which all that it refers to is possible."""
    if isinstance(part, list):
        return [_alone(one) for one in part]
    if not isinstance(part, dict):
        return part
    return True if isinstance(part.get("$ref"), str) else {key: _alone(one) for key, one in part.items()}


def settle(schema: Any, definitions: dict[str, Any]) -> Any:
    """Put true and false into the place of references that mean no more; the definitions change as well.

    An instance of what needs itself would never end: nothing is one.
    """
    finite = _finite(definitions)
    plain = {
        f"{_PREFIX}{name}": definition if name in finite else False
        for name, definition in definitions.items()
        if isinstance(definition, bool) or name not in finite
    }

    def replace(part: Any) -> Any:
        if isinstance(part, list):
            return [replace(one) for one in part]
        if not isinstance(part, dict):
            return part
        if isinstance(reference := part.get("$ref"), str) and reference in plain:
            return plain[reference]
        return {key: replace(one) for key, one in part.items()}

    if not plain:
        return schema
    definitions |= {name: replace(one) for name, one in definitions.items()}
    return replace(schema)


def _finite(definitions: dict[str, Any]) -> set[str]:
    """Name the definitions of which an instance can come to an end."""
    finite: set[str] = set()
    while more := {name for name, one in definitions.items() if name not in finite and _ends(one, finite)}:
        finite |= more
    return finite


def _ends(schema: Any, finite: Collection[str]) -> bool:
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return schema["$ref"].removeprefix(_PREFIX) in finite
    if not all(_ends(part, finite) for part in schema.get("allOf", ())):
        return False
    if "anyOf" in schema and not any(_ends(part, finite) for part in schema["anyOf"]):
        return False
    types = schema.get("type")
    kinds = {types} if isinstance(types, str) else set(types or ("null",))
    return bool(kinds - {"array", "object"}) or any(
        _object_ends(schema, finite) if kind == "object" else _array_ends(schema, finite) for kind in kinds
    )


def _object_ends(schema: dict[str, Any], finite: Collection[str]) -> bool:
    others, properties = schema.get("additionalProperties", True), schema.get("properties", {})
    return all(_ends(properties.get(name, others), finite) for name in schema.get("required", ()))


def _array_ends(schema: dict[str, Any], finite: Collection[str]) -> bool:
    first, least = schema.get("prefixItems", []), schema.get("minItems", 0)
    if not all(_ends(item, finite) for item in first[:least]):
        return False
    return least <= len(first) or _ends(schema.get("items", True), finite)
