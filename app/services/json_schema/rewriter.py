"""Rewrites a JSON schema of any draft into what the grammar library can hold, and notes what it cannot.

Whatever the new schema takes, the old one takes too, but for the keywords that are noted.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from app.services.json_schema.definitions import depth, settle
from app.services.json_schema.formats import FREE, PATTERNS, RANGES
from app.services.json_schema.logic import disjoint, opposite, values_of
from app.services.json_schema.numbers import Lower, Upper, count, factor, is_exact
from app.services.json_schema.patterns import translate
from app.services.json_schema.references import References, Schema
from app.services.json_schema.shape import Shape
from app.services.json_schema.types import constraints_of, is_known, types_of

_MOST_SCHEMAS = 20_000  # that a rewritten schema consists of
_MOST_COPIES = 2_000  # of schemas that are put into the place of references to them
# Levels, definitions and all: the grammar library needs stack for each, and the end of that ends the process.
_DEEPEST = 600
_MOST_ALTERNATIVES = 6  # of conditions in one schema: each may double what is to be parsed
_MOST_VALUES = 10_000  # of an enum
# Of one object, and as many that have to be there; the time for them, and for patterns of names, grows by their square.
_MOST_PROPERTIES, _MOST_PATTERNS = 2_000, 64
_LONGEST = 100_000  # characters, items and properties that can be asked for at least: no context holds more
_MOST = 2**31  # of what an upper bound counts
_MOST_PARTS = 64  # of a oneOf that are compared with one another
_REFERRING = {"$ref", "$dynamicRef", "$recursiveRef"}
_CONDITIONS = ("$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if")
_INLINING = {*_REFERRING, "allOf", "not", "if", "oneOf", "dependentSchemas", "dependencies"}
# Keywords that are put into words of others.
_DERIVED = {"if", "not", "oneOf", "dependentRequired", "dependentSchemas", "dependencies"}
_WRITTEN = {
    *("type", "enum", "const", "pattern", "required", "anyOf", "allOf", "minLength", "maxLength", "minItems"),
    *("maxItems", "minProperties", "maxProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}


class Meaningless(Exception):
    """A schema that no answer can be held to."""


class Rewriter:
    """Rewrites one document. `ignored` are the keywords that the result does not hold."""

    def __init__(self, root: Any, is_possible: Callable[[Any], bool], without: Iterable[str] = ()) -> None:
        self.ignored: set[str] = set()
        self._root = root
        self._is_possible = is_possible  # whether the grammar library takes a schema
        left_out = frozenset(without)  # keywords that are to be passed over
        self._without = left_out | _DERIVED if left_out & _WRITTEN else left_out
        self._references = References(root)
        self._names: dict[int, str] = {}  # of the definitions, by the identity of their schema
        self._pending: list[tuple[str, dict[str, Any]]] = []
        self._inlined: list[int] = []  # schemas whose references are being put in their place
        self._made: list[Any] = []  # schemas whose identity counts, also those written here
        self._schemas = 0
        self._originals: set[int] = set()
        self._copies = 0

    def whole(self) -> dict[str, Any] | bool:
        """Rewrite the document. Raises Meaningless."""
        if isinstance(self._root, dict) and "$ref" in self._root:
            target = self._target(self._root)
            if target is None or target is self._root:
                raise Meaningless(f"'$ref' to '{str(self._root['$ref'])[:100]}' leads nowhere")
        schema = self.schema(self._root)
        definitions: dict[str, Any] = {}
        while self._pending:
            name, original = self._pending.pop()
            definitions[name] = self._body(original)
        schema = settle(schema, definitions)
        if depth(schema, definitions) > _DEEPEST:
            raise Meaningless("it nests too deep")
        return schema | {"$defs": definitions} if isinstance(schema, dict) and definitions else schema

    def schema(self, original: Any) -> Schema:
        """Rewrite a schema that stands in a place of its own. What puts others in its place becomes a definition."""
        if not isinstance(original, dict):
            return original if isinstance(original, bool) else True
        if not original.keys() & _INLINING:
            return self._body(original)
        if constraints_of(original).keys() <= _REFERRING and original.get("nullable") is not True:
            target = self._target(original)
            if isinstance(target, dict):
                return {"$ref": f"#/$defs/{self._definition(target)}"}
        return {"$ref": f"#/$defs/{self._definition(original)}"}

    def _definition(self, original: dict[str, Any]) -> str:
        if id(original) not in self._names:
            self._names[id(original)] = f"s{len(self._names)}"
            self._pending.append((self._names[id(original)], original))
            self._made.append(original)
        return self._names[id(original)]

    def _body(self, original: dict[str, Any]) -> Schema:
        """Rewrite a schema with all that it refers to."""
        self._schemas += 1
        self._copies += id(original) in self._originals
        self._originals.add(id(original))
        if self._schemas > _MOST_SCHEMAS or self._copies > _MOST_COPIES:
            raise Meaningless("it is too large")
        node = self._considered(original)
        types = self._types(node)
        own: dict[str, Any] = {} if types is None else {"type": types[0] if len(types) == 1 else types}
        self._values(node, own)
        self._numbers(node, types, own)
        self._arrays(node, types, own)
        conditions = [*self._strings(node, types, own), *self._objects(original, node, types, own)]
        conditions += self._conditions(original, node, types)
        whole = _together(own, conditions, _conditions_first(node))
        if original.get("nullable") is True and whole and "null" not in (types or ()):
            return {"anyOf": [whole, {"type": "null"}]}
        return whole

    def _considered(self, original: dict[str, Any]) -> dict[str, Any]:
        """Give the keywords that count; null is as good as absent."""
        node = constraints_of(original)
        self.ignored |= node.keys() & self._without
        return {key: value for key, value in node.items() if key not in self._without}

    def _types(self, node: dict[str, Any]) -> list[str] | None:
        if "type" in node and not is_known(node["type"]):
            self.ignored.add("type")
        return types_of(node.get("type"))

    # What a value is

    def _values(self, node: dict[str, Any], own: dict[str, Any]) -> None:
        if "const" in node:
            self._hold("const", node["const"] if is_exact(node["const"]) else None, own, if_none=node["const"] is None)
        if "enum" not in node:
            return
        values = node["enum"]
        exact = [value for value in values if is_exact(value)] if isinstance(values, list) else []
        usable = isinstance(values, list) and len(values) <= _MOST_VALUES and bool(exact or not values)
        self._hold("enum", exact if usable else None, own)

    def _hold(self, keyword: str, value: Any, own: dict[str, Any], *, if_none: bool = False) -> None:
        if value is None and not if_none:
            self.ignored.add(keyword)
        else:
            own[keyword] = value

    def _numbers(self, node: dict[str, Any], types: list[str] | None, own: dict[str, Any]) -> None:
        if types is not None and not {"integer", "number"} & set(types):
            return
        whole = types is not None and "number" not in types
        for side, bound in (("minimum", Lower), ("maximum", Upper)):
            limit = bound.of(node, self.ignored.add)
            if types is not None and (size := RANGES.get(str(node.get("format")))):
                limit = limit.tighten(size[side == "maximum"])
            own |= limit.write(whole, self.ignored.add)
        if "multipleOf" in node:
            self._hold("multipleOf", factor(node["multipleOf"]), own)

    # Texts

    def _strings(self, node: dict[str, Any], types: list[str] | None, own: dict[str, Any]) -> Iterator[Schema]:
        if types is not None and "string" not in types:
            return
        self._counts(node, own, "minLength", "maxLength")
        patterns = [*self._patterns(node.get("pattern"), "pattern"), *self._format(node, types, own)]
        if patterns:
            own["pattern"] = patterns[0]
        kind: dict[str, Any] = {"type": "string"} if types == ["string"] else {}
        yield from (kind | {"pattern": pattern} for pattern in patterns[1:])

    def _patterns(self, pattern: Any, keyword: str) -> list[str]:
        if pattern is None:
            return []
        translation = translate(pattern) if isinstance(pattern, str) else None
        patterns = [one for one in translation.patterns if self._is_pattern(one)] if translation else []
        if translation is None or not translation.exact or len(patterns) < len(translation.patterns):
            self.ignored.add(keyword)
        return patterns

    def _format(self, node: dict[str, Any], types: list[str] | None, own: dict[str, Any]) -> list[str]:
        name = str(node.get("format", "")).lower()
        if name == "uri":
            own["format"] = name
        elif name in PATTERNS:
            return [f"^(?:{PATTERNS[name]})$"]
        elif name not in FREE and (types == ["string"] or name not in RANGES):
            self.ignored.add("format")
        return []

    def _counts(self, node: dict[str, Any], own: dict[str, Any], least: str, most: str) -> None:
        """Take in how many there are to be at least and at most."""
        for keyword in (least, most):
            if keyword not in node:
                continue
            number = count(node[keyword])
            if keyword == least and number is not None and number <= 0:
                continue
            possible = number is not None and 0 <= number <= (_LONGEST if keyword == least else _MOST)
            self._hold(keyword, number if possible else None, own)

    # Arrays

    def _arrays(self, node: dict[str, Any], types: list[str] | None, own: dict[str, Any]) -> None:
        if types is not None and "array" not in types:
            return
        items = node.get("items", True)
        if isinstance(items, list):  # until draft 2019-09
            first, rest = items, node.get("additionalItems", True)
        else:
            first, rest = node.get("prefixItems", []), items
        if not isinstance(first, list):
            self.ignored.add("prefixItems")
            first = []
        if "unevaluatedItems" in node and node["unevaluatedItems"] is not True:
            if rest is True and not node.keys() & {*_CONDITIONS, "contains"}:
                rest = node["unevaluatedItems"]
            elif rest is True:
                self.ignored.add("unevaluatedItems")
        if first:
            own["prefixItems"] = [self.schema(item) for item in first]
        if rest is not True:
            own["items"] = self.schema(rest)
        self._counts(node, own, "minItems", "maxItems")
        if node.get("uniqueItems") is True and own.get("maxItems", 2) > 1:
            self.ignored.add("uniqueItems")
        if "contains" in node:
            self._contains(node, rest if not first else None, own)

    def _contains(self, node: dict[str, Any], every: Any, own: dict[str, Any]) -> None:
        """What every item is anyway is only counted."""
        least, most = count(node.get("minContains", 1)), node.get("maxContains")
        if least == 0 and most is None:
            return
        match = node["contains"]
        if least is None or not (match is True or match == {} or match == every):
            self.ignored |= node.keys() & {"contains", "minContains", "maxContains"}
            return
        own["minItems"] = max(own.get("minItems", 0), least)
        if (number := count(most)) is not None:
            own["maxItems"] = min(own.get("maxItems", number), number)

    # Objects

    def _objects(
        self, original: dict[str, Any], node: dict[str, Any], types: list[str] | None, own: dict[str, Any]
    ) -> Iterator[Schema]:
        if types is not None and "object" not in types:
            return
        shape = Shape(
            self._mapping(node, "properties"),
            self._mapping(node, "patternProperties"),
            node.get("additionalProperties", True),
            self._required(node),
        )
        if max(len(shape.properties), len(shape.required)) > _MOST_PROPERTIES or len(shape.patterns) > _MOST_PATTERNS:
            raise Meaningless("it is too large")
        if not isinstance(shape.others, dict | bool):
            self.ignored.add("additionalProperties")
            shape.others = True
        if node.get("unevaluatedProperties", True) is not True and "additionalProperties" not in node:
            self._close(node, shape)
        if "propertyNames" in node:
            self._restrict_names(node["propertyNames"], shape)
        self._write_shape(shape, own)
        self._count_properties(node, shape, own)
        if self._without & {"dependentRequired", "dependentSchemas", "dependencies"}:
            return
        yield from self._dependents(node, types)

    def _mapping(self, node: dict[str, Any], keyword: str) -> dict[str, Any]:
        value = node.get(keyword, {})
        if not isinstance(value, dict):
            self.ignored.add(keyword)
            return {}
        return {name: schema if isinstance(schema, dict | bool) else True for name, schema in value.items()}

    def _required(self, node: dict[str, Any]) -> list[str]:
        value = node.get("required", [])
        if not isinstance(value, list):
            if value is not False:
                self.ignored.add("required")
            return []
        return [name for name in value if isinstance(name, str)]

    def _close(self, node: dict[str, Any], shape: Shape) -> None:
        """Hold `unevaluatedProperties`, where it can be told which ones are evaluated."""
        if not node.keys() & {*_CONDITIONS, "dependentSchemas", "dependencies"}:
            shape.others = node["unevaluatedProperties"]
            return
        names = self._evaluated(node, 0) if node["unevaluatedProperties"] is False else None
        if names is None:
            self.ignored.add("unevaluatedProperties")
            return
        shape.properties = shape.properties | {name: True for name in names if name not in shape.properties}
        shape.others = False

    def _evaluated(self, schema: Any, depth: int) -> list[str] | None:
        """Name the properties that a schema made of plain objects evaluates."""
        if not isinstance(schema, dict) or depth > 8:
            return None
        node = constraints_of(schema)
        if node.keys() - {"type", "properties", "required", "allOf", "$ref", "unevaluatedProperties"}:
            return None
        parts = [*(node["allOf"] if isinstance(node.get("allOf"), list) else ())]
        parts += [self._target(schema)] if "$ref" in node else []
        names = list(node["properties"]) if isinstance(node.get("properties"), dict) else []
        for part in parts:
            more = self._evaluated(part, depth + 1)
            if more is None:
                return None
            names += more
        return names

    def _restrict_names(self, names: Any, shape: Shape) -> None:
        """Hold `propertyNames`: of few names as properties, of a pattern as one."""
        for _ in range(8):
            if isinstance(names, dict) and "$ref" in names and constraints_of(names).keys() == {"$ref"}:
                names = self._target(names)
        few = values_of(names, self._target) if isinstance(names, dict) else [] if names is False else None
        if few is not None:
            if not shape.only([name for name in few if isinstance(name, str)], self._matches):
                self.ignored.add("propertyNames")
            return
        node = constraints_of(names) if isinstance(names, dict) else {}
        if "string" in (types_of(node.get("type")) or ["string"]):
            node.pop("type", None)
        if not node:
            return
        pattern = self._name_pattern(node)
        if pattern is None or not shape.only_like(pattern, self._matches):
            self.ignored.add("propertyNames")

    def _name_pattern(self, node: dict[str, Any]) -> str | None:
        """Write what names have to be as one pattern."""
        name = str(node.get("format", "")).lower()
        if node.keys() == {"pattern"} and isinstance(node["pattern"], str):
            translation = translate(node["pattern"])
            alone = translation.exact and len(translation.patterns) == 1
            return translation.patterns[0] if alone and self._is_pattern(translation.patterns[0]) else None
        if node.keys() == {"format"} and name in PATTERNS:
            return f"^(?:{PATTERNS[name]})$"
        if node.keys() <= {"minLength", "maxLength"}:
            least, most = count(node.get("minLength", 0)), count(node.get("maxLength", _LONGEST))
            if least is not None and most is not None and 0 <= least <= most <= _LONGEST:
                return rf"^[\s\S]{{{least},{most if 'maxLength' in node else ''}}}$"
        return None

    def _write_shape(self, shape: Shape, own: dict[str, Any]) -> None:
        if shape.properties:
            own["properties"] = {name: self.schema(schema) for name, schema in shape.properties.items()}
        for pattern, schema in shape.patterns.items():
            translation = translate(pattern)
            if translation.exact and len(translation.patterns) == 1 and self._is_pattern(translation.patterns[0]):
                own.setdefault("patternProperties", {})[translation.patterns[0]] = self.schema(schema)
            else:
                self.ignored.add("patternProperties")
        if shape.required:
            own["required"] = list(dict.fromkeys(shape.required))
        if shape.others is not True and shape.others != {}:
            own["additionalProperties"] = self.schema(shape.others)

    def _count_properties(self, node: dict[str, Any], shape: Shape, own: dict[str, Any]) -> None:
        self._counts(node, own, "minProperties", "maxProperties")
        required = set(shape.required)
        if own.get("minProperties", 0) <= len(required):
            own.pop("minProperties", None)
        closed = shape.others is False and not shape.patterns
        if closed and own.get("maxProperties", 0) >= len(shape.properties):
            own.pop("maxProperties", None)
        if own.get("minProperties", 0) > 1 and not closed:
            self.ignored.add("minProperties")  # a name that comes twice counts twice
        if not required >= shape.properties.keys() and (own.get("minProperties", 0) > 1 or "maxProperties" in own):
            self.ignored |= own.keys() & {"minProperties", "maxProperties"}
            own.pop("minProperties", None)
            own.pop("maxProperties", None)

    def _dependents(self, node: dict[str, Any], types: list[str] | None) -> Iterator[Schema]:
        """What has to be where a property is: either that is not there, or all of it is."""
        kind: dict[str, Any] = {"type": "object"} if types == ["object"] else {}
        for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
            dependents = self._mapping_of_any(node, keyword)
            if len(dependents) > _MOST_ALTERNATIVES:
                self.ignored.add(keyword)
                continue
            for name, needed in dependents.items():
                if isinstance(needed, list):
                    then: Any = {"required": [name, *(one for one in needed if isinstance(one, str))]}
                elif isinstance(needed, str):
                    then = {"required": [name, needed]}
                else:
                    then = {"required": [name], "allOf": [needed]}
                yield self._new({"anyOf": [kind | {"properties": {name: False}}, kind | then]})

    def _mapping_of_any(self, node: dict[str, Any], keyword: str) -> dict[str, Any]:
        value = node.get(keyword, {})
        if isinstance(value, dict):
            return value
        self.ignored.add(keyword)
        return {}

    # What is said of a schema by others

    def _conditions(self, original: dict[str, Any], node: dict[str, Any], types: list[str] | None) -> Iterator[Schema]:
        for keyword, value in node.items():
            if keyword in _REFERRING:
                yield self._referred(keyword, original)
            elif keyword in ("allOf", "anyOf", "oneOf") and not (isinstance(value, list) and value):
                self.ignored.add(keyword)
            elif keyword == "allOf" and len(value) == 1 and node.keys() == {"allOf"}:
                yield self.schema(value[0])
            elif keyword == "allOf":
                yield from (self._body(part) if isinstance(part, dict) else part is not False for part in value)
            elif keyword == "anyOf":
                yield {"anyOf": [self.schema(part) for part in value]}
            elif keyword == "oneOf":
                yield self._one_of(value, node, types)
            elif keyword == "not":
                yield self._not(value, original)
            elif keyword == "if":
                yield self._if(node, original)

    def _referred(self, keyword: str, original: dict[str, Any]) -> Schema:
        target = self._target(original)
        if isinstance(target, bool):
            return target
        if target is None or id(target) in self._inlined:
            self.ignored.add(keyword)
            return True
        self._inlined.append(id(target))
        body = self._body(target)
        self._inlined.pop()
        return body

    def _one_of(self, parts: list[Any], node: dict[str, Any], types: list[str] | None) -> Schema:
        """One of schemas that have nothing in common is any of them."""
        there = frozenset(self._required(node)) if types == ["object"] else None
        if len(parts) <= _MOST_ALTERNATIVES and all(_only_requires(part) for part in parts):
            others = [[opposite(other, None, self._target) for other in parts if other is not part] for part in parts]
            return self._new({"anyOf": [{"allOf": [part, *rest]} for part, rest in zip(parts, others, strict=True)]})
        if len(parts) > _MOST_PARTS or not all(
            disjoint(one, other, self._target, there) for place, one in enumerate(parts) for other in parts[:place]
        ):
            self.ignored.add("oneOf")
        return {"anyOf": [self.schema(part) for part in parts]}

    def _not(self, schema: Any, original: dict[str, Any]) -> Schema:
        other = opposite(schema, original, self._target)
        if other is None:
            self.ignored.add("not")
            return True
        return self._new(other)

    def _if(self, node: dict[str, Any], original: dict[str, Any]) -> Schema:
        then, otherwise = node.get("then", True), node.get("else", True)
        if then is True and otherwise is True:
            return True
        other = opposite(node["if"], original, self._target)
        if other is None:
            self.ignored.add("if")
            return True
        return self._new({"anyOf": [{"allOf": [node["if"], then]}, {"allOf": [other, otherwise]}]})

    def _new(self, schema: Any) -> Schema:
        """Rewrite a schema that was written here."""
        self._made.append(schema)
        return self.schema(schema)

    def _is_pattern(self, pattern: str) -> bool:
        return self._is_possible({"type": "string", "pattern": pattern})

    def _matches(self, pattern: str, text: str) -> bool:
        return self._is_possible({"type": "string", "pattern": pattern, "const": text})

    def _target(self, schema: dict[str, Any]) -> Schema | None:
        return self._references.target(schema)


def _only_requires(schema: Any) -> bool:
    """Whether a schema says nothing but which properties are there."""
    if not isinstance(schema, dict) or schema.get("nullable") is True:
        return False
    node = constraints_of(schema)
    return (
        "required" in node and node.keys() <= {"required", "type"} and types_of(node.get("type")) in (None, ["object"])
    )


def _conditions_first(node: dict[str, Any]) -> bool:
    """Whether properties of conditions come before a schema's own: the grammar keeps them in the order of writing."""
    order = list(node)
    conditions = [order.index(keyword) for keyword in _CONDITIONS if keyword in node]
    return "properties" in node and bool(conditions) and min(conditions) < order.index("properties")


def _together(own: dict[str, Any], conditions: Iterable[Schema], first: bool) -> Schema:
    """Put together what a schema says itself and the conditions that hold besides."""
    more = [condition for condition in conditions if condition is not True and condition != {}]
    if False in more:
        return False
    if not more:
        return own
    if not own and len(more) == 1:
        return more[0]
    return {"allOf": more} | own if first else own | {"allOf": more}
