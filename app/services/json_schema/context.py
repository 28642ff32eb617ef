"""What the parts of a rewriter share: its document, and what it does not hold."""

from collections.abc import Callable, Iterable
from typing import Any

from app.services.json_schema.numbers import count
from app.services.json_schema.references import References, Schema
from app.services.json_schema.types import constraints_of

LONGEST = 100_000  # characters, items and properties that can be asked for at least: no context holds more
_MOST = 2**31  # of what an upper bound counts
MOST_ALTERNATIVES = 6  # of conditions in one schema: each may double what is to be parsed
REFERRING = {"$ref", "$dynamicRef", "$recursiveRef"}
CONDITIONS = ("$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if")
# Keywords that are put into words of others.
_DERIVED = {"if", "not", "oneOf", "dependentRequired", "dependentSchemas", "dependencies"}
_WRITTEN = {
    *("type", "enum", "const", "pattern", "required", "anyOf", "allOf", "minLength", "maxLength", "minItems"),
    *("maxItems", "minProperties", "maxProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}


class Meaningless(Exception):
    """A schema that no answer can be held to."""


class RewriteContext:
    """One document. `ignored` are the keywords that the result does not hold, `without` those to be passed over."""

    def __init__(self, root: Any, is_possible: Callable[[Any], bool], without: Iterable[str]) -> None:
        self.ignored: set[str] = set()
        left_out = frozenset(without)
        self.without = left_out | _DERIVED if left_out & _WRITTEN else left_out
        self._is_possible = is_possible  # whether the grammar library takes a schema
        self._references = References(root)

    def hold(self, keyword: str, value: Any, own: dict[str, Any], *, if_none: bool = False) -> None:
        """Write a keyword as the grammar can hold it; None is a value that it cannot."""
        if value is None and not if_none:
            self.ignored.add(keyword)
        else:
            own[keyword] = value

    def hold_counts(self, node: dict[str, Any], own: dict[str, Any], least: str, most: str) -> None:
        """Take in how many there are to be at least and at most."""
        for keyword in (least, most):
            if keyword not in node:
                continue
            number = count(node[keyword])
            if keyword == least and number is not None and number <= 0:
                continue
            possible = number is not None and 0 <= number <= (LONGEST if keyword == least else _MOST)
            self.hold(keyword, number if possible else None, own)

    def is_pattern(self, pattern: str) -> bool:
        """Whether the grammar library takes a pattern."""
        return self._is_possible({"type": "string", "pattern": pattern})

    def matches(self, pattern: str, text: str) -> bool:
        """Whether a pattern matches a text, as the grammar library sees it."""
        return self._is_possible({"type": "string", "pattern": pattern, "const": text})

    def target(self, schema: dict[str, Any]) -> Schema | None:
        """Give the schema that a schema's reference means, None where there is none."""
        return self._references.target(schema)

    def considered(self, original: dict[str, Any]) -> dict[str, Any]:
        """Give the keywords that count; null is as good as absent."""
        node = constraints_of(original)
        self.ignored |= node.keys() & self.without
        return {key: value for key, value in node.items() if key not in self.without}

    def required(self, node: dict[str, Any]) -> list[str]:
        """Name the properties that have to be there."""
        value = node.get("required", [])
        if not isinstance(value, list):
            if value is not False:
                self.ignored.add("required")
            return []
        return [name for name in value if isinstance(name, str)]
