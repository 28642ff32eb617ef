"""JSON schemas as libraries and people write them, what they are without some keywords, and how they are checked."""

from collections.abc import Collection
from typing import Any

import jsonschema
from hypothesis import strategies as st

_MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
_DATA = {"const", "enum", "default", "examples"}
_DENYING = {"not", "oneOf", "if"}  # what is less strict inside of them makes them stricter


def without(schema: Any, keywords: Collection[str], *, names: bool = False) -> Any:
    """Leave keywords out of a schema, and what is null; `names` says that these are names of properties."""
    if isinstance(schema, list):
        return [without(part, keywords) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {name: True if part is None else without(part, keywords) for name, part in schema.items()}
    rest = {}
    for key, value in schema.items():
        if key in keywords or (value is None and key not in _DATA):
            continue
        part = value if key in _DATA else without(value, keywords, names=key in _MAPS)
        if key not in _DENYING or part == value:
            rest[key] = part
    return rest


def check(value: Any, schema: Any, ignored: Collection[str]) -> None:
    """Raise what is wrong with a value, as JSON Schema has it, but for the keywords that are not held."""
    rest = without(schema, ignored)
    validator = jsonschema.Draft202012Validator
    for keyword, older in (("definitions", jsonschema.Draft7Validator), ("id", jsonschema.Draft4Validator)):
        if isinstance(rest, dict) and keyword in rest:
            validator = older
    jsonschema.validators.validator_for(rest, default=validator)(rest).validate(value)


def _any_of(**keywords: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in keywords.items()})


_TEXTS = _any_of(
    type=["string"],
    minLength=[0, 1, 2],
    maxLength=[0, 2, 5],
    pattern=["^a", "b$", "^[a-c]+$", "^(?=.*a)[a-z]+$", "^(?!a)[a-z]*$", r"a\b", "^(?!.*aa)[ab]*$", "^a\\Z", "("],
    format=["date", "uuid", "email", "ipv4", "path", "time", "duration", "base64"],
)
_NUMBERS = _any_of(
    type=["integer", "number"],
    minimum=[0, -5, 2.5, 1e20, -(2**63), -1.7976931348623157e308],
    maximum=[10, 3, 2**63 - 1, 1.5],
    exclusiveMinimum=[0, 1, -3],
    exclusiveMaximum=[4, 10],
    multipleOf=[2, 3],
    format=["int32", "uint8"],
)
_LITERALS = st.sampled_from(
    [
        {"const": "x"},
        {"const": None},
        {"const": {"a": [1]}},
        {"const": 2**60 + 1},
        {"enum": ["x", 1, None, 2.5, "yy"]},
        {"enum": [1, 2], "type": "integer"},
        {"type": ["string", "integer"], "maxLength": 2, "minimum": 1, "required": ["a"]},
        {"type": "boolean", "not": {"const": True}},
        {"type": "string", "not": {"enum": ["a", "ab"]}},
        True,
        False,
        {},
    ]
)
_REFERENCES = st.sampled_from(["#/$defs/A", "#/$defs/B", "#/$defs/tree", "#", "#named", "#/$defs/none"])
_NAMES = st.sampled_from(["a", "b", "c", "ab"])
_RULES = st.fixed_dictionaries(
    {},
    optional={
        "required": st.lists(_NAMES, max_size=2, unique=True),
        "minProperties": st.integers(0, 2),
        "maxProperties": st.integers(0, 3),
        "unevaluatedProperties": st.booleans(),
        "dependentRequired": st.dictionaries(_NAMES, st.lists(_NAMES, max_size=2), max_size=2),
        "propertyNames": st.sampled_from(
            [
                {"type": "string"},
                {"enum": ["a", "b", "z"]},
                {"pattern": "^[a-c]+$"},
                {"maxLength": 2},
                False,
                {"const": "a"},
            ]
        ),
        "if": st.sampled_from([{"properties": {"a": {"const": "x"}}}, {"required": ["b"]}]),
        "then": st.sampled_from([{"required": ["c"]}, {"properties": {"b": {"type": "integer"}}}]),
        "else": st.just({"properties": {"c": False}}),
        "not": st.sampled_from([{"required": ["a"]}, {"required": ["a", "b"]}, {"properties": {"a": {"const": 1}}}]),
    },
)


def _larger(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={
            "items": parts,
            "prefixItems": st.lists(parts, min_size=1, max_size=2),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 3),
            "uniqueItems": st.booleans(),
            "contains": parts,
            "unevaluatedItems": st.just(False),
        },
    )
    objects = st.fixed_dictionaries(
        {"properties": st.dictionaries(_NAMES, parts, max_size=3)},
        optional={
            "type": st.just("object"),
            "additionalProperties": parts,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$", "^x-"]), parts, max_size=2),
            "anyOf": st.just([{"required": ["a"]}, {"required": ["b"]}]),
            "oneOf": st.just([{"required": ["a"]}, {"required": ["b"]}]),
            "dependentSchemas": st.dictionaries(_NAMES, parts, max_size=1),
        },
    )
    combined = st.dictionaries(
        st.sampled_from(["allOf", "anyOf", "oneOf"]), st.lists(parts, min_size=1, max_size=3), min_size=1, max_size=2
    )
    references = st.fixed_dictionaries(
        {"$ref": _REFERENCES}, optional={"type": st.just("object"), "properties": st.just({"q": {"type": "integer"}})}
    )
    ruled = st.builds(lambda one, rules: one | rules, objects, _RULES)
    return st.one_of(arrays, objects, ruled, combined, references)


