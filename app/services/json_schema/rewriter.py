"""Rewrites a JSON schema of any draft into what the grammar library can hold, and notes what it cannot.

Whatever the new schema takes, the old one takes too, but for the keywords that are noted.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from app.services.json_schema.condition_keywords import ConditionKeywords
from app.services.json_schema.context import CONDITIONS, REFERRING, Meaningless, RewriteContext
from app.services.json_schema.definitions import depth, settle
from app.services.json_schema.formats import FREE, PATTERNS, RANGES
from app.services.json_schema.numbers import Lower, Upper, count, factor, is_exact
from app.services.json_schema.object_keywords import ObjectKeywords
from app.services.json_schema.patterns import translate
from app.services.json_schema.references import Schema
from app.services.json_schema.types import constraints_of, is_known, types_of

_MOST_SCHEMAS = 20_000  # that a rewritten schema consists of
_MOST_COPIES = 2_000  # of schemas that are put into the place of references to them
# Levels, definitions and all: the grammar library needs stack for each, and the end of that ends the process.
_DEEPEST = 600
_MOST_VALUES = 10_000  # of an enum
_INLINING = {*REFERRING, "allOf", "not", "if", "oneOf", "dependentSchemas", "dependencies"}


class Rewriter:
    """Rewrites one document."""

    def __init__(self, root: Any, is_possible: Callable[[Any], bool], without: Iterable[str] = ()) -> None:
        self._root = root
        self._context = RewriteContext(root, is_possible, without)
        self._objects = ObjectKeywords(self._context, self.schema, self._rewrite_derived)
        self._conditions = ConditionKeywords(self._context, self.schema, self._body, self._rewrite_derived)
        self._names: dict[int, str] = {}  # of the definitions, by the identity of their schema
        self._pending: list[tuple[str, dict[str, Any]]] = []
        self._keep_alive: list[Any] = []  # schemas whose identity counts, also those written here
        self._schemas = 0
        self._originals: set[int] = set()
        self._copies = 0

    @property
    def ignored(self) -> set[str]:
        """The keywords that the result does not hold."""
        return self._context.ignored

    def whole(self) -> dict[str, Any] | bool:
        """Rewrite the document. Raises Meaningless."""
        if isinstance(self._root, dict) and "$ref" in self._root:
            target = self._context.target(self._root)
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
        if constraints_of(original).keys() <= REFERRING and original.get("nullable") is not True:
            target = self._context.target(original)
            if isinstance(target, dict):
                return {"$ref": f"#/$defs/{self._definition(target)}"}
        return {"$ref": f"#/$defs/{self._definition(original)}"}

    def _definition(self, original: dict[str, Any]) -> str:
        if id(original) not in self._names:
            self._names[id(original)] = f"s{len(self._names)}"
            self._pending.append((self._names[id(original)], original))
            self._keep_alive.append(original)
        return self._names[id(original)]

    def _body(self, original: dict[str, Any]) -> Schema:
        """Rewrite a schema with all that it refers to."""
        self._schemas += 1
        self._copies += id(original) in self._originals
        self._originals.add(id(original))
        if self._schemas > _MOST_SCHEMAS or self._copies > _MOST_COPIES:
            raise Meaningless("it is too large")
        node = self._context.considered(original)
        types = self._types(node)
        own: dict[str, Any] = {} if types is None else {"type": types[0] if len(types) == 1 else types}
        self._values(node, own)
        self._numbers(node, types, own)
        self._arrays(node, types, own)
        conditions = [*self._strings(node, types, own), *self._objects.rewrite(node, types, own)]
        conditions += self._conditions.rewrite(original, node, types)
        whole = _together(own, conditions, _conditions_first(node))
        if original.get("nullable") is True and whole and "null" not in (types or ()):
            return {"anyOf": [whole, {"type": "null"}]}
        return whole

    def _types(self, node: dict[str, Any]) -> list[str] | None:
        if "type" in node and not is_known(node["type"]):
            self._context.ignored.add("type")
        return types_of(node.get("type"))

    # What a value is

    def _values(self, node: dict[str, Any], own: dict[str, Any]) -> None:
        if "const" in node:
            self._context.hold(
                "const", node["const"] if is_exact(node["const"]) else None, own, if_none=node["const"] is None
            )
        if "enum" not in node:
            return
        values = node["enum"]
        exact = [value for value in values if is_exact(value)] if isinstance(values, list) else []
        usable = isinstance(values, list) and len(values) <= _MOST_VALUES and bool(exact or not values)
        self._context.hold("enum", exact if usable else None, own)

    def _numbers(self, node: dict[str, Any], types: list[str] | None, own: dict[str, Any]) -> None:
        if types is not None and not {"integer", "number"} & set(types):
            return
        whole = types is not None and "number" not in types
        for side, bound in (("minimum", Lower), ("maximum", Upper)):
            limit = bound.of(node, self._context.ignored.add)
            if types is not None and (size := RANGES.get(str(node.get("format")))):
                limit = limit.tighten(size[side == "maximum"])
            own |= limit.write(whole, self._context.ignored.add)
        if "multipleOf" in node:
            self._context.hold("multipleOf", factor(node["multipleOf"]), own)

    # Texts

    def _strings(self, node: dict[str, Any], types: list[str] | None, own: dict[str, Any]) -> Iterator[Schema]:
        if types is not None and "string" not in types:
            return
        self._context.hold_counts(node, own, "minLength", "maxLength")
        patterns = [*self._patterns(node.get("pattern"), "pattern"), *self._format(node, types, own)]
        if patterns:
            own["pattern"] = patterns[0]
        kind: dict[str, Any] = {"type": "string"} if types == ["string"] else {}
        yield from (kind | {"pattern": pattern} for pattern in patterns[1:])

    def _patterns(self, pattern: Any, keyword: str) -> list[str]:
        if pattern is None:
            return []
        translation = translate(pattern) if isinstance(pattern, str) else None
        patterns = [one for one in translation.patterns if self._context.is_pattern(one)] if translation else []
        if translation is None or not translation.exact or len(patterns) < len(translation.patterns):
            self._context.ignored.add(keyword)
        return patterns

    def _format(self, node: dict[str, Any], types: list[str] | None, own: dict[str, Any]) -> list[str]:
        name = str(node.get("format", "")).lower()
        if name == "uri":
            own["format"] = name
        elif name in PATTERNS:
            return [f"^(?:{PATTERNS[name]})$"]
        elif name not in FREE and (types == ["string"] or name not in RANGES):
            self._context.ignored.add("format")
        return []

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
            self._context.ignored.add("prefixItems")
            first = []
        if "unevaluatedItems" in node and node["unevaluatedItems"] is not True:
            if rest is True and not node.keys() & {*CONDITIONS, "contains"}:
                rest = node["unevaluatedItems"]
            elif rest is True:
                self._context.ignored.add("unevaluatedItems")
        if first:
            own["prefixItems"] = [self.schema(item) for item in first]
        if rest is not True:
            own["items"] = self.schema(rest)
        self._context.hold_counts(node, own, "minItems", "maxItems")
        if node.get("uniqueItems") is True and own.get("maxItems", 2) > 1:
            self._context.ignored.add("uniqueItems")
        if "contains" in node:
            self._contains(node, rest if not first else None, own)

    def _contains(self, node: dict[str, Any], every: Any, own: dict[str, Any]) -> None:
        """What every item is anyway is only counted."""
        least, most = count(node.get("minContains", 1)), node.get("maxContains")
        if least == 0 and most is None:
            return
        match = node["contains"]
        if least is None or not (match is True or match == {} or match == every):
            self._context.ignored |= node.keys() & {"contains", "minContains", "maxContains"}
            return
        own["minItems"] = max(own.get("minItems", 0), least)
        if (number := count(most)) is not None:
            own["maxItems"] = min(own.get("maxItems", number), number)

    def _rewrite_derived(self, schema: Any) -> Schema:
        """Rewrite a schema that was written here."""
        self._keep_alive.append(schema)
        return self.schema(schema)


def _conditions_first(node: dict[str, Any]) -> bool:
    """Whether properties of conditions come before a schema's own: the grammar keeps them in the order of writing."""
    order = list(node)
    conditions = [order.index(keyword) for keyword in CONDITIONS if keyword in node]
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
