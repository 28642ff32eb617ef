"""The keywords of objects: their properties, which names these may have, and how many there may be."""

from collections.abc import Callable, Iterator
from typing import Any

from app.services.json_schema.context import CONDITIONS, LONGEST, MOST_ALTERNATIVES, Meaningless, RewriteContext
from app.services.json_schema.formats import PATTERNS
from app.services.json_schema.logic import values_of
from app.services.json_schema.numbers import count
from app.services.json_schema.patterns import translate
from app.services.json_schema.references import Schema
from app.services.json_schema.shape import Shape
from app.services.json_schema.types import constraints_of, types_of

# Of one object, and as many that have to be there; the time for them, and for patterns of names, grows by their square.
_MOST_PROPERTIES, _MOST_PATTERNS = 2_000, 64


class ObjectKeywords:
    """Rewrites what a schema says of objects. `schema` rewrites a part, `derive` one that was written here."""

    def __init__(
        self, context: RewriteContext, schema: Callable[[Any], Schema], derive: Callable[[Any], Schema]
    ) -> None:
        self._context = context
        self._schema = schema
        self._derive = derive

    def rewrite(self, node: dict[str, Any], types: list[str] | None, own: dict[str, Any]) -> Iterator[Schema]:
        """Write the keywords of objects into `own`, and give the conditions that hold besides."""
        if types is not None and "object" not in types:
            return
        shape = Shape(
            self._mapping(node, "properties"),
            self._mapping(node, "patternProperties"),
            node.get("additionalProperties", True),
            self._context.required(node),
        )
        if max(len(shape.properties), len(shape.required)) > _MOST_PROPERTIES or len(shape.patterns) > _MOST_PATTERNS:
            raise Meaningless("it is too large")
        if not isinstance(shape.others, dict | bool):
            self._context.ignored.add("additionalProperties")
            shape.others = True
        if node.get("unevaluatedProperties", True) is not True and "additionalProperties" not in node:
            self._close(node, shape)
        if "propertyNames" in node:
            self._restrict_names(node["propertyNames"], shape)
        self._write_shape(shape, own)
        self._count_properties(node, shape, own)
        if self._context.without & {"dependentRequired", "dependentSchemas", "dependencies"}:
            return
        yield from self._dependents(node, types)

    def _mapping(self, node: dict[str, Any], keyword: str) -> dict[str, Any]:
        value = node.get(keyword, {})
        if not isinstance(value, dict):
            self._context.ignored.add(keyword)
            return {}
        return {name: schema if isinstance(schema, dict | bool) else True for name, schema in value.items()}

    def _close(self, node: dict[str, Any], shape: Shape) -> None:
        """Hold `unevaluatedProperties`, where it can be told which ones are evaluated."""
        if not node.keys() & {*CONDITIONS, "dependentSchemas", "dependencies"}:
            shape.others = node["unevaluatedProperties"]
            return
        names = self._evaluated(node, 0) if node["unevaluatedProperties"] is False else None
        if names is None:
            self._context.ignored.add("unevaluatedProperties")
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
        parts += [self._context.target(schema)] if "$ref" in node else []
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
                names = self._context.target(names)
        few = values_of(names, self._context.target) if isinstance(names, dict) else [] if names is False else None
        if few is not None:
            if not shape.only([name for name in few if isinstance(name, str)], self._context.matches):
                self._context.ignored.add("propertyNames")
            return
        node = constraints_of(names) if isinstance(names, dict) else {}
        if "string" in (types_of(node.get("type")) or ["string"]):
            node.pop("type", None)
        if not node:
            return
        pattern = self._name_pattern(node)
        if pattern is None or not shape.only_like(pattern, self._context.matches):
            self._context.ignored.add("propertyNames")

    def _name_pattern(self, node: dict[str, Any]) -> str | None:
        """Write what names have to be as one pattern."""
        name = str(node.get("format", "")).lower()
        if node.keys() == {"pattern"} and isinstance(node["pattern"], str):
            translation = translate(node["pattern"])
            alone = translation.exact and len(translation.patterns) == 1
            return translation.patterns[0] if alone and self._context.is_pattern(translation.patterns[0]) else None
        if node.keys() == {"format"} and name in PATTERNS:
            return f"^(?:{PATTERNS[name]})$"
        if node.keys() <= {"minLength", "maxLength"}:
            least, most = count(node.get("minLength", 0)), count(node.get("maxLength", LONGEST))
            if least is not None and most is not None and 0 <= least <= most <= LONGEST:
                return rf"^[\s\S]{{{least},{most if 'maxLength' in node else ''}}}$"
        return None

    def _write_shape(self, shape: Shape, own: dict[str, Any]) -> None:
        if shape.properties:
            own["properties"] = {name: self._schema(schema) for name, schema in shape.properties.items()}
        for pattern, schema in shape.patterns.items():
            translation = translate(pattern)
            if (
                translation.exact
                and len(translation.patterns) == 1
                and self._context.is_pattern(translation.patterns[0])
            ):
                own.setdefault("patternProperties", {})[translation.patterns[0]] = self._schema(schema)
            else:
                self._context.ignored.add("patternProperties")
        if shape.required:
            own["required"] = list(dict.fromkeys(shape.required))
        if shape.others is not True and shape.others != {}:
            own["additionalProperties"] = self._schema(shape.others)

    def _count_properties(self, node: dict[str, Any], shape: Shape, own: dict[str, Any]) -> None:
        self._context.hold_counts(node, own, "minProperties", "maxProperties")
        required = set(shape.required)
        if own.get("minProperties", 0) <= len(required):
            own.pop("minProperties", None)
        closed = shape.others is False and not shape.patterns
        if closed and own.get("maxProperties", 0) >= len(shape.properties):
            own.pop("maxProperties", None)
        if own.get("minProperties", 0) > 1 and not closed:
            self._context.ignored.add("minProperties")  # a name that comes twice counts twice
        if not required >= shape.properties.keys() and (own.get("minProperties", 0) > 1 or "maxProperties" in own):
            self._context.ignored |= own.keys() & {"minProperties", "maxProperties"}
            own.pop("minProperties", None)
            own.pop("maxProperties", None)

    def _dependents(self, node: dict[str, Any], types: list[str] | None) -> Iterator[Schema]:
        """What has to be where a property is: either that is not there, or all of it is."""
        kind: dict[str, Any] = {"type": "object"} if types == ["object"] else {}
        for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
            dependents = self._mapping_of_any(node, keyword)
            if len(dependents) > MOST_ALTERNATIVES:
                self._context.ignored.add(keyword)
                continue
            for name, needed in dependents.items():
                if isinstance(needed, list):
                    then: Any = {"required": [name, *(one for one in needed if isinstance(one, str))]}
                elif isinstance(needed, str):
                    then = {"required": [name, needed]}
                else:
                    then = {"required": [name], "allOf": [needed]}
                yield self._derive({"anyOf": [kind | {"properties": {name: False}}, kind | then]})

    def _mapping_of_any(self, node: dict[str, Any], keyword: str) -> dict[str, Any]:
        value = node.get(keyword, {})
        if isinstance(value, dict):
            return value
        self._context.ignored.add(keyword)
        return {}