_PARTS = st.recursive(st.one_of(_TEXTS, _NUMBERS, _LITERALS), _larger, max_leaves=8)


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a schema of any keywords, with definitions that it may or may not refer to."""
    root = draw(_PARTS.filter(lambda one: isinstance(one, dict)))
    tree = {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}, "value": draw(_PARTS)}}
    named = {"$anchor": "named", "anyOf": [draw(_PARTS)]}
    return root | {"$defs": {"A": draw(_PARTS), "B": draw(_PARTS), "tree": tree, "n": named}}


def _field(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}


# What libraries write, by what is special about it: the schema, and the keywords that cannot be held.
WRITTEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "an empty schema": ({}, ()),
    "null for nothing": ({"type": "object", "properties": None, "required": None}, ()),
    "a null property": ({"type": "object", "properties": {"a": None}}, ()),
    "no unique items": (_field({"type": "array", "uniqueItems": False}), ()),
    "unique items": (_field({"type": "array", "items": {"type": "string"}, "uniqueItems": True}), ("uniqueItems",)),
    "unique, but at most one": (_field({"type": "array", "uniqueItems": True, "maxItems": 1}), ()),
    "an unknown draft": ({"$schema": "https://example.org/mine", "type": "object"}, ()),
    "names of any text": ({"type": "object", "propertyNames": {"type": "string"}}, ()),
    "names of an enum": (
        {
            "type": "object",
            "propertyNames": {"$ref": "#/$defs/Key"},
            "additionalProperties": {"type": "integer"},
            "$defs": {"Key": {"enum": ["red", "blue"], "type": "string"}},
        },
        (),
    ),
    "names of a pattern": ({"type": "object", "propertyNames": {"pattern": "^[a-z]{1,3}$"}}, ()),
    "names of a length": ({"type": "object", "propertyNames": {"minLength": 2, "maxLength": 3}}, ()),
    "names that cannot be said": ({"type": "object", "propertyNames": {"not": {"pattern": "^a"}}}, ("propertyNames",)),
    "a never": ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"not": {}}}}, ()),
    "not null": (_field({"not": {"type": "null"}}), ()),
    "not one of some texts": (_field({"type": "string", "not": {"enum": ["", "x"]}}), ()),
    "not a pattern": (_field({"type": "string", "not": {"pattern": "^x"}}), ("not",)),
    "not one of some values": (_field({"not": {"enum": [True, 3, None, "x"]}}), ()),
    "a condition on a flag": (
        {
            "type": "object",
            "properties": {"on": {"type": "boolean"}, "n": {"type": "integer"}},
            "allOf": [{"if": {"properties": {"on": {"const": True}}, "required": ["on"]}, "then": {"required": ["n"]}}],
        },
        (),
    ),
    "closed twice": (
        {"type": "object", "properties": {"a": True}, "additionalProperties": True, "unevaluatedProperties": False},
        (),
    ),
    "exclusive keys": ({"type": "object", "not": {"required": ["a", "b"]}, "properties": {"a": True, "b": True}}, ()),
    "one of two keys": (
        {"type": "object", "properties": {"a": True, "b": True}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        (),
    ),
    "a discriminated union": (
        {
            "$defs": {
                "A": {"type": "object", "properties": {"t": {"const": "a"}}, "required": ["t"]},
                "B": {"type": "object", "properties": {"t": {"const": "b"}, "n": {"type": "null"}}, "required": ["t"]},
            },
            "oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}],
            "discriminator": {"propertyName": "t", "mapping": {"a": "#/$defs/A", "b": "#/$defs/B"}},
        },
        (),
    ),
    "a union that overlaps": (_field({"oneOf": [{"type": "number"}, {"type": "integer"}]}), ("oneOf",)),
    "a condition on an enum": (
        {
            "type": "object",
            "properties": {"k": {"enum": ["x", "y", "z"]}, "n": {"type": "integer"}},
            "required": ["k"],
            "additionalProperties": False,
            "if": {"properties": {"k": {"const": "x"}}},
            "then": {"required": ["n"]},
            "else": {"properties": {"n": False}},
        },
        (),
    ),
    "a condition on a pattern": (
        {
            "type": "object",
            "properties": {"k": {"type": "string"}},
            "if": {"properties": {"k": {"pattern": "a"}}},
            "then": False,
        },
        ("if",),
    ),
    "keys that need others": (
        {"type": "object", "properties": {"a": True, "b": True}, "dependentRequired": {"a": ["b"]}},
        (),
    ),
    "keys that need others, of old": (
        {
            "type": "object",
            "properties": {"a": True, "b": True},
            "dependencies": {"a": ["b"], "b": {"properties": {"a": {"type": "null"}}}},
            "definitions": {},
        },
        (),
    ),
    "contains": (_field({"type": "array", "contains": {"const": "x"}}), ("contains",)),
    "contains what all are": (_field({"type": "array", "items": {"const": 1}, "contains": {"const": 1}}), ()),
    "closed over what it is made of": (
        {
            "type": "object",
            "allOf": [{"$ref": "#/$defs/P"}, {"properties": {"b": {"type": "null"}}}],
            "unevaluatedProperties": False,
            "$defs": {"P": {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}},
        },
        (),
    ),
    "closed over alternatives": (
        {"type": "object", "anyOf": [{"properties": {"a": True}}, {"required": ["b"]}], "unevaluatedProperties": False},
        ("unevaluatedProperties",),
    ),
    "patterns that overlap": (
        {"type": "object", "patternProperties": {"^a": {"type": "string"}, "b$": {"type": "integer"}}},
        ("patternProperties",),
    ),
    "patterns and properties": (
        {"type": "object", "properties": {"ab": {"maxLength": 2}}, "patternProperties": {"^a": {"type": "string"}}},
        (),
    ),
    "a name with brackets": (_field({"$ref": "#/$defs/Page[int]"}) | {"$defs": {"Page[int]": {"type": "integer"}}}, ()),
    "an escaped name": (_field({"$ref": "#/$defs/a~1b%20c"}) | {"$defs": {"a/b c": {"type": "integer"}}}, ()),
    "an anchor": (_field({"$ref": "#p"}) | {"$defs": {"P": {"$anchor": "p", "type": "integer"}}}, ()),
    "an id": (
        _field({"$ref": "item.json"})
        | {"$id": "https://example.com/root.json", "$defs": {"I": {"$id": "item.json", "type": "integer"}}},
        (),
    ),
    "a dynamic reference": ({"$dynamicAnchor": "n", "type": "object", "properties": {"a": {"$dynamicRef": "#n"}}}, ()),
    "a reference that leads nowhere": (_field({"$ref": "#/$defs/none"}), ("$ref",)),
    "a reference to elsewhere": (_field({"$ref": "https://example.com/s.json"}), ("$ref",)),
    "a tree with more beside its reference": (
        {
            "$defs": {
                "N": {
                    "type": "object",
                    "properties": {
                        "n": {"$ref": "#/$defs/N", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
                    },
                }
            },
            "$ref": "#/$defs/N",
        },
        (),
    ),
    "a reference to what cannot be": (
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/N"}},
            "$defs": {"N": {"allOf": [{"const": 1}, {"const": 2}]}},
        },
        (),
    ),
    "what needs itself": (
        {
            "anyOf": [{"type": "null"}, {"$ref": "#/$defs/N"}],
            "$defs": {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"]}},
        },
        (),
    ),
    "a look-ahead": (_field({"type": "string", "pattern": r"^(?=.*\d)(?=.*[a-z])[a-z0-9]{4,8}$"}), ()),
    "the e-mail of Zod": (
        _field(
            {
                "type": "string",
                "format": "email",
                "pattern": (
                    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]"
                    r"@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
                ),
            }
        ),
        (),
    ),
    "a back-reference": (_field({"type": "string", "pattern": r"^(a|b)\1$"}), ("pattern",)),
    "the end of Python": (_field({"type": "string", "pattern": r"^a{1,3}\Z"}), ()),
    "a pattern that is none": (_field({"type": "string", "pattern": "("}), ("pattern",)),
    "an unknown format": (_field({"type": "string", "format": "frobnicated"}), ("format",)),
    "a format of another type": (_field({"type": "integer", "format": "date-time"}), ()),
    "bounds of 64 bits": (_field({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}), ()),
    "unsigned 64 bits": (_field({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}), ()),
    "bounds of a double": (
        _field({"type": "number", "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308}),
        ("maximum", "minimum"),
    ),
    "a bound that no double is": (_field({"type": "integer", "minimum": 2**53 + 1, "maximum": 2**53 + 9}), ()),
    "a number that no double is": (_field({"const": 2**53 + 1}), ("const",)),
    "the least double": (_field({"type": "number", "minimum": 5e-324, "maximum": 3}), ()),
    "a length beyond all": (_field({"type": "string", "minLength": 2**70}), ("minLength",)),
    "exclusive bounds of draft 4": (
        _field({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 3})
        | {"id": "https://example.com/d4"},
        (),
    ),
    "a tuple of old": (
        _field({"type": "array", "items": [{"type": "null"}, {"type": "integer"}], "additionalItems": False})
        | {"definitions": {}},
        (),
    ),
    "counted properties": (
        {"type": "object", "properties": {"a": True, "b": True, "c": True}, "minProperties": 2},
        ("minProperties",),
    ),
}
