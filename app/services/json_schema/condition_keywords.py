"""The keywords by which a schema says what holds besides: references, allOf, anyOf, oneOf, not and if."""

from collections.abc import Callable, Iterator
from typing import Any

from app.services.json_schema.context import MOST_ALTERNATIVES, REFERRING, RewriteContext
from app.services.json_schema.logic import disjoint, opposite
from app.services.json_schema.references import Schema
from app.services.json_schema.types import constraints_of, types_of

_MOST_PARTS = 64  # of a oneOf that are compared with one another


class ConditionKeywords:
    """Rewrites what a schema says by other schemas.

    `schema` rewrites a part that stands by itself, `body` one that is put in its place, `derive` one that was written
    here.
    """

    def __init__(
        self,
        context: RewriteContext,
        schema: Callable[[Any], Schema],
        body: Callable[[dict[str, Any]], Schema],
        derive: Callable[[Any], Schema],
    ) -> None:
        self._context = context
        self._schema = schema
        self._body = body
        self._derive = derive
        self._inlined: list[int] = []  # schemas whose references are being put in their place

    def rewrite(self, original: dict[str, Any], node: dict[str, Any], types: list[str] | None) -> Iterator[Schema]:
        """Give the schemas that hold besides what a schema says itself."""
        for keyword, value in node.items():
            if keyword in REFERRING:
                yield self._referred(keyword, original)
            elif keyword in ("allOf", "anyOf", "oneOf") and not (isinstance(value, list) and value):
                self._context.ignored.add(keyword)
            elif keyword == "allOf" and len(value) == 1 and node.keys() == {"allOf"}:
                yield self._schema(value[0])
            elif keyword == "allOf":
                yield from (self._body(part) if isinstance(part, dict) else part is not False for part in value)
            elif keyword == "anyOf":
                yield {"anyOf": [self._schema(part) for part in value]}
            elif keyword == "oneOf":
                yield self._one_of(value, node, types)
            elif keyword == "not":
                yield self._not(value, original)
            elif keyword == "if":
                yield self._if(node, original)

    def _referred(self, keyword: str, original: dict[str, Any]) -> Schema:
        target = self._context.target(original)
        if isinstance(target, bool):
            return target
        if target is None or id(target) in self._inlined:
            self._context.ignored.add(keyword)
            return True
        self._inlined.append(id(target))
        body = self._body(target)
        self._inlined.pop()
        return body

    def _one_of(self, parts: list[Any], node: dict[str, Any], types: list[str] | None) -> Schema:
        """One of schemas that have nothing in common is any of them."""
        there = frozenset(self._context.required(node)) if types == ["object"] else None
        if len(parts) <= MOST_ALTERNATIVES and all(_only_requires(part) for part in parts):
            others = [
                [opposite(other, None, self._context.target) for other in parts if other is not part] for part in parts
            ]
            return self._derive({"anyOf": [{"allOf": [part, *rest]} for part, rest in zip(parts, others, strict=True)]})
        if len(parts) > _MOST_PARTS or not all(
            disjoint(first, other, self._context.target, there)
            for index, first in enumerate(parts)
            for other in parts[:index]
        ):
            self._context.ignored.add("oneOf")
        return {"anyOf": [self._schema(part) for part in parts]}

    def _not(self, schema: Any, original: dict[str, Any]) -> Schema:
        other = opposite(schema, original, self._context.target)
        if other is None:
            self._context.ignored.add("not")
            return True
        return self._derive(other)

    def _if(self, node: dict[str, Any], original: dict[str, Any]) -> Schema:
        then, otherwise = node.get("then", True), node.get("else", True)
        if then is True and otherwise is True:
            return True
        other = opposite(node["if"], original, self._context.target)
        if other is None:
            self._context.ignored.add("if")
            return True
        return self._derive({"anyOf": [{"allOf": [node["if"], then]}, {"allOf": [other, otherwise]}]})


def _only_requires(schema: Any) -> bool:
    """Whether a schema says nothing but which properties are there."""
    if not isinstance(schema, dict) or schema.get("nullable") is True:
        return False
    node = constraints_of(schema)
    return (
        "required" in node and node.keys() <= {"required", "type"} and types_of(node.get("type")) in (None, ["object"])
    )
