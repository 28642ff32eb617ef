"""The types of JSON schemas and what people call them, and which keywords constrain anything."""

from typing import Any

TYPES = ("null", "boolean", "number", "string", "array", "object")

_CALLED = {
    "null": ("none", "nil", "nonetype", "undefined", "void"),
    "boolean": ("bool",),
    "integer": (
        "int",
        "long",
        "short",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint",
        "uint8",
        "uint16",
        "uint32",
        "bigint",
    ),
    "number": ("float", "double", "decimal", "real", "numeric", "float32", "float64"),
    "string": ("str", "text", "char", "varchar"),
    "array": ("list", "tuple", "set", "sequence", "vector", "frozenset"),
    "object": ("dict", "map", "dictionary", "record", "struct", "hash", "mapping"),
}
_NAMES = {called: name for name, others in _CALLED.items() for called in (name, *others)}
_ANYTHING = {"any", "mixed", "unknown", "*", "json", "value"}

# Keywords that say nothing of an instance by themselves.
_ANNOTATIONS = {
    *("$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "$comment", "$defs"),
    *("definitions", "title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"),
    *("contentEncoding", "contentMediaType", "contentSchema", "discriminator", "xml", "externalDocs", "nullable"),
}
KEYWORDS = {
    *("$ref", "$dynamicRef", "$recursiveRef", "type", "enum", "const", "allOf", "anyOf", "oneOf", "not", "if", "then"),
    *("else", "properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames"),
    *("required", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "dependencies"),
    *("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains", "minContains", "maxContains"),
    *("minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
assert not KEYWORDS & _ANNOTATIONS


def types_of(value: Any) -> list[str] | None:
    """Give the types that `type` means; None where it means all of them, or nothing that is known."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        return None
    types = [_NAMES.get(name.lower()) if isinstance(name, str) else None for name in names]
    return None if None in types else list(dict.fromkeys(name for name in types if name))


def is_known(value: Any) -> bool:
    """Whether all names of a `type` are known, those that mean anything too."""
    names = value if isinstance(value, list) else [value]
    return all(isinstance(name, str) and (name.lower() in _NAMES or name.lower() in _ANYTHING) for name in names)


def constraints_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Give the keywords of a schema that say what an instance has to be."""
    return {key: value for key, value in schema.items() if key in KEYWORDS and (value is not None or key == "const")}
